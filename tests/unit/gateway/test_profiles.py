"""anneal.yaml: what it means, and what is said of a bad one."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from anneal_contracts.roles import May, ModelRole
from anneal_gateway.profiles import EMBEDDED_PROFILE, Profiles, load_profiles, read_models_file
from anneal_gateway.settings import GatewaySettings
from anneal_runtime.errors import InvalidArgument, NotFound
from anneal_runtime.settings import load

SHIPPED = Path(__file__).parents[3] / "anneal.yaml"


def _load(environ: dict[str, str]) -> Profiles:
    others = {f"ANNEAL_{name}_ADDR": "127.0.0.1:1" for name in ("SUPERVISOR", "EVALUATOR", "CHECKPOINT")}
    return load_profiles(load(GatewaySettings, others | environ), environ)


def test_without_a_file_there_is_the_embedded_model_and_it_may_not_write_scripts() -> None:
    default = _load({}).get("")
    assert default.may is May.NONE
    assert default.base_url == "http://127.0.0.1:7480/v1"
    assert default.model_of(ModelRole.REFLECTOR) == "smollm2"


def test_the_shipped_file_is_right_and_its_default_is_the_built_in_one() -> None:
    shipped = read_models_file(SHIPPED)
    assert shipped.profiles["default"] == EMBEDDED_PROFILE
    # Every field of the model is shown or explained in it.
    text = SHIPPED.read_text()
    for name in (
        "base_url",
        "api_key_env",
        "may",
        "context_tokens",
        "timeout_s",
        "limits",
        "circuit",
        "quirks",
        "thinking",
    ):
        assert f"{name}:" in text


def test_model_url_turns_authoring_on_in_the_default_profile() -> None:
    profiles = _load(
        {"ANNEAL_MODEL_URL": "http://gpu:8000/v1/", "ANNEAL_MODEL_NAME": "gemma", "ANNEAL_MODEL_API_KEY": "k"}
    )
    default = profiles.get("default")
    assert (default.base_url, default.may, default.model_of(ModelRole.WORKER)) == (
        "http://gpu:8000/v1",
        May.AUTHOR,
        "gemma",
    )
    assert profiles.key("").get_secret_value() == "k"
    assert "k" not in repr(profiles.key(""))


def test_may_can_be_held_back() -> None:
    environ = {"ANNEAL_MODEL_URL": "http://gpu:8000/v1", "ANNEAL_MODEL_NAME": "g", "ANNEAL_MODEL_MAY": "choose"}
    assert _load(environ).get("").may is May.CHOOSE


@pytest.mark.parametrize(
    ("environ", "field"),
    [
        ({"ANNEAL_MODEL_URL": "http://gpu:8000/v1"}, "ANNEAL_MODEL_NAME"),
        ({"ANNEAL_MODEL_URL": "gpu:8000"}, "ANNEAL_MODEL_URL"),
        ({"ANNEAL_MODEL_MAY": "everything"}, "ANNEAL_MODEL_MAY"),
        ({"ANNEAL_MODELS_FILE": "/nowhere/anneal.yaml"}, "/nowhere/anneal.yaml"),
        ({"ANNEAL_GATEWAY_HTTP_LISTEN": "somewhere"}, "ANNEAL_GATEWAY_HTTP_LISTEN"),
        ({"ANNEAL_GATEWAY_NONSENSE": "1"}, "ANNEAL_GATEWAY_NONSENSE"),
        ({"ANNEAL_SUPERVISOR_ADDR": ""}, "ANNEAL_SUPERVISOR_ADDR"),
    ],
)
def test_a_wrong_setting_is_named(environ: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        _load(environ)
    assert caught.value.field == field


GOOD: dict[str, Any] = {"base_url": "http://x/v1", "model": "m"}


@pytest.mark.parametrize(
    ("profile", "where"),
    [
        ({**GOOD, "may": "all"}, "profiles.p.may"),
        ({**GOOD, "mya": "none"}, "profiles.p.mya"),
        ({**GOOD, "roles": {"worker": {"temperature": 3}}}, "profiles.p.roles.worker.temperature"),
        ({**GOOD, "roles": {"boss": {}}}, "profiles.p.roles.boss"),
        ({**GOOD, "limits": {"calls_per_run": 0}}, "profiles.p.limits.calls_per_run"),
        ({**GOOD, "base_url": "ftp://x"}, "profiles.p.base_url"),
        ({"base_url": "http://x/v1"}, "profiles.p"),
    ],
)
def test_a_bad_file_is_refused_naming_the_field(tmp_path: Path, profile: dict[str, Any], where: str) -> None:
    file = tmp_path / "anneal.yaml"
    file.write_text(yaml.safe_dump({"profiles": {"p": profile}}))
    with pytest.raises(InvalidArgument) as caught:
        read_models_file(file)
    assert caught.value.field.startswith(f"{file}: {where}")


@pytest.mark.parametrize("text", ["profiles: [", "- 1\n- 2\n", "profiles: {Bad Name: {model: m}}", "version: 2"])
def test_what_is_no_models_file_at_all_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "anneal.yaml"
    file.write_text(text)
    with pytest.raises(InvalidArgument, match=r"anneal\.yaml"):
        read_models_file(file)


def test_a_missing_key_disables_its_profile_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "anneal.yaml"
    file.write_text(yaml.safe_dump({"profiles": {"p": {**GOOD, "api_key_env": "P_KEY"}}}))
    profiles = _load({"ANNEAL_MODELS_FILE": str(file)})
    assert "P_KEY" in profiles.problem("p")
    assert profiles.problem("") == ""
    assert _load({"ANNEAL_MODELS_FILE": str(file), "P_KEY": "k"}).problem("p") == ""


def test_an_unknown_profile_is_named_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match="default"):
        _load({}).require("big", field="spec.model_profile")
