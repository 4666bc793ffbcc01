"""SP-10: only the worker that is meant is obeyed and given secrets, whoever else offers its short id."""

from __future__ import annotations

import fnmatch
import random
from types import SimpleNamespace
from typing import Any

import pytest

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.status import Provenance
from reconciler.adapters import hypha
from reconciler.adapters.hypha import Address, HyphaSession
from reconciler.adapters.runtime import WorkerRuntime
from reconciler.errors import Unreachable
from reconciler.planning.steps import PlanOptions, Reason
from reconciler.ports import Hypha, SecretValues, World
from reconciler.reconcile import look
from tests.builders import a_worker
from tests.fakes import FakeArtifacts, FakeSecrets, FakeSource, a_repository

WORKER, IMPOSTOR = "ws/worker:bioengine-worker", "ws/impostor:bioengine-worker"
SPEC = AppSpec(app_id="a", artifact_id="ws/a", version="1", authorized_users=[])
SECRETS = SecretValues({"Main": {"PASS": "a value"}}, {"Main/PASS": "f" * 16})
PROVENANCE = Provenance(owner="lab", source="https://git.example/lab", commit="c" * 40)


class Worker(dict[str, Any]):
    """A service, as hypha-rpc gives it, that notes what it was told. `gone`: its client has left."""

    def __init__(self, full_id: str) -> None:
        super().__init__(id=full_id)
        self.told: list[str] = []
        self.calls_itself = full_id
        self.gone = False

    async def observe(self) -> dict[str, Any]:
        self._note("observe")
        return a_worker(service_id=self.calls_itself).model_dump(mode="json")

    async def apply_app(self, **said: Any) -> dict[str, Any]:
        self._note(f"apply_app {said['secrets']}")
        return {}

    def _note(self, what: str) -> None:
        if self.gone:
            raise RuntimeError(f"Target peer {self['id']} is not connected")
        self.told.append(what)


class Server:
    """A Hypha server with these services. It finds them as the real one does, patterns and all."""

    def __init__(self, workspace: str = "ws") -> None:
        self.config = SimpleNamespace(workspace=workspace)
        self.rpc = SimpleNamespace(on=lambda *_: None)
        self.offered: dict[str, Worker] = {}

    def offer(self, full_id: str) -> Worker:
        worker = self.offered[full_id] = Worker(full_id)
        return worker

    def leave(self, full_id: str) -> None:
        self.offered.pop(full_id).gone = True

    async def get_service_info(self, service_id: str, config: dict[str, str]) -> dict[str, str]:
        return {"id": self._one(service_id, config.get("mode"))["id"] + "@*"}

    async def get_service(self, service_id: str) -> Worker:
        return self._one(service_id, None)

    def _one(self, service_id: str, mode: str | None) -> Worker:
        workspace, _, rest = service_id.rpartition("/")
        pattern = f"{workspace or self.config.workspace}/{rest if ':' in rest else f'*:{rest}'}"
        found = [one for name, one in self.offered.items() if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            raise KeyError(f"Service not found: {pattern}")
        if len(found) > 1 and (mode == "exact" or not pattern.startswith("public/")):
            raise AssertionError(f"AssertionError: Multiple services found for {pattern}")
        return random.choice(found)

    async def echo(self, text: str) -> str:
        return text

    async def disconnect(self) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """The one that every session of the test is on."""
    there = Server()

    async def connect(_: dict[str, Any]) -> Server:
        return there

    monkeypatch.setattr(hypha, "_hypha_rpc", lambda: SimpleNamespace(connect_to_server=connect))
    return there


def a_runtime(service_id: str = "bioengine-worker") -> WorkerRuntime:
    return WorkerRuntime(HyphaSession(lambda: Address("http://hypha.example")), service_id)


async def apply(runtime: WorkerRuntime) -> None:
    await runtime.apply(SPEC, SECRETS, PROVENANCE, expected=None)


async def test_sp_10_one_who_takes_the_place_of_the_worker_is_told_nothing(server: Server) -> None:
    worker, runtime = server.offer(WORKER), a_runtime()
    await runtime.observe()
    server.leave(WORKER)
    impostor = server.offer(IMPOSTOR)
    with pytest.raises(Unreachable):  # what is held of the worker is of no use any more
        await runtime.observe()
    for ask in (runtime.observe(), apply(runtime)):
        with pytest.raises(
            Unreachable, match=f"was worker {WORKER}, which is gone; {IMPOSTOR} offers it now"
        ) as raised:
            await ask
        assert f"hypha.worker: {IMPOSTOR}" in raised.value.hint
    assert impostor.told == [] and worker.told == ["observe"]


async def test_sp_10_a_worker_that_was_started_again_is_the_same_one(server: Server) -> None:
    server.offer(WORKER)
    runtime = a_runtime()
    await runtime.observe()
    server.leave(WORKER)
    with pytest.raises(Unreachable):
        await runtime.observe()
    with pytest.raises(Unreachable, match="no service"):
        await runtime.observe()
    again = server.offer(WORKER)
    await apply(runtime)
    assert again.told == ["apply_app {'Main': {'PASS': 'a value'}}"]


async def test_sp_10_a_plan_names_the_one_who_was_met_whatever_it_calls_itself(server: Server) -> None:
    impostor = server.offer(IMPOSTOR)
    impostor.calls_itself = WORKER
    assert (await a_runtime().observe()).service_id == IMPOSTOR


@pytest.mark.parametrize("workspace", ["ws", "public"])
async def test_sp_10_one_beside_the_worker_is_not_asked_by_who_met_the_worker_and_stops_who_did_not(
    server: Server, workspace: str
) -> None:
    """In the workspace `public` Hypha would take any of the two."""
    server.config.workspace = workspace
    worker, runtime = server.offer(f"{workspace}/worker:bioengine-worker"), a_runtime()
    await runtime.observe()
    impostor = server.offer(f"{workspace}/impostor:bioengine-worker")
    await apply(runtime)
    newcomer = a_runtime()
    for ask in (newcomer.observe(), apply(newcomer)):
        with pytest.raises(Unreachable, match="several workers answer to 'bioengine-worker'"):
            await ask
    await a_runtime(f"{workspace}/worker:bioengine-worker").observe()
    assert impostor.told == [] and len(worker.told) == 3


@pytest.mark.parametrize(
    ("meant", "found"),
    [
        (WORKER, IMPOSTOR),
        (WORKER, "public/worker:bioengine-worker"),
        ("bioengine-worker", "public/worker:bioengine-worker"),
        ("worker:bioengine-worker", IMPOSTOR),
        ("ws/bioengine-worker", "public/worker:bioengine-worker"),
        ("ws/*:bioengine-worker", IMPOSTOR),
        ("bioengine-*", IMPOSTOR),
    ],
)
async def test_sp_10_what_is_found_has_the_client_and_the_workspace_that_were_meant(
    server: Server, monkeypatch: pytest.MonkeyPatch, meant: str, found: str
) -> None:
    impostor, runtime = server.offer(found), a_runtime(meant)
    monkeypatch.setattr(server, "_one", lambda *_: impostor)
    session = HyphaSession(lambda: Address("http://hypha.example"))
    for ask in (runtime.observe(), apply(runtime), session.ask(meant, "observe", timeout_s=1.0)):
        with pytest.raises(Unreachable) as raised:
            await ask
        assert repr(meant) in str(raised.value) and found in str(raised.value) and "full id" in raised.value.hint
    assert impostor.told == []


@pytest.mark.parametrize("said", ["bioengine-worker", "ws/bioengine-worker", "worker:bioengine-worker", WORKER])
async def test_a_worker_is_found_by_as_much_of_its_id_as_is_said(server: Server, said: str) -> None:
    worker = server.offer(WORKER)
    await apply(a_runtime(said))
    assert len(worker.told) == 1


async def test_sp_10_a_pass_that_meets_another_worker_does_nothing(server: Server) -> None:
    server.offer(WORKER)
    runtime = a_runtime()
    await runtime.observe()
    server.leave(WORKER)
    server.offer(IMPOSTOR)
    there = Hypha(FakeArtifacts(), runtime)
    world = World(FakeSource(a_repository("one")), lambda _: there, FakeSecrets())
    await look(world, PlanOptions())
    seen = await look(world, PlanOptions())
    assert seen.plan.steps == () and {one.reason for one in seen.plan.held} == {Reason.LIVE_STATE_UNKNOWN}
    (unseen,) = seen.live.unseen
    assert WORKER in unseen.why and IMPOSTOR in unseen.why
