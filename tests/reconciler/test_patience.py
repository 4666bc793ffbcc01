"""An environment that takes long to build holds up nothing else: a pass leaves it to the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.apply import Event, Means, Progressed, apply, manifests_of
from reconciler.cli.keeper import Keeper
from reconciler.loop import SOON_S, Pace
from reconciler.planning import conditions
from reconciler.planning.steps import PlanOptions, Rest, Result
from reconciler.reconcile import Pass, carry_out, look, reconcile
from reconciler.settle import PASSES, reconcile_until_settled
from reconciler.telling import news
from tests.fakes import FakeMemory, FakeSource, FakeWorld, a_repository
from tests.reconciler import test_cli


@pytest.fixture(autouse=True)
def no_patience() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reconciler.reconcile.PATIENCE_S", 0.0)
        yield


@pytest.fixture
def fake() -> FakeWorld:
    """The environment of `one` is asked for three times before it is there."""
    made = FakeWorld(FakeSource(a_repository("one", "two")), memory=FakeMemory())
    made.runtime.builds["one"] = 2
    return made


def results(done: Pass) -> dict[str, Result]:
    return {outcome.address.split("@")[0]: outcome.result for outcome in done.outcomes}


async def test_the_others_go_on_and_a_later_pass_asks_again(fake: FakeWorld) -> None:
    first = await reconcile(fake.world, PlanOptions())
    assert (results(first)["prepare one"], results(first)["deploy one"]) == (Result.WAITING, Result.WAITING)
    assert fake.runtime.apps.keys() == {"two"} and not first.failed
    await reconcile(fake.world, PlanOptions())
    last = await reconcile(fake.world, PlanOptions())
    assert fake.runtime.apps.keys() == {"one", "two"} and set(results(last).values()) == {Result.DONE}


async def test_only_the_first_pass_waits_a_little(fake: FakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.reconcile.PATIENCE_S", 0.02)
    fake.runtime.builds["one"] = 1_000_000
    asked: list[int] = []
    for _ in range(3):
        fake.forget_calls()
        await reconcile(fake.world, PlanOptions())
        asked.append(fake.runtime.calls.count("prepare one"))
    assert asked[0] > 1 and asked[1:] == [1, 1]


async def test_it_is_told_as_on_its_way_and_the_loop_looks_again_soon(fake: FakeWorld) -> None:
    done = await reconcile(fake.world, PlanOptions())
    (one,) = (app for app in done.report["apps"] if app["id"] == "one")
    assert (one["sync"], one["health"], one["reason"]) == ("OutOfSync", "Progressing", "Updating")
    told = {judged.type: judged.status for judged in conditions.of_report(done.report)}
    assert (told[conditions.Type.RECONCILING], told[conditions.Type.STALLED]) == ("True", "False")
    assert Pace(300).after(done).seconds() == SOON_S


async def test_what_needs_a_failed_step_too_is_skipped(fake: FakeWorld) -> None:
    fake.source.commit(a_repository("one", "two", one="    depends_on: [two]\n"))
    fake.runtime.bad_environments["two"] = "no solution"
    seen = await look(fake.world, PlanOptions())
    means = Means(seen.hypha, fake.world.secrets, seen.tree.read, manifests_of(seen.desired), patience_s=0.0)
    outcomes = await apply(seen.plan, means, parallel=4, tell=lambda _: None)
    found = {outcome.address.split("@")[0]: outcome.result for outcome in outcomes}
    assert (found["prepare one"], found["deploy one"]) == (Result.WAITING, Result.SKIPPED)


async def test_who_comes_only_once_waits_until_it_is_there(fake: FakeWorld) -> None:
    events: list[Event] = []
    seen = await look(fake.world, PlanOptions())
    done = await carry_out(fake.world, seen, tell=events.append)
    assert set(results(done).values()) == {Result.DONE}
    assert [event.text for event in events if isinstance(event, Progressed)].count("building") == 2


async def test_who_waits_follows_it_however_often_it_has_to_ask(fake: FakeWorld) -> None:
    fake.runtime.builds["one"] = PASSES + 5
    first = await reconcile(fake.world, PlanOptions())
    waited = await reconcile_until_settled(
        fake.world, PlanOptions(), first, timeout_s=20, tell=lambda _: None, every_s=0.001
    )
    assert waited.ok and waited.apps.keys() == {"one", "two"}


async def test_out_of_time_before_it_is_there_is_not_well(fake: FakeWorld) -> None:
    fake.runtime.builds["one"] = 10_000
    first = await reconcile(fake.world, PlanOptions())
    waited = await reconcile_until_settled(
        fake.world, PlanOptions(), first, timeout_s=0.1, tell=lambda _: None, every_s=0.001
    )
    assert not waited.ok


@pytest.mark.parametrize("words", [("apply", "--wait"), ("apply",)])
def test_a_command_ends_well_when_it_is_there(fake: FakeWorld, tmp_path: Path, words: tuple[str, ...]) -> None:
    result = test_cli.reconcile(fake, *words, "--auto-approve", home=tmp_path)
    assert result.exit_code == 0, result.output
    assert fake.runtime.apps.keys() == {"one", "two"}


async def test_a_build_that_fails_each_time_is_tried_ever_more_seldom(fake: FakeWorld) -> None:
    """Although each failure comes after a pass in which it was still built."""
    keeper = Keeper(fake.world, asyncio.Event())
    fake.runtime.bad_environments["one"] = "no solution"
    tries: list[int] = []
    for _ in range(3):
        fake.runtime.builds["one"] = 1
        for _ in range(2):
            keeper._resting = {app_id: _rested(rest) for app_id, rest in keeper._resting.items()}
            await keeper.one_pass()
        tries.append(keeper._resting["one"].tries)
    assert tries == [1, 2, 3]


def _rested(rest: Rest) -> Rest:
    return replace(rest, until=0.0)


async def test_what_failed_is_no_better_while_its_successor_is_built(fake: FakeWorld) -> None:
    fake.runtime.builds.clear()
    fake.runtime.bad_environments["one"] = "no solution"
    standing, told = news.after(news.Standing(), await reconcile(fake.world, PlanOptions()))
    assert ("failed", "one") in {(one.kind, one.app_id) for one in told}
    fake.runtime.bad_environments.clear()
    fake.runtime.builds["one"] = 1
    standing, told = news.after(standing, await reconcile(fake.world, PlanOptions()))
    assert told == ()
    standing, told = news.after(standing, await reconcile(fake.world, PlanOptions()))
    assert ("recovered", "one") in {(one.kind, one.app_id) for one in told}
