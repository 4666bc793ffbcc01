"""Killed at any line, and started again (RC-01 … RC-12): the next process ends in the state of one that was not killed.

Here the ports are fakes and death is an exception that nothing catches. With kill -9 at every remote write of the real
adapters, on a real Hypha, store, worker and Ray: tests/e2e/test_whole_pass.py (RC-01 to RC-05 and RC-09). Kills of
Hypha, of the worker and of replicas while things move (RC-10): tests/e2e/test_soak.py. What is remembered (RC-11 and
RC-12 of the journal): test_memory.py.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bioengine_runtime.contract.status import AppState, Rejection
from reconciler.adapters.git import GitSource
from reconciler.adapters.git.process import Git
from reconciler.errors import Unreachable
from reconciler.planning.steps import PlanOptions, Reason, Result
from reconciler.reconcile import Pass, reconcile
from reconciler.settle import Verdict, reconcile_until_settled
from tests.fakes import FakeSource, FakeWorld, a_repository, an_app_folder
from tests.reconciler.git_http import GitServer, git_server
from tests.reconciler.git_world import Repository

POLICY = "policy: {prune: true, removal_budget: 100%}\n"
BEFORE = a_repository("changed", "removed", "same", cluster=POLICY)
AFTER = {**a_repository("changed", "added", "same", cluster=POLICY), **an_app_folder("changed", says="pong 2")}


class Killed(BaseException):
    """The process is gone: no step, pass or loop can catch it."""


class Dying:
    """A port in a process that dies on one side of one call of it."""

    def __init__(self, port: Any, call: str, side: str) -> None:
        self._port, self._call, self._side = port, call, side

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Awaitable[Any]] = getattr(self._port, name)
        if name != self._call:
            return method

        async def dying(*args: Any, **kwargs: Any) -> Any:
            if self._side == "after":
                await method(*args, **kwargs)
            raise Killed

        return dying


def everything(fake: FakeWorld) -> object:
    """What anybody could tell apart afterwards, but process ids and times."""
    apps = {app_id: (app.status, app.digest, app.provenance) for app_id, app in fake.runtime.apps.items()}
    return apps, fake.artifacts.artifacts, fake.artifacts.files


async def pushed() -> FakeWorld:
    """Three apps run; then a commit changes one, adds one and removes one."""
    fake = FakeWorld(FakeSource(BEFORE))
    await reconcile(fake.world, PlanOptions())
    fake.source.commit(AFTER)
    fake.forget_calls()
    return fake


async def passes(fake: FakeWorld) -> Pass:
    """Until there is nothing to do: what is removed waits for a pass that sees the rest up."""
    while (done := await reconcile(fake.world, PlanOptions())).outcomes:
        assert not done.failed
    return done


@asynccontextmanager
async def dead_at(fake: FakeWorld, port: str, call: str, side: str) -> AsyncGenerator[None, None]:
    """The passes of a process that dies there."""
    dying = FakeWorld(fake.source, fake.artifacts, fake.runtime, fake.reports, fake.secrets)
    setattr(dying, port, Dying(getattr(fake, port), call, side))
    with pytest.raises(BaseException) as ended:
        await passes(dying)
    assert _was_killed(ended.value)
    yield


def _was_killed(error: BaseException) -> bool:
    return isinstance(error, Killed) or (
        isinstance(error, BaseExceptionGroup) and any(_was_killed(one) for one in error.exceptions)
    )


CALLS = {
    "rc_01 and rc_02, within an upload": ("artifacts", "upload", "before"),
    "rc_04, an upload committed": ("artifacts", "upload", "after"),
    "before an environment": ("runtime", "prepare", "before"),
    "after an environment": ("runtime", "prepare", "after"),
    "before a deployment is sent": ("runtime", "apply", "before"),
    "rc_05, a deployment sent and not answered": ("runtime", "apply", "after"),
    "before a removal": ("runtime", "remove", "before"),
    "rc_09, a removal sent and not answered": ("runtime", "remove", "after"),
    "rc_07, all done and not told": ("reports", "publish", "before"),
    "told": ("reports", "publish", "after"),
}


@pytest.mark.parametrize(("port", "call", "side"), CALLS.values(), ids=CALLS)
async def test_killed_anywhere_the_next_process_ends_in_the_same_state(port: str, call: str, side: str) -> None:
    undisturbed = await pushed()
    await passes(undisturbed)
    fake = await pushed()
    same = fake.runtime.apps["same"]
    async with dead_at(fake, port, call, side):
        done = await passes(fake)
    assert everything(fake) == everything(undisturbed) and fake.runtime.apps.keys() == {"changed", "added", "same"}
    assert fake.runtime.apps["same"] == same
    assert fake.reports.published[-1]["revision"] == done.report["revision"]
    fake.forget_calls()
    assert not (await reconcile(fake.world, PlanOptions())).outcomes and not fake.writes


async def test_rc_03_an_upload_that_was_not_committed_is_made_again_in_full() -> None:
    fake = await pushed()
    (artifact_id,) = [name for name in fake.artifacts.artifacts if name.endswith("/changed")]
    artifact = fake.artifacts.artifacts[artifact_id]
    async with dead_at(fake, "artifacts", "upload", "before"):
        fake.artifacts.artifacts[artifact_id] = type(artifact)(artifact_id, artifact.versions, staged=True)
        done = await reconcile(fake.world, PlanOptions())
    assert not done.failed
    now = fake.artifacts.artifacts[artifact_id]
    assert not now.staged and len(now.versions) == len(artifact.versions) + 1
    assert fake.artifacts.files[artifact_id, now.versions[-1].name].keys() == {"main.py", "manifest.yaml"}


async def test_rc_05_a_deployment_whose_answer_was_lost_is_found_by_its_id_and_not_made_twice() -> None:
    fake = await pushed()
    real = fake.runtime.apply

    async def answer_lost(*args: Any, **kwargs: Any) -> None:
        await real(*args, **kwargs)
        raise Unreachable("connection lost")

    fake.runtime.apply = answer_lost  # type: ignore[method-assign]
    done = await reconcile(fake.world, PlanOptions())
    assert {outcome.address for outcome in done.failed} == {"deploy added", "update changed"}
    fake.runtime.apply = real  # type: ignore[method-assign]
    pids = {app_id: app.replicas[0].pid for app_id, app in fake.runtime.apps.items()}
    again = await reconcile(fake.world, PlanOptions())
    assert [outcome.address for outcome in again.outcomes] == ["stop removed"] and not again.failed
    del pids["removed"]
    assert pids == {app_id: app.replicas[0].pid for app_id, app in fake.runtime.apps.items()}
    assert pids.keys() == {"changed", "added", "same"}


async def test_rc_06_killed_while_it_waits_for_health_the_next_process_waits_on_and_sends_nothing_again() -> None:
    fake = await pushed()
    fake.runtime.slow |= {"changed", "added"}
    first = await reconcile(fake.world, PlanOptions())
    dying = Dying(fake.runtime, "observe", "before")
    with pytest.raises(Killed):
        await _settled(FakeWorld(fake.source, fake.artifacts, dying, fake.reports), first)  # type: ignore[arg-type]
    fake.forget_calls()
    for app_id in fake.runtime.slow:
        fake.runtime.apps[app_id] = fake.runtime.apps[app_id].model_copy(update={"status": "RUNNING"})
    waited = await _settled(fake, await reconcile(fake.world, PlanOptions()))
    assert fake.writes == ["remove removed"]
    assert waited.apps.pop("removed").verdict is Verdict.GONE
    assert {app.verdict for app in waited.apps.values()} == {Verdict.HEALTHY}
    assert waited.apps.keys() == {"changed", "added", "same"}


async def _settled(fake: FakeWorld, first: Any) -> Any:
    there = fake.world.hypha(first.look.desired.cluster)
    seen = replace(first.look, hypha=there)
    first = type(first)(seen, first.outcomes, first.report)
    return await reconcile_until_settled(
        fake.world, PlanOptions(), first, timeout_s=5, tell=lambda _: None, every_s=0.01
    )


async def test_rc_08_killed_while_the_worker_rolls_back_the_next_process_lets_it_and_does_not_try_again() -> None:
    fake = await pushed()
    good = fake.runtime.apps["changed"]
    fake.runtime.bad["changed"] = "it raised in __init__"
    async with dead_at(fake, "reports", "publish", "before"):
        pass
    rejected = fake.runtime.apps["changed"]
    assert rejected.digest == good.digest and rejected.rejected
    fake.runtime.apps["changed"] = rejected.model_copy(update={"updating": True, "rejected": None})
    fake.forget_calls()
    during = await reconcile(fake.world, PlanOptions())
    assert {one.app_id: one.reason for one in during.look.plan.held} == dict.fromkeys(
        ("changed", "removed"), Reason.UPDATING
    )
    assert not fake.writes
    fake.runtime.apps["changed"] = rejected
    after = await reconcile(fake.world, PlanOptions())
    assert {one.app_id: one.reason for one in after.look.plan.held} == {"changed": Reason.BAD_COMMIT}
    assert fake.writes == ["remove removed"]


def test_rc_08_what_is_put_back_is_told_by_the_worker_and_kept_nowhere_else() -> None:
    """So that no process that dies can forget it."""
    assert AppState.model_fields["rejected"].annotation == Rejection | None


# ── the mirror of a remote repository ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repo")


def mirrored(server: GitServer, tmp_path: Path) -> GitSource:
    """As a process that was just started."""
    return GitSource(f"{server.url}/repo/.git", mirror_dir=tmp_path / "mirrors")


def the_mirror(tmp_path: Path) -> Path:
    (mirror,) = (path for path in (tmp_path / "mirrors").iterdir() if path.suffix == ".git")
    return mirror


def test_rc_10_what_a_killed_fetch_left_behind_neither_stops_the_next_nor_stays(
    repository: Repository, tmp_path: Path
) -> None:
    with git_server(tmp_path) as server:
        mirrored(server, tmp_path).fetch_blocking()
        mirror = the_mirror(tmp_path)
        (reference,) = (mirror / "refs" / "reconcile").iterdir()
        left = [reference.with_name(f"{reference.name}.lock"), mirror / "packed-refs.lock", mirror / "config.lock"]
        left += [
            mirror / "objects" / "pack" / "tmp_pack_x1",
            mirror / "objects" / "incoming-y2" / "pack" / "tmp_idx_z3",
        ]
        for path in left:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"half of it")
        commit = repository.commit("Next", {"apps/demo-app/main.py": "# next\n"})
        assert mirrored(server, tmp_path).fetch_blocking().revision.commit == commit
        assert not [path for path in left if path.exists()]


@pytest.mark.parametrize("damage", ["HEAD is empty", "packs are cut off", "objects are gone", "half made"])
def test_rc_12_a_spoiled_mirror_is_made_anew(repository: Repository, tmp_path: Path, damage: str) -> None:
    with git_server(tmp_path) as server:
        repository.git("gc", "--quiet")
        mirrored(server, tmp_path).fetch_blocking()
        mirror = the_mirror(tmp_path)
        objects = [path for path in (mirror / "objects").rglob("*") if path.is_file()]
        match damage:
            case "HEAD is empty":
                (mirror / "HEAD").write_bytes(b"")
            case "packs are cut off":
                for path in objects:
                    path.chmod(0o600)
                    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            case "objects are gone":
                for path in objects:
                    path.unlink()
            case _:
                (mirror / "config").unlink()
                (mirror / "HEAD").unlink()
        tree = mirrored(server, tmp_path).fetch_blocking()
        assert tree.revision.commit == repository.head and the_mirror(tmp_path) == mirror
        Git(git_dir=mirror)("fsck")


def test_rc_11_no_room_for_the_mirror_is_said_as_it_is_and_tried_again(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as the remote's fault, and the last commit is still known. A git that finds the disk full stands in."""
    with git_server(tmp_path) as server:
        source = mirrored(server, tmp_path)
        first = source.fetch_blocking()
        commit = repository.commit("Next", {"apps/demo-app/main.py": "# next\n"})
        shim = tmp_path / "bin" / "git"
        shim.parent.mkdir()
        shim.write_text(
            '#!/bin/sh\nfor word; do [ "$word" = fetch ] && { echo "fatal: write error: No space left on device" >&2; '
            'exit 128; }; done\nPATH="${PATH#*:}" exec git "$@"\n'
        )
        shim.chmod(0o755)
        with monkeypatch.context() as full:
            full.setenv("PATH", str(shim.parent), prepend=":")
            with pytest.raises(Unreachable, match=r"no room for the mirror of .*/mirrors: No space"):
                source.fetch_blocking()
        assert source.fetch_blocking().revision.commit == commit != first.revision.commit


def test_rc_11_a_folder_of_mirrors_that_cannot_be_made_is_said(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "mirrors").write_text("in the way")
    with git_server(tmp_path) as server, pytest.raises(Unreachable, match="mirrors"):
        mirrored(server, tmp_path).fetch_blocking()
    assert repository.head


async def test_rc_11_a_store_without_room_fails_the_step_and_leaves_the_running_app_alone() -> None:
    fake = await pushed()
    before = fake.runtime.apps["changed"]
    fake.artifacts.fail("upload ws/changed", Unreachable("the artifact store does not take main.py: HTTP 507"))
    done = await reconcile(fake.world, PlanOptions())
    results = {outcome.address.split("@")[0]: outcome.result for outcome in done.outcomes}
    assert (results["upload changed"], results["update changed"]) == (Result.FAILED, Result.SKIPPED)
    assert fake.runtime.apps["changed"] == before and "added" in fake.runtime.apps
