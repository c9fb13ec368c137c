"""The error table: stable rows, and errors that come back whole from storage."""

import json
import pickle

import pytest
from anneal_runtime import errors
from anneal_runtime.errors import AnnealError, from_payload, from_status, to_payload
from grpc import StatusCode

TABLE = {
    "invalid_argument": ("INVALID_ARGUMENT", 400, False),
    "not_found": ("NOT_FOUND", 404, False),
    "already_exists": ("ALREADY_EXISTS", 409, False),
    "failed_precondition": ("FAILED_PRECONDITION", 409, False),
    "conflict": ("ABORTED", 409, False),
    "leased": ("FAILED_PRECONDITION", 409, False),
    "stale_token": ("FAILED_PRECONDITION", 409, False),
    "permission_denied": ("PERMISSION_DENIED", 403, False),
    "unauthenticated": ("UNAUTHENTICATED", 401, False),
    "budget_exhausted": ("RESOURCE_EXHAUSTED", 429, False),
    "rate_limited": ("RESOURCE_EXHAUSTED", 429, True),
    "unavailable": ("UNAVAILABLE", 503, True),
    "deadline_exceeded": ("DEADLINE_EXCEEDED", 504, True),
    "target_unreachable": ("UNAVAILABLE", 503, True),
    "host_key_changed": ("FAILED_PRECONDITION", 409, False),
    "internal": ("INTERNAL", 500, False),
    "crashed": ("INTERNAL", 500, False),
    "doer_died": ("INTERNAL", 500, False),
    "unreadable": ("INVALID_ARGUMENT", 400, False),
    "data_loss": ("DATA_LOSS", 500, False),
}
OWN = {cls.reason: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, AnnealError)}


def test_the_table_is_what_callers_were_promised() -> None:
    rows = {r: (c.grpc_status.name, c.http_status, c.retryable) for r, c in OWN.items() if c is not AnnealError}
    assert rows == TABLE


@pytest.mark.parametrize("reason", sorted(TABLE))
def test_an_error_comes_back_whole_from_json(reason: str) -> None:
    error = OWN[reason]("it went wrong", field="target", details={"host": "web1"})
    again = from_payload(json.loads(json.dumps(to_payload(error))))
    assert (type(again), again.message, again.field, again.details) == (
        type(error),
        "it went wrong",
        "target",
        {"host": "web1"},
    )


def test_an_error_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(errors.Leased("held", details={"run": "r1"})))
    assert type(again) is errors.Leased
    assert again.details == {"run": "r1"}


def test_a_reason_of_another_program_becomes_the_class_of_its_status_and_is_kept() -> None:
    error = from_payload({"reason": "flux_capacitor", "status": "UNAVAILABLE", "message": "no power"})
    assert type(error) is errors.Unavailable
    assert error.details["reason"] == "flux_capacitor"


def test_a_payload_of_nonsense_is_an_internal_error() -> None:
    assert type(from_payload({"status": "NO_SUCH"})) is errors.Internal


def test_every_bare_status_has_a_meaning_and_retrying_it_is_known() -> None:
    meanings = {status: type(from_status(status, "")) for status in StatusCode if status is not StatusCode.OK}
    assert meanings[StatusCode.UNAVAILABLE] is errors.Unavailable
    assert meanings[StatusCode.DEADLINE_EXCEEDED] is errors.DeadlineExceeded
    assert meanings[StatusCode.UNIMPLEMENTED] is errors.Internal
    assert all(isinstance(cls("x").retryable, bool) for cls in meanings.values())


def test_foreign_text_is_cut_with_a_mark() -> None:
    error = errors.Internal("x" * 5000, details={"output": "y" * 5000})
    assert len(error.message) == len(error.details["output"]) == errors.MAX_TEXT
    assert error.message.endswith("...[cut]")


def test_a_class_may_not_take_the_reason_of_another() -> None:
    with pytest.raises(TypeError, match="already taken by NotFound"):
        type("Lost", (AnnealError,), {"reason": "not_found"})


def test_a_subclass_without_a_reason_of_its_own_is_refused() -> None:
    with pytest.raises(TypeError, match="must state a reason"):
        type("Vague", (errors.NotFound,), {})


def test_the_text_of_an_error_names_the_field() -> None:
    assert str(errors.InvalidArgument("must not be empty", field="run_id")) == "run_id: must not be empty"
