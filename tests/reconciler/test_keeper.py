"""What `reconcile run` keeps from one pass to the next, and what it tells of a pass that did not end well."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bioengine_runtime.contract.status import Rejection
from reconciler.adapters.git import GitSource
from reconciler.cli.keeper import Keeper
from reconciler.errors import SourceUnusable, Unreachable
from reconciler.ports import World
from tests.fakes import FakeMemory, FakeSource, FakeWorld, a_repository


@pytest.fixture
def fake() -> FakeWorld:
    return FakeWorld(FakeSource(a_repository("one", "two")), memory=FakeMemory())


@pytest.fixture
async def keeper(fake: FakeWorld) -> Keeper:
    """One and two run, and a pass has seen it."""
    made = Keeper(fake.world, asyncio.Event())
    for _ in range(2):
        await made.one_pass()
    return made


def fails(fake: FakeWorld, app_id: str) -> None:
    """Its version is up, is no good, and stays."""
    app = fake.runtime.apps[app_id]
    wrong = Rejection(digest=app.digest or "", reason="the probe raised", at=0.0, gate="probe")
    fake.runtime.apps[app_id] = app.model_copy(update={"rejected": wrong})


def tries(fake: FakeWorld) -> list[str]:
    return [call for call in fake.runtime.calls if call.startswith("apply")]


def conditions(report: Any) -> dict[str, str]:
    return {one["type"]: one["status"] for one in report["conditions"]}


# ── what a pass that did not end well leaves behind ────────────────────────────────────────────────────────────────


async def test_the_report_before_a_crash_is_not_read_as_how_things_are(fake: FakeWorld, keeper: Keeper) -> None:
    assert fake.reports.published[-1]["complete"]
    fake.artifacts.fail("workspace", KeyError("s3cr3t"))
    with pytest.raises(KeyError):
        await keeper.one_pass()
    told = fake.reports.published[-1]
    assert not told["complete"] and conditions(told)["Ready"] == "Unknown" and conditions(told)["Stalled"] == "True"
    assert "KeyError" in str(told["conditions"]) and "s3cr3t" not in str(told)


# ── retry ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_retry_is_kept_until_it_was_tried(fake: FakeWorld, keeper: Keeper) -> None:
    fails(fake, "one")
    fake.forget_calls()
    await keeper.orders.retry("one", "anna")
    fake.runtime.fail("observe", Unreachable("hiccup"))
    await keeper.one_pass()
    fake.runtime.heal()
    for _ in range(3):
        await keeper.one_pass()
    assert tries(fake) == ["apply one"]


async def test_a_retry_that_fails_was_tried(fake: FakeWorld, keeper: Keeper) -> None:
    fails(fake, "one")
    fake.forget_calls()
    fake.runtime.fail("apply one", Unreachable("no answer"))
    await keeper.orders.retry("one", "anna")
    for _ in range(3):
        await keeper.one_pass()
    assert tries(fake) == ["apply one"]


async def test_a_retry_of_what_is_well_ends_with_the_next_look(fake: FakeWorld, keeper: Keeper) -> None:
    await keeper.orders.retry("one", "anna")
    await keeper.one_pass()
    fails(fake, "one")
    fake.forget_calls()
    await keeper.one_pass()
    assert not tries(fake)


async def test_a_retry_says_nothing_false_of_the_others(fake: FakeWorld, keeper: Keeper) -> None:
    fails(fake, "one")
    change_by_hand(fake, "two")
    fake.runtime.fail("apply two", Unreachable("no answer"))
    reasons: list[dict[str, str]] = []
    for order in (False, False, True, False):
        if order:
            await keeper.orders.retry("one", "anna")
        done = await keeper.one_pass()
        reasons.append({app["id"]: app["reason"] for app in done.report["apps"]})
    assert [told["two"] for told in reasons] == ["Failed", "BackingOff", "BackingOff", "BackingOff"]
    assert reasons[2]["one"] == "Applied"


def change_by_hand(fake: FakeWorld, app_id: str) -> None:
    app = fake.runtime.apps[app_id]
    assert app.spec is not None
    changed = app.spec.model_copy(update={"max_ongoing_requests": 77})
    fake.runtime.apps[app_id] = app.model_copy(update={"spec": changed, "digest": changed.digest()})


# ── news that come during a pass ───────────────────────────────────────────────────────────────────────────────────


async def test_an_order_during_a_pass_has_the_repository_asked_once(fake: FakeWorld, keeper: Keeper) -> None:
    """Not before each of the steps that are left: a repository that is away takes its time."""
    change_by_hand(fake, "one")
    change_by_hand(fake, "two")
    fake.forget_calls()
    fake.source.fail("fetch", Unreachable("git hangs"))
    keeper.wake.set()
    done = await keeper.one_pass()
    assert len(done.outcomes) == 2 and fake.source.calls == ["fetch"]
    assert keeper.wake.is_set(), "and the next pass looks for it"


# ── commits of a repository on this machine ────────────────────────────────────────────────────────────────────────


async def test_commits_wake_it_also_when_the_first_could_not_be_read(tmp_path: Path, fake: FakeWorld) -> None:
    repository = tmp_path / "lab"
    await asyncio.to_thread(repository.mkdir)
    await git(repository, "init", "-q", "-b", "main")
    source = GitSource(str(repository), mirror_dir=tmp_path / "mirrors")
    wake, stop = asyncio.Event(), asyncio.Event()
    keeper = Keeper(World(source, fake.world.hypha, fake.secrets), wake, interval_s=3600)
    with pytest.raises(SourceUnusable):
        await keeper.one_pass()
    keeping = asyncio.create_task(keeper.keep(stop))
    try:
        await commit(repository, a_repository("one"))
        wake.set()
        await until(lambda: "one" in fake.runtime.apps)
        await asyncio.sleep(0.5)  # the look-out begins
        await commit(repository, a_repository("one", "two"))
        await until(lambda: "two" in fake.runtime.apps)
    finally:
        stop.set()
        await keeping


async def commit(repository: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    await git(repository, "add", "-A")
    await git(repository, "commit", "-q", "-m", "change")


async def git(repository: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    await asyncio.to_thread(subprocess.run, ["git", *who, *words], cwd=repository, check=True)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - nobody sets an event for it
            await asyncio.sleep(0.02)
