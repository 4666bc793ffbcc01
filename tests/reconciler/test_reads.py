"""Partial and wrong reads: unknown is not empty (RR-01 … RR-08). More of RR-01, RR-02 and RR-04: test_observe.py;
RR-07: test_steady.py. The adapters are the real ones, on a session that answers what it is told to."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from bioengine_runtime.contract.status import WorkerState
from reconciler.adapters.artifacts import HyphaArtifacts, comment
from reconciler.adapters.hypha import RemoteError
from reconciler.adapters.runtime import WorkerRuntime
from reconciler.errors import Unreachable
from reconciler.planning.steps import Outcome, PlanOptions, Reason, Result
from reconciler.ports import Hypha, World
from reconciler.reconcile import Pass, look, reconcile
from reconciler.steady import SteadySource
from tests.builders import a_worker
from tests.fakes import FakeRuntime, FakeSecrets, FakeSource, FakeWorld, a_repository, an_app_folder

PRUNE = "policy: {prune: true, removal_budget: 100%}\n"
WRITES = ("create", "edit", "put_file", "commit", "discard", "prepare_app", "apply_app", "remove_app", "scale_workers")

Answer = Callable[[], object] | object


class Scripted:
    """A Hypha session with one answer per method; an exception is raised, a list is given one by one."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def workspace(self) -> str:
        return "ws"

    async def user_id(self) -> str:
        return "reconciler"

    async def find(self, service_id: str) -> str:
        return service_id

    async def ask(self, service_id: str, method: str, *, timeout_s: float, **arguments: object) -> object:  # noqa: ARG002 - as the real one
        self.asked.append(method)
        answer = self.answers[method]
        if isinstance(answer, Iterator):
            answer = next(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def writes(self) -> list[str]:
        return [method for method in self.asked if method in WRITES]


def world_of(session: Scripted, files: dict[str, str]) -> World:
    there = Hypha(HyphaArtifacts(session), WorkerRuntime(session, "ws/client:worker"))  # type: ignore[arg-type]
    return World(FakeSource(files), lambda _: there, FakeSecrets())


def a_page(*aliases: str, total: int | None = None) -> dict[str, object]:
    items = [{"id": f"ws/{alias}", "versions": [], "staging": None} for alias in aliases]
    return {"items": items, "total": len(items) if total is None else total}


async def running(*apps: str) -> WorkerState:
    """What a worker says that runs these apps as `a_repository` asks for them, all of them deployed by `lab`."""
    fake = FakeWorld(FakeSource(a_repository(*apps)))
    await reconcile(fake.world, PlanOptions())
    return await fake.runtime.observe()


def held(done: Pass) -> set[Reason]:
    return {one.reason for one in done.look.plan.held}


WRONG_LISTS: dict[str, list[object]] = {
    "silence": [Unreachable("no answer in 60 s")],
    "empty, though it counts two": [a_page(total=2)],
    "first page only": [a_page("one", total=3), a_page(total=3)],
    "raises on page 2": [a_page("one", total=3), RemoteError("RuntimeError", "database is locked")],
    "the collection vanishes on page 2": [a_page("one", total=3), RemoteError("KeyError", "it does not exist.")],
    "one comes twice and one never": [a_page("one", "two", total=4), a_page("two", "three", total=4)],
    "fewer on page 2 than on page 1": [a_page("one", "two", total=3), a_page(total=2)],
    "no list": [{}],
    "nothing": [None],
    "text": ["[]"],
}


@pytest.mark.parametrize("pages", WRONG_LISTS.values(), ids=WRONG_LISTS)
async def test_rr_01_a_list_of_which_something_is_missing_is_unseen_so_nothing_is_created_or_stopped(
    pages: list[object],
) -> None:
    worker = (await running("one", "two")).model_dump(mode="json")
    session = Scripted(list=iter(pages), observe=worker)
    files = a_repository("one", "three", cluster=PRUNE)  # `two` would be stopped, and `three` started
    done = await reconcile(world_of(session, files), PlanOptions())
    assert done.look.live.artifacts is None and not done.look.live.complete
    assert session.writes == [] and held(done) == {Reason.LIVE_STATE_UNKNOWN}
    assert done.report["complete"] is False


async def test_rr_01_all_of_a_long_list_is_seen() -> None:
    pages = [a_page("one", "two", total=3), a_page("three", total=3)]
    assert len(await HyphaArtifacts(Scripted(list=iter(pages))).list()) == 3  # type: ignore[arg-type]


NO_STATES = {
    "{}": {},
    "no apps key that is a list": {**a_worker().model_dump(mode="json"), "apps": {}},
    "apps without their envelope": {"one": {"status": "RUNNING"}},
    "not running, in another words": {**a_worker().model_dump(mode="json"), "apps": [{"status": "NOT_RUNNING"}]},
    "masked": {**a_worker().model_dump(mode="json"), "service_id": None},
    "nothing": None,
}


@pytest.mark.parametrize("answer", NO_STATES.values(), ids=NO_STATES)
async def test_rr_02_a_status_that_is_none_is_unseen_so_nothing_is_created_or_stopped(answer: object) -> None:
    session = Scripted(list=a_page("one"), observe=answer)
    done = await reconcile(world_of(session, a_repository("one", cluster=PRUNE)), PlanOptions())
    assert done.look.live.worker is None
    assert session.writes == [] and held(done) == {Reason.LIVE_STATE_UNKNOWN}


@pytest.mark.parametrize("status", ["NOT_STARTED", "DELETING"])
async def test_rr_02_an_app_that_is_tracked_but_not_there_is_not_started_twice(status: str) -> None:
    fake = FakeWorld(FakeSource(a_repository("one")))
    await reconcile(fake.world, PlanOptions())
    fake.runtime.apps["one"] = fake.runtime.apps["one"].model_copy(update={"status": status, "replicas": []})
    fake.forget_calls()
    await reconcile(fake.world, PlanOptions())
    assert fake.writes == []


async def test_rr_03_an_app_that_a_new_worker_knows_only_by_name_gets_all_of_its_parameters_again() -> None:
    env = "    env: {Main: {PASS: {env: CI_PASS}}}\n"
    fake = FakeWorld(FakeSource(a_repository("one", one=env)), secrets=FakeSecrets({"CI_PASS": "a value"}))
    await reconcile(fake.world, PlanOptions())
    lost = {"spec": None, "digest": None, "secret_fingerprints": {}}
    fake.runtime.apps["one"] = fake.runtime.apps["one"].model_copy(update=lost)
    fake.runtime.secrets_seen.clear()
    fake.forget_calls()
    await reconcile(fake.world, PlanOptions())
    assert [call for call in fake.writes if call.startswith("apply")] == ["apply one"]
    assert fake.runtime.secrets_seen["one"] == {"Main": {"PASS": "a value"}}
    assert fake.runtime.apps["one"].digest


async def test_rr_04_of_several_workers_none_is_taken_and_the_way_out_is_said() -> None:
    session = Scripted(list=a_page(), observe=RemoteError("ValueError", "Multiple services found for 'worker'"))
    done = await reconcile(world_of(session, a_repository("one")), PlanOptions())
    assert session.writes == [] and held(done) == {Reason.LIVE_STATE_UNKNOWN}
    (unseen,) = done.look.live.unseen
    assert "several workers" in unseen.why and "hypha.worker: <workspace>/<client>:bioengine-worker" in unseen.why


async def test_rr_05_a_list_older_than_our_own_upload_uploads_nothing_again() -> None:
    source = FakeSource(a_repository("one"))
    fake = FakeWorld(source)
    await reconcile(fake.world, PlanOptions())
    (artifact,) = fake.artifacts.artifacts.values()
    state = await fake.runtime.observe()
    older_list = a_page()
    record = {
        "id": artifact.artifact_id,
        "versions": [{"version": artifact.versions[0].name, "comment": comment(artifact.versions[0].tree or "", "c")}],
    }
    session = Scripted(
        list=older_list,
        observe=replace_env_of(state).model_dump(mode="json"),
        read=record,
        prepare_app={"done": True},
        apply_app={},
    )
    there = Hypha(HyphaArtifacts(session), WorkerRuntime(session, "worker"))  # type: ignore[arg-type]
    done = await reconcile(World(source, lambda _: there, FakeSecrets()), PlanOptions())
    assert done.outcomes[0].address.startswith("upload one@")
    assert not done.failed and session.writes == ["apply_app"]


def replace_env_of(state: WorkerState) -> WorkerState:
    """The same, but that its app was given another variable by hand, so that it has to be deployed again."""
    (app,) = state.apps
    assert app.spec
    spec = app.spec.model_copy(update={"env": {"Main": {"BY": "hand"}}})
    return state.model_copy(update={"apps": [app.model_copy(update={"spec": spec, "digest": spec.digest()})]})


async def test_rr_05_a_status_older_than_our_own_deploy_starts_nothing_a_second_time() -> None:
    class Lagging(FakeRuntime):
        """Shows what ran two looks ago."""

        async def observe(self) -> WorkerState:
            now = await super().observe()
            self.shown = [*getattr(self, "shown", []), now][-2:]
            return self.shown[0]

    fake = FakeWorld(FakeSource(a_repository("one")), runtime=Lagging())
    await reconcile(fake.world, PlanOptions())
    before = fake.runtime.apps["one"]
    stale = await reconcile(fake.world, PlanOptions())
    assert [outcome.address for outcome in stale.failed] == ["deploy one"]
    assert "changed since it was looked at" in stale.failed[0].message
    assert fake.runtime.apps["one"] == before
    assert not (await reconcile(fake.world, PlanOptions())).outcomes


@pytest.mark.parametrize("hours", [-1, 1, 24 * 365])
async def test_rr_06_a_clock_that_jumps_changes_nothing_that_is_done(
    monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    real, jumps = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours * next(jumps))
    source = SteadySource(FakeSource(a_repository("one", "two")), interval_s=60.0)
    fake = FakeWorld(FakeSource(a_repository("one", "two")))
    world = replace(fake.world, source=source)
    done = await reconcile(world, PlanOptions())
    assert all(_took_a_moment(outcome) for outcome in done.outcomes)
    assert 0 < source.due_in_s <= 60
    assert not (await reconcile(world, PlanOptions())).outcomes


def _took_a_moment(outcome: Outcome) -> bool:
    return outcome.result is Result.DONE and 0 <= outcome.seconds < 5


async def test_rr_07_drift_is_undone_by_the_last_commit_while_git_is_away() -> None:
    source = FakeSource(a_repository("one"))
    steady = SteadySource(source, interval_s=0.0)
    fake = FakeWorld(source)
    world = replace(fake.world, source=steady)
    await reconcile(world, PlanOptions())
    source.fail("fetch", Unreachable("git.example does not answer"))
    wanted = fake.runtime.apps["one"].digest
    fake.runtime.apps["one"] = replace_env_of(await fake.runtime.observe()).apps[0]
    done = await reconcile(world, PlanOptions())
    assert fake.runtime.apps["one"].digest == wanted
    told = {one["type"]: one["status"] for one in done.report["conditions"]}
    assert told["SourceReady"] == "False"


SLURM = "compute: {mode: slurm, workers: {min: 0, max: 4}}\n"


@pytest.mark.parametrize("told", [None, {}, {"min": 0}])
async def test_rr_08_a_worker_that_cannot_count_its_jobs_is_given_its_bounds_and_nothing_else(
    told: dict[str, int] | None,
) -> None:
    """The jobs themselves are the worker's: there is no other way to them, so no wrong count cancels one."""
    fake = FakeWorld(FakeSource(a_repository("one", cluster=SLURM)))
    fake.runtime.mode = "slurm"
    await reconcile(fake.world, PlanOptions())
    fake.runtime.workers = told
    fake.forget_calls()
    await reconcile(fake.world, PlanOptions())
    assert fake.writes == ["scale 0 4"]
    fake.forget_calls()
    await reconcile(fake.world, PlanOptions())
    assert fake.writes == []


async def test_rr_08_silence_of_the_worker_scales_nothing() -> None:
    fake = FakeWorld(FakeSource({**a_repository("one", cluster=SLURM), **an_app_folder("one")}))
    fake.runtime.mode = "slurm"
    fake.runtime.fail("observe")
    await reconcile(fake.world, PlanOptions())
    assert fake.writes == []


async def test_ro_17_a_worker_that_is_too_busy_to_answer_is_left_alone_until_it_does() -> None:
    worker = (await running("one", "two")).model_dump(mode="json")
    silence = Unreachable("worker.observe: no answer in 60 s")
    session = Scripted(list=a_page("one", "two"), observe=iter([silence, silence, worker]))
    world = world_of(
        session, a_repository("one", "three", cluster=PRUNE)
    )  # `two` would be stopped, and `three` started
    for _ in range(2):
        done = await reconcile(world, PlanOptions())
        assert done.look.live.worker is None and done.report["complete"] is False
        assert session.writes == [] and held(done) == {Reason.LIVE_STATE_UNKNOWN}
    seen = await look(world, PlanOptions())
    assert seen.live.worker is not None and {step.app_id for step in seen.plan.steps} >= {"two", "three"}
