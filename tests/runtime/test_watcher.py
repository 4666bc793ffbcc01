"""The watcher without Ray: what it does about a version that is not good."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from ray.serve._private.config import DeploymentConfig
from ray.serve.generated import serve_pb2

from bioengine_runtime.apps import marks, store
from bioengine_runtime.apps.builder import Blueprint
from bioengine_runtime.apps.clocks import Clocks
from bioengine_runtime.apps.prepare import Places
from bioengine_runtime.apps.record import RECORD_KEY, AppRecord, Running
from bioengine_runtime.apps.rollout import next_record
from bioengine_runtime.apps.watcher import Watcher
from tests.runtime.apps_world import a_provenance, a_spec
from tests.runtime.test_apps_parts import FACTS, WORKER
from tests.runtime.test_gate import an_app


class Kept(dict[bytes, bytes]):
    """Ray's key-value store."""

    def _internal_kv_put(self, key: bytes, value: bytes, *, overwrite: bool, namespace: bytes) -> None:  # noqa: ARG002
        self[key] = value

    def _internal_kv_get(self, key: bytes, *, namespace: bytes) -> bytes | None:  # noqa: ARG002
        return self.get(key)

    def _internal_kv_del(self, key: bytes, *, namespace: bytes) -> None:  # noqa: ARG002
        self.pop(key, None)

    def _internal_kv_list(self, prefix: bytes, *, namespace: bytes) -> list[bytes]:  # noqa: ARG002
        return [key for key in self if key.startswith(prefix)]


class World:
    """One app, and what is sent to Serve."""

    def __init__(self) -> None:
        self.app: Running | None = None
        self.sent: list[tuple[str, AppRecord]] = []
        self.now = 1002.0
        self.looks = 0
        locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._watcher = Watcher(
            worker=WORKER,
            deployer=self,  # type: ignore[arg-type]
            look=self._look,
            lock=locks.__getitem__,
            on_change=None,
            places=Places(code="code", layers="layers"),
            wall_clock=lambda: self.now,
        )

    async def deploy(self, app_id: str, blueprint: str, deployments: Sequence[bytes]) -> None:  # noqa: ARG002
        self.sent.append((blueprint, recorded(deployments)))

    async def watch_for(self, looks: int) -> None:
        """Until what was seen by so many further looks has been dealt with."""
        enough = self.looks + looks + 1
        await self.until(lambda: self.looks >= enough)

    async def until(self, so: Callable[[], Any]) -> None:
        """Watch until it is so."""
        watching = asyncio.create_task(self._watcher.run())
        try:
            async with asyncio.timeout(30):
                while not so():
                    self._watcher.wake()
                    await asyncio.sleep(0.005)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _look(self) -> dict[str, Running]:
        self.looks += 1
        return {self.app.app_id: self.app} if self.app else {}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(store, "internal_kv", Kept())
    return World()


def a_record(version: str, users: list[str], *, running: Running | None = None, **rollout: Any) -> AppRecord:
    good = running.record.release() if running and running.record else None
    spec = a_spec(version=version, authorized_users=users, rollout=rollout)
    return next_record(spec, {}, a_provenance(), FACTS, running, good, 1000.0 + int(version))


def keep(record: AppRecord) -> None:
    """As it was sent to Serve, in two deployments."""
    entry = DeploymentConfig(user_config={RECORD_KEY: record.model_dump(mode="json"), "theirs": 1})
    messages = tuple(
        serve_pb2.DeploymentArgs(deployment_config=config.to_proto_bytes()).SerializeToString()  # pyright: ignore[reportAttributeAccessIssue]
        for config in (entry, DeploymentConfig())
    )
    store.put(store.BLUEPRINT, record.blueprint, Blueprint(messages, {"Main": "sealed"}).to_bytes())


def recorded(deployments: Sequence[bytes]) -> AppRecord:
    """What the entry alone says of the app."""
    entry, other = (
        DeploymentConfig.from_proto_bytes(serve_pb2.DeploymentArgs.FromString(one).deployment_config).user_config  # pyright: ignore[reportAttributeAccessIssue]
        for one in deployments
    )
    assert isinstance(entry, dict) and entry["theirs"] == 1 and RECORD_KEY not in (other or {})
    return AppRecord.model_validate(entry[RECORD_KEY])


async def test_a_version_that_is_brought_back_lets_in_nobody_whom_the_newer_one_shut_out(world: World) -> None:
    good = a_record("1", ["*"])
    keep(good)
    marks.keep_good("plain", marks.Good(good.release()))
    failing = a_record("2", ["alice"], running=an_app(good))
    world.app = an_app(failing, status="DEPLOY_FAILED", health="DEPLOY_FAILED", message="RuntimeError: no")
    await world.until(lambda: world.sent)

    blueprint, back = world.sent[0]
    assert (blueprint, back.spec.version, back.spec.authorized_users) == (good.blueprint, "1", ["alice"])
    assert back.digest == back.spec.digest() != good.digest and back.release() == good.release()
    kept = Blueprint.from_bytes(store.get(store.BLUEPRINT, good.blueprint) or b"")
    assert (recorded(kept.deployments), kept.sealed) == (back, {"Main": "sealed"})  # and so when it is sent once more


async def test_a_version_that_is_brought_back_is_what_it_was_when_the_newer_one_let_in_more(world: World) -> None:
    good = a_record("1", ["alice"])
    keep(good)
    marks.keep_good("plain", marks.Good(good.release()))
    world.app = an_app(a_record("2", ["*"], running=an_app(good)), status="DEPLOY_FAILED", message="RuntimeError: no")
    await world.until(lambda: world.sent)
    assert world.sent[0] == (good.blueprint, good)


@pytest.mark.usefixtures("world")
def test_sp_11_a_replica_notes_its_fault_in_one_line() -> None:
    app = an_app(a_record("1", ["*"]))
    store.put(
        store.FAULT, store.replica_name("plain", "Main", "r1"), b"check_health: no\nevent=deployed\x1b]52;c;A\x07"
    )
    assert marks.read_fault("plain", app.deployments[0].replicas[0]) == "check_health: no event=deployed ]52;c;A"


async def test_rr_06_a_clock_that_is_set_forward_neither_rejects_nor_settles_a_version(world: World) -> None:
    good = a_record("1", ["*"])
    keep(good)
    marks.keep_good("plain", marks.Good(good.release()))
    new = a_record("2", ["*"], running=an_app(good), health_timeout_s=600, stable_s=300)
    world.app = an_app(new, status="DEPLOYING", health="UPDATING")
    await world.watch_for(1)
    world.now += 3600
    await world.watch_for(2)
    assert (world.sent, marks.read_rejection("plain")) == ([], None)

    world.app = an_app(new)
    await world.until(lambda: marks.read_gate("plain"))
    world.now += 3600
    await world.watch_for(2)
    gate = marks.read_gate("plain")
    assert gate and gate.up_at - (new.sent_at or 0) < 600
    assert marks.read_good("plain") == marks.Good(good.release())


def test_rr_06_time_goes_on_as_it_passes_and_begins_anew_with_each_try() -> None:
    wall, steady = [1000.0], [5.0]
    clocks = Clocks(lambda: wall[0], lambda: steady[0])
    first = a_record("1", ["*"])
    assert clocks.now(first) == 1000.0
    wall[0], steady[0] = 9000.0, 15.0
    assert clocks.now(first) == 1010.0
    in_place = first.model_copy(update={"spec": first.spec.model_copy(update={"max_ongoing_requests": 3})})
    assert clocks.now(in_place) == 1010.0
    assert clocks.now(first.model_copy(update={"sent_at": 9000.0})) == 9000.0
    wall[0] = 100.0
    clocks.forget_all_but([])
    assert clocks.now(first) == 100.0
