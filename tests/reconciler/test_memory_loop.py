"""Commits faster than they can be applied, and triggers that come too often or not at all, through the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reconciler.loop import run
from reconciler.planning.steps import PlanOptions
from reconciler.reconcile import Pass, reconcile
from tests.fakes import FakeMemory, FakeSource, FakeWorld, a_repository, an_app_folder


async def keep(fake: FakeWorld, stop: asyncio.Event, wake: asyncio.Event, interval_s: float | None = None) -> int:
    """Runs the loop until `stop`; the number of passes."""
    passes = 0

    async def one_pass() -> Pass:
        nonlocal passes
        passes += 1
        return await reconcile(fake.world, PlanOptions(), woken=wake.is_set)

    await run(one_pass, stop=stop, wake=wake, interval_s=interval_s)
    return passes


async def until(what: Callable[[], object]) -> None:
    for _ in range(500):
        if what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 5 s")


async def test_rx_06_of_fifty_commits_the_last_one_wins_in_at_most_two_applies() -> None:
    fake = FakeWorld(FakeSource(a_repository("one")), memory=FakeMemory())
    fake.runtime.delay_s = 0.1
    stop, wake = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(keep(fake, stop, wake))
    await until(lambda: "prepare one" in fake.runtime.calls)
    for number in range(50):
        fake.source.commit(an_app_folder("one", says=f"pong {number}"))
        wake.set()
        await asyncio.sleep(0)

    def last_one_runs() -> bool:
        app = fake.runtime.apps.get("one")
        return app is not None and app.provenance is not None and app.provenance.commit == fake.source.head

    await until(last_one_runs)
    stop.set()
    await running
    assert fake.runtime.calls.count("apply one") <= 2 and fake.artifacts.calls.count("upload ws/one") <= 2


async def test_rx_09_a_storm_of_events_is_one_more_pass() -> None:
    fake = FakeWorld(FakeSource(a_repository("one", cluster="policy: {interval_s: 300}\n")))
    stop, wake = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(keep(fake, stop, wake, 300))
    await until(lambda: fake.reports.published)
    fake.runtime.delay_s = 0.05
    fake.source.commit(an_app_folder("one", says="pong 2"))
    for _ in range(1000):
        wake.set()
    await until(lambda: fake.runtime.calls.count("apply one") == 2)
    await asyncio.sleep(0.1)
    stop.set()
    assert await running <= 3


async def test_rx_09_an_event_that_is_lost_is_made_good_by_the_interval() -> None:
    fake = FakeWorld(FakeSource(a_repository("one")))
    stop, wake = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(keep(fake, stop, wake, 0.05))
    await until(lambda: fake.runtime.apps)
    fake.source.commit(an_app_folder("one", says="nobody says so"))
    await until(lambda: fake.runtime.calls.count("apply one") == 2)
    stop.set()
    await running
