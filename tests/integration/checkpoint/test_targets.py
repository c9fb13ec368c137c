import os
from pathlib import Path

import pytest
from anneal.checkpoint.v1 import checkpoint_pb2 as pb
from anneal_runtime.errors import AlreadyExists, InvalidArgument, Leased, NotFound, TargetUnreachable

from tests.integration.checkpoint.conftest import HOST_KEY, FolderDriver, Stub, acquire, lab_target, release


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "id_ed25519"
    path.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    path.chmod(0o600)
    return path


def host(key_file: Path, **other: object) -> pb.Target:
    values = {"name": "web1", "driver": "ssh", "host": "web1.test", "user": "ops", "key_path": str(key_file)}
    return pb.Target(**{**values, "host_key": HOST_KEY + " web1", **other})  # type: ignore[arg-type]


async def add(stub: Stub, target: pb.Target, key: str = "k") -> pb.Target:
    return (await stub.AddTarget(pb.AddTargetRequest(idempotency_key=key, target=target))).target


async def test_a_lab_machine_is_reached_as_its_driver_says(stub: Stub) -> None:
    target = (await stub.GetTarget(pb.GetTargetRequest(name="lab"))).target
    assert (target.host, target.port, target.user) == ("127.0.0.1", 22, "ops")
    assert target.host_key == HOST_KEY
    assert target.can_snapshot


async def test_a_plain_host_is_stored_in_normal_form_and_cannot_snapshot(stub: Stub, key_file: Path) -> None:
    await add(stub, host(key_file, mission_services=["sshd", "httpd.service", "sshd.service"]))
    target = (await stub.GetTarget(pb.GetTargetRequest(name="web1"))).target
    assert target.port == 22
    assert target.host_key == HOST_KEY
    assert list(target.mission_services) == ["httpd.service", "sshd.service"]
    assert not target.can_snapshot


async def test_adding_again_is_no_error_and_other_settings_are(stub: Stub) -> None:
    await add(stub, lab_target(), key="again")
    other = lab_target()
    other.mission_services.append("sshd")
    with pytest.raises(AlreadyExists, match="mission_services") as refused:
        await add(stub, other, key="other")
    assert refused.value.field == "name"


async def test_a_key_that_was_used_for_another_target_is_refused(stub: Stub) -> None:
    with pytest.raises(AlreadyExists) as refused:
        await add(stub, lab_target("lab2", "m2"), key="setup")
    assert refused.value.field == "idempotency_key"
    with pytest.raises(NotFound):
        await stub.GetTarget(pb.GetTargetRequest(name="lab2"))


async def test_a_wrong_field_is_named_and_nothing_is_stored(stub: Stub, key_file: Path) -> None:
    for field, value in (("name", "Web 1"), ("driver", "telnet"), ("port", 70000), ("host_key", "ssh-ed25519 AAAA")):
        with pytest.raises(InvalidArgument) as refused:
            await add(stub, host(key_file, **{field: value}))
        assert refused.value.field == field
    listed = await stub.ListTargets(pb.ListTargetsRequest())
    assert [t.name for t in listed.targets] == ["lab"]


async def test_a_machine_that_is_off_is_listed_but_not_got(stub: Stub, driver: FolderDriver) -> None:
    os.rename(driver.machine("m1"), driver.machine("gone"))
    listed = (await stub.ListTargets(pb.ListTargetsRequest())).targets
    assert [(t.name, t.host) for t in listed] == [("lab", "")]
    with pytest.raises(TargetUnreachable):
        await stub.GetTarget(pb.GetTargetRequest(name="lab"))


async def test_a_target_that_cannot_be_reached_leaves_no_lease_behind(stub: Stub, driver: FolderDriver) -> None:
    os.rename(driver.machine("m1"), driver.machine("gone"))
    with pytest.raises(TargetUnreachable):
        await acquire(stub, "run-1")
    os.rename(driver.machine("gone"), driver.machine("m1"))
    assert await acquire(stub, "run-2") == 1


async def test_a_leased_target_is_not_removed_and_a_free_one_is(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    with pytest.raises(Leased, match="run-1"):
        await stub.RemoveTarget(pb.RemoveTargetRequest(idempotency_key="rm1", name="lab"))
    await release(stub, "run-1", token)
    await stub.RemoveTarget(pb.RemoveTargetRequest(idempotency_key="rm2", name="lab"))
    with pytest.raises(NotFound):
        await stub.GetTarget(pb.GetTargetRequest(name="lab"))


async def test_tokens_go_on_rising_after_a_target_was_removed_and_added_again(stub: Stub) -> None:
    first = await acquire(stub, "run-1")
    await release(stub, "run-1", first)
    await stub.RemoveTarget(pb.RemoveTargetRequest(idempotency_key="rm", name="lab"))
    await add(stub, lab_target(), key="anew")
    assert await acquire(stub, "run-2") > first
