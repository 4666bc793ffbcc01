"""The memory on Hypha: its contract, on an artifact manager that answers at once; e2e has it on the real one."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters.hypha import RemoteError
from reconciler.adapters.memory import PAGE, HyphaMemory
from reconciler.errors import Spoiled, Unreachable, Vanished
from reconciler.lease import TTL_S, Lease, change
from reconciler.observe import observe
from reconciler.planning.memory import NOTHING, Remembered
from reconciler.ports import Hypha
from reconciler.secrets import LocalSecrets
from tests.contracts.hypha_memory import HyphaMemoryContract
from tests.contracts.ports import REMEMBERED, an_entry
from tests.fakes import FakeArtifacts, FakeRuntime


class Manager:
    """Hypha's artifact manager, as far as a memory asks it: a session with it."""

    def __init__(self) -> None:
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self._made = itertools.count(1)

    async def workspace(self) -> str:
        return "ws"

    async def ask(self, service_id: str, method: str, *, timeout_s: float, **said: Any) -> Any:  # noqa: ARG002
        self.asked.append(method)
        if method == "create":
            return self._create(said)
        artifact_id = str(said.get("artifact_id") or said.get("parent_id"))
        if artifact_id not in self.artifacts:
            raise RemoteError("KeyError", f"Artifact with ID '{artifact_id}' does not exist.")
        match method:
            case "read":
                return self.artifacts[artifact_id]
            case "edit":
                self.artifacts[artifact_id]["manifest"] = said["manifest"]
            case "delete":
                del self.artifacts[artifact_id]
            case _:
                return self._listed(artifact_id, said)
        return None

    def _create(self, said: dict[str, Any]) -> None:
        artifact_id = str(said.get("artifact_id") or f"ws/{said['alias']}")
        if artifact_id in self.artifacts:
            raise RemoteError("FileExistsError", f"{artifact_id} already exists")
        parent = said.get("parent_id")
        if parent and parent not in self.artifacts:
            raise RemoteError("KeyError", f"Artifact with ID '{parent}' does not exist.")
        number = next(self._made)
        facts = {"id": artifact_id, "created_at": float(number), "parent": parent, "number": number}
        self.artifacts[artifact_id] = {**facts, "manifest": said["manifest"]}

    def _listed(self, shelf: str, said: dict[str, Any]) -> Any:
        found = [one for one in self.artifacts.values() if one["parent"] == shelf]
        found.sort(key=lambda one: one["number"], reverse=said.get("order_by") == "id>")
        if not said.get("pagination"):
            return found
        offset = said["offset"]
        return {"items": found[offset : offset + said["limit"]], "total": len(found)}


class TestOnAManager(HyphaMemoryContract):
    @pytest.fixture
    def session(self) -> Any:
        return Manager()

    @pytest.fixture
    def unreachable(self) -> HyphaMemory:
        return HyphaMemory(Gone(), "lab", lambda: self.key)  # type: ignore[arg-type]

    async def test_it_is_not_among_the_apps(self) -> None:  # type: ignore[override]
        """Its shelf is one of its own."""
        manager = Manager()
        await a_memory(manager).append([an_entry()])
        assert {one["parent"] for one in manager.artifacts.values()} == {None, "ws/reconcile-history-lab"}


class Gone(Manager):
    async def ask(self, service_id: str, method: str, *, timeout_s: float, **said: Any) -> Any:  # noqa: ARG002
        raise Unreachable("no answer")


def a_memory(session: Manager, key: bytes = b"k" * 32) -> HyphaMemory:
    return HyphaMemory(session, "lab", lambda: key)  # type: ignore[arg-type]


@pytest.mark.parametrize("manifest", [None, {}, [], "text", {"body": None}])
async def test_rc_12_a_foreign_artifact_of_its_name_is_not_known_and_stops_no_pass(manifest: Any) -> None:
    manager = Manager()
    manager.artifacts["ws/reconcile-lab"] = {"id": "ws/reconcile-lab", "parent": None, "manifest": manifest}
    with pytest.raises(Spoiled, match="not written by a reconciler"):
        await a_memory(manager).read()
    on_shelf = {"id": "ws/theirs", "parent": "ws/reconcile-history-lab", "number": 0, "manifest": manifest}
    manager.artifacts |= {"ws/theirs": on_shelf, "ws/reconcile-history-lab": {"parent": None}}
    assert [entry.result for entry in await a_memory(manager).history(5)] == ["spoiled"]
    seen = await observe(Hypha(FakeArtifacts(), FakeRuntime(), memory=a_memory(manager)))
    assert [one.what for one in seen.unseen] == ["memory"] and seen.worker


async def test_ss_04_where_the_key_is_none_the_look_says_so(tmp_path: Path) -> None:
    """As a pipeline writes it whose secret is not set."""
    (tmp_path / "fingerprint.key").touch()
    ours = LocalSecrets(tmp_path / "fingerprint.key", environ={})
    memory = HyphaMemory(Manager(), "lab", ours.key, new_key=ours.made_key)  # type: ignore[arg-type]
    await a_memory(memory._session).write(REMEMBERED)  # type: ignore[arg-type]
    (unseen,) = (await observe(Hypha(FakeArtifacts(), FakeRuntime(), memory=memory))).unseen
    assert "fingerprint.key is empty" in unseen.why and "32 characters" in unseen.why


@pytest.mark.parametrize("answer", [None, [], {"items": 1}, "text"])
async def test_an_answer_that_nobody_understands_is_none(answer: Any) -> None:
    class Odd(Manager):
        async def ask(self, service_id: str, method: str, *, timeout_s: float, **said: Any) -> Any:  # noqa: ARG002
            return answer

    memory = a_memory(Odd())
    for asking in (memory.read(), memory.history(5)):
        with pytest.raises(Unreachable, match="cannot be understood"):
            await asking


@pytest.mark.parametrize("slow", ["read", "edit"])
async def test_to_look_and_to_write_at_once_is_no_older_one_put_back(slow: str) -> None:
    """A pass looks while the lease is renewed: the one's answer is on its way while the other is done."""

    class Slow(Manager):
        async def ask(self, service_id: str, method: str, *, timeout_s: float, **said: Any) -> Any:
            told = await super().ask(service_id, method, timeout_s=timeout_s, **said)
            answer = dict(told) if told else told
            if method == slow and self.asked.count(slow) == 1:
                await (memory.read() if method == "edit" else memory.write(REMEMBERED))
            return answer

    manager = Slow()
    memory = a_memory(manager)
    await memory.write(REMEMBERED)
    manager.asked.clear()
    for _ in range(2):
        await memory.write(REMEMBERED)
        assert await memory.read() == REMEMBERED
        assert await memory.read() == REMEMBERED


async def test_one_entry_of_an_app_that_has_none_is_looked_for_in_pages() -> None:
    manager = Manager()
    memory = a_memory(manager)
    for number in range(PAGE // 20):
        await memory.append([an_entry(number)])
    manager.asked.clear()
    assert list(await memory.history(1, "never-there")) == [] and manager.asked == ["list"]


async def test_one_that_is_gone_is_not_taken_for_nothing() -> None:
    """Somebody deleted it, or Hypha came back with an empty database: a suspension must not end by that."""
    manager = Manager()
    memory = a_memory(manager)
    await memory.write(REMEMBERED)
    manager.artifacts.clear()
    with pytest.raises(Vanished, match="is gone") as gone:
        await memory.read()
    assert gone.value.last == REMEMBERED and gone.value.hint
    assert await a_memory(manager).read() == NOTHING  # a process that was started since has seen no other


async def test_one_that_is_gone_is_written_again_by_who_has_the_lease() -> None:
    manager, now = Manager(), time.time()
    memory = a_memory(manager)
    lease = Lease("anna", settle_s=0.0, clock=lambda: now)
    held = await lease.hold(memory)
    await change(memory, lease, lambda remembered: replace(remembered, orders=REMEMBERED.orders))
    manager.artifacts.clear()
    with pytest.raises(Vanished):
        await lease.still(memory)
    now += TTL_S / 2 + 1
    remembered = await lease.still(memory)
    assert remembered == Remembered(replace(held, renewed=now), REMEMBERED.orders)
