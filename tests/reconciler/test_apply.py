"""How steps are carried out: side by side, bounded, and no further than a failure reaches."""

from __future__ import annotations

import pytest

from reconciler.apply import Ended, Event, Progressed, Started
from reconciler.planning.steps import PlanOptions, Result
from reconciler.ports import StepFailed
from reconciler.reconcile import reconcile
from tests.fakes import FakeMemory, FakeSource, FakeWorld, a_repository

NAMES = ("a", "b", "c", "d", "e", "f")


async def test_apps_are_worked_on_side_by_side_but_no_more_than_allowed() -> None:
    fake = FakeWorld(FakeSource(a_repository(*NAMES, cluster="policy: {parallel: 3}\n")))
    fake.runtime.delay_s = 0.02
    await reconcile(fake.world, PlanOptions())
    assert fake.runtime.most_at_work == 3


async def test_a_failed_app_does_not_stop_the_others() -> None:
    fake = FakeWorld(FakeSource(a_repository(*NAMES)))
    fake.artifacts.fail("upload ws/c", StepFailed("disk full"))
    done = await reconcile(fake.world, PlanOptions())
    results = {outcome.address.split("@")[0]: outcome for outcome in done.outcomes}
    assert fake.runtime.apps.keys() == set(NAMES) - {"c"}
    assert results["upload c"].result is Result.FAILED and results["upload c"].message == "disk full"
    assert results["prepare c"].result is Result.SKIPPED
    assert results["deploy c"].result is Result.SKIPPED and "prepare c" in results["deploy c"].message


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("x")])
async def test_a_bug_in_one_step_fails_that_step_alone(error: Exception) -> None:
    fake = FakeWorld(FakeSource(a_repository("a", "b")))
    fake.runtime.fail("apply a", error)
    done = await reconcile(fake.world, PlanOptions())
    assert [outcome.address for outcome in done.failed] == ["deploy a"]
    assert type(error).__name__ in done.failed[0].message
    assert fake.runtime.apps.keys() == {"b"}


async def test_an_outage_is_told_with_its_way_out() -> None:
    fake = FakeWorld(FakeSource(a_repository("a")))
    fake.runtime.fail("prepare")
    done = await reconcile(fake.world, PlanOptions())
    assert done.failed[0].message == "prepare: no answer. Try again."


async def test_rx_04_what_somebody_changed_meanwhile_is_not_overwritten() -> None:
    fake = FakeWorld(FakeSource(a_repository("a")))
    await reconcile(fake.world, PlanOptions())
    fake.source.commit({"apps/a/main.py": fake.source._files["apps/a/main.py"].replace("pong", "pong 2")})

    def somebody_is_faster(event: Event) -> None:
        if isinstance(event, Started) and event.step.address.startswith("upload"):
            fake.runtime.apps["a"] = fake.runtime.apps["a"].model_copy(update={"digest": "0" * 64})

    done = await reconcile(fake.world, PlanOptions(), tell=somebody_is_faster)
    assert [outcome.address for outcome in done.failed] == ["update a"]
    assert fake.runtime.apps["a"].digest == "0" * 64


async def test_steps_tell_that_they_start_go_on_and_end() -> None:
    fake = FakeWorld(FakeSource(a_repository("a")))
    events: list[Event] = []
    await reconcile(fake.world, PlanOptions(), tell=events.append)
    by_step = [(type(event), event.step.address.split("@")[0]) for event in events]
    assert by_step[:3] == [(Started, "upload a"), (Progressed, "upload a"), (Ended, "upload a")]
    assert by_step[-1] == (Ended, "deploy a")


@pytest.mark.parametrize("error", [BrokenPipeError(), SystemExit(1), KeyError("a bug")])
async def test_a_listener_that_goes_away_stops_nothing(error: BaseException) -> None:
    """`reconcile apply -o jsonl | head`"""
    fake = FakeWorld(FakeSource(a_repository("a", "b")), memory=FakeMemory())

    def goes_away(_: Event) -> None:
        raise error

    done = await reconcile(fake.world, PlanOptions(), tell=goes_away)
    assert fake.runtime.apps.keys() == {"a", "b"} and not done.failed
    assert fake.memory and {"deploy a", "deploy b"} <= {entry.what for entry in fake.memory.entries}


async def test_a_removal_is_told_who_asks_and_what_it_saw() -> None:
    budget = "policy: {prune: true, removal_budget: 100%}\n"
    fake = FakeWorld(FakeSource(a_repository("a", "b", cluster=budget)))
    await reconcile(fake.world, PlanOptions())
    fake.source.commit({**a_repository("a", cluster=budget)})
    done = await reconcile(fake.world, PlanOptions())
    assert [outcome.address for outcome in done.outcomes] == ["stop b"]
    assert fake.runtime.apps.keys() == {"a"}
