"""When the next pass runs."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path

import pytest

from reconciler.errors import HeldElsewhere, InvalidDesiredState, Remedy, SourceUnusable, Unreachable
from reconciler.loop import SOON_S, Pace, run
from reconciler.planning.backoff import LONGEST_S
from reconciler.planning.memory import Holder
from reconciler.planning.steps import PlanOptions
from reconciler.reconcile import Pass, reconcile
from reconciler.triggers.commits import wake_on_commits
from tests.fakes import FakeSource, FakeWorld, a_repository

QUIET = "policy: {drift_interval_s: 300}\n"


async def a_pass(fake: FakeWorld) -> Pass:
    return await reconcile(fake.world, PlanOptions())


async def test_after_work_it_looks_again_soon_and_then_at_the_interval() -> None:
    fake = FakeWorld(FakeSource(a_repository("a", cluster=QUIET)))
    pace = Pace(60).after(await a_pass(fake))
    assert pace.seconds() == SOON_S
    assert pace.after(await a_pass(fake)).seconds() == 300


async def test_while_hypha_does_not_answer_it_is_asked_later_and_later() -> None:
    fake = FakeWorld(FakeSource(a_repository("a", cluster=QUIET)))
    fake.runtime.fail("observe")
    pace, waits = Pace(60), []
    for _ in range(12):
        pace = pace.after(await a_pass(fake))
        waits.append(pace.seconds())
    assert waits[:3] == [SOON_S, SOON_S * 2, SOON_S * 4] and waits[-1] == LONGEST_S
    fake.runtime.heal()
    assert pace.after(await a_pass(fake)).troubles == 0


@pytest.mark.parametrize("remedy", [Remedy.RETRY, Remedy.BUG])
def test_a_trouble_of_weeks_does_not_end_the_loop(remedy: Remedy) -> None:
    assert Pace(30, troubles=100_000, remedy=remedy).seconds() == LONGEST_S


async def test_an_app_that_fails_slows_nobody_else_down() -> None:
    fake = FakeWorld(FakeSource(a_repository("a", cluster=QUIET)))
    fake.runtime.fail("prepare")
    pace = Pace(60)
    for _ in range(5):
        pace = pace.after(await a_pass(fake), moment_s=7.0)
    assert (pace.seconds(), pace.troubles) == (7.0, 0)


async def test_a_moment_that_is_known_is_not_slept_through_and_one_far_away_waits_for_the_interval() -> None:
    fake = FakeWorld(FakeSource(a_repository("a", cluster=QUIET)))
    await a_pass(fake)
    still = await a_pass(fake)
    assert [Pace(60).after(still, moment).seconds() for moment in (40.0, -2.0, 9000.0, None)] == [40, 0, 300, 300]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Unreachable("git"), SOON_S),
        (RuntimeError("bug"), SOON_S),
        (SourceUnusable("empty"), 60),
        (InvalidDesiredState([]), 60),
    ],
)
def test_trouble_that_needs_a_commit_waits_for_the_interval_and_other_trouble_backs_off(
    error: Exception, seconds: float
) -> None:
    assert Pace(60).after_trouble(error).seconds() == seconds


async def test_nothing_ends_the_loop_but_stop() -> None:
    stop, wake = asyncio.Event(), asyncio.Event()
    seen: list[str] = []
    troubles = [Unreachable("git is away"), InvalidDesiredState([]), RuntimeError("a bug"), SourceUnusable("empty")]

    async def one_pass() -> Pass:
        seen.append("pass")
        wake.set()
        if troubles:
            raise troubles.pop(0)
        stop.set()
        return await a_pass(FakeWorld(FakeSource(a_repository("a"))))

    await asyncio.wait_for(run(one_pass, stop=stop, wake=wake), 5)
    assert len(seen) == 5


async def test_rx_01_another_holder_of_the_lease_ends_it() -> None:
    async def one_pass() -> Pass:
        raise HeldElsewhere(Holder("lab", "node7", 42, 3, 0.0, 0.0))

    with pytest.raises(HeldElsewhere):
        await asyncio.wait_for(run(one_pass, stop=asyncio.Event(), wake=asyncio.Event()), 5)


async def test_who_wakes_it_is_told_of_before_the_pass() -> None:
    stop, wake = asyncio.Event(), asyncio.Event()
    told: list[str] = []

    async def one_pass() -> Pass:
        told.append("pass")
        stop.set() if len(told) > 2 else wake.set()
        return await a_pass(FakeWorld(FakeSource(a_repository("a"))))

    await asyncio.wait_for(run(one_pass, stop=stop, wake=wake, woken=lambda: told.append("woken")), 5)
    assert told == ["pass", "woken", "pass"]


async def test_how_long_it_rests_is_told() -> None:
    stop, rests = asyncio.Event(), list[float]()
    fake = FakeWorld(FakeSource(a_repository("a", cluster=QUIET)))
    await a_pass(fake)

    def waits(seconds: float) -> None:
        rests.append(seconds)
        stop.set()

    await asyncio.wait_for(run(lambda: a_pass(fake), stop=stop, wake=asyncio.Event(), waits=waits), 5)
    assert len(rests) == 1 and 300 * 0.9 <= rests[0] <= 300 * 1.1


async def test_a_pass_in_flight_is_cut_off_when_its_grace_is_over() -> None:
    stop, wake = asyncio.Event(), asyncio.Event()
    ended: list[str] = []

    async def one_pass() -> Pass:
        try:
            stop.set()
            await asyncio.sleep(60)
        finally:
            ended.append("cut off")
        raise AssertionError

    began = time.monotonic()
    await run(one_pass, stop=stop, wake=wake, grace_s=0.05)
    assert ended == ["cut off"] and time.monotonic() - began < 5


async def test_only_one_pass_is_in_flight() -> None:
    stop, wake = asyncio.Event(), asyncio.Event()
    at_once, most, passes = 0, 0, 0
    fake = FakeWorld(FakeSource(a_repository("a")))

    async def one_pass() -> Pass:
        nonlocal at_once, most, passes
        at_once, passes = at_once + 1, passes + 1
        most = max(most, at_once)
        wake.set()
        await asyncio.sleep(0.01)
        at_once -= 1
        if passes == 5:
            stop.set()
        return await a_pass(fake)

    await asyncio.wait_for(run(one_pass, stop=stop, wake=wake), 10)
    assert passes >= 5 and most == 1


async def test_a_commit_wakes_the_loop(tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q", "-b", "main"], ["commit", "-q", "--allow-empty", "-m", "one"]):
        await asyncio.to_thread(subprocess.run, [*git, *words], cwd=tmp_path, check=True)
    stop, wake = asyncio.Event(), asyncio.Event()
    watching = asyncio.create_task(wake_on_commits(tmp_path / ".git", wake, stop))
    await asyncio.sleep(0.5)
    await asyncio.to_thread(
        subprocess.run, [*git, "commit", "-q", "--allow-empty", "-m", "two"], cwd=tmp_path, check=True
    )
    await asyncio.wait_for(wake.wait(), 10)
    stop.set()
    await asyncio.wait_for(watching, 10)
