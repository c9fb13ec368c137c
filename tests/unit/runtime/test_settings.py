"""Settings: from the mapping that is handed in and nowhere else; every mistake names the environment key."""

from typing import ClassVar

import pytest
from anneal_runtime.errors import InvalidArgument
from anneal_runtime.settings import ServiceSettings, load
from pydantic import Field, ValidationError


class WorkerSettings(ServiceSettings):
    service: ClassVar[str] = "worker"

    lanes: int = Field(default=2, ge=1, le=16)
    supervisor_addr: str = ""
    models: dict[str, str] = Field(default_factory=dict)
    skills: tuple[str, ...] = ()


class NeedySettings(ServiceSettings):
    home: str


def test_fields_are_read_by_their_prefix_and_typed() -> None:
    settings = load(WorkerSettings, {"ANNEAL_LISTEN": "127.0.0.1:7420", "ANNEAL_LANES": "4", "HOME": "/root"})
    assert (settings.listen, settings.lanes) == ("127.0.0.1:7420", 4)


def test_the_services_own_key_wins_over_the_shared_one() -> None:
    environ = {"ANNEAL_LOG_LEVEL": "INFO", "ANNEAL_WORKER_LOG_LEVEL": "DEBUG"}
    assert load(WorkerSettings, environ).log_level == "DEBUG"


def test_lists_and_mappings_are_json() -> None:
    settings = load(WorkerSettings, {"ANNEAL_MODELS": '{"worker": "gemma"}', "ANNEAL_SKILLS": '["stig"]'})
    assert (settings.models, settings.skills) == ({"worker": "gemma"}, ("stig",))


@pytest.mark.parametrize(
    ("environ", "key", "words"),
    [
        ({"ANNEAL_LANES": "many"}, "ANNEAL_LANES", "valid integer"),
        ({"ANNEAL_LANES": "99"}, "ANNEAL_LANES", "less than or equal to 16"),
        ({"ANNEAL_WORKER_LANES": "0"}, "ANNEAL_WORKER_LANES", "greater than or equal to 1"),
        ({"ANNEAL_LISTEN": "7420"}, "ANNEAL_LISTEN", "pattern"),
        ({"ANNEAL_LOG_LEVEL": "LOUD"}, "ANNEAL_LOG_LEVEL", "'DEBUG'"),
        ({"ANNEAL_MODELS": "{worker"}, "ANNEAL_MODELS", "not JSON"),
        ({"ANNEAL_MODELS": '{"worker": 5}'}, "ANNEAL_MODELS", "[worker]"),
        ({"ANNEAL_WORKER_LAINES": "4"}, "ANNEAL_WORKER_LAINES", "no such setting"),
    ],
)
def test_a_mistake_names_the_key_and_what_is_wrong(environ: dict[str, str], key: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load(WorkerSettings, environ)
    assert caught.value.field == key
    assert words in caught.value.message


def test_a_missing_field_is_named_by_the_key_that_would_set_it() -> None:
    with pytest.raises(InvalidArgument) as caught:
        load(NeedySettings, {})
    assert (caught.value.field, caught.value.message) == ("ANNEAL_HOME", "Field required")


def test_keys_of_other_services_and_addresses_are_left_alone() -> None:
    environ = {"ANNEAL_MEMORY_WINDOW": "5", "ANNEAL_WORKER_ADDR": "x:1", "ANNEAL_FAULTS": ""}
    assert load(WorkerSettings, environ) == WorkerSettings()


def test_the_process_environment_is_not_read_behind_our_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANNEAL_LANES", "7")
    assert load(WorkerSettings, {}).lanes == WorkerSettings().lanes == 2


def test_settings_do_not_change_and_do_not_show_the_token() -> None:
    settings = load(WorkerSettings, {"ANNEAL_AUTH_TOKEN": "very-secret-indeed"})
    with pytest.raises(ValidationError):
        setattr(settings, "lanes", 3)  # noqa: B010  # mypy would refuse the plain form
    assert "very-secret" not in repr(settings)


def test_a_wrong_secret_is_not_shown_in_the_error() -> None:
    class Strict(ServiceSettings):
        pin: int

    with pytest.raises(InvalidArgument) as caught:
        load(Strict, {"ANNEAL_PIN": "hunter2"})
    assert "hunter2" not in str(caught.value)
