"""Waiting for what a pass began: passes go on until time alone changes nothing."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from bioengine_runtime.contract.status import AppState
from reconciler.planning.steps import PlanOptions
from reconciler.reconcile import reconcile
from reconciler.settle import PASSES, Verdict, Waited, judge, reconcile_until_settled
from tests.builders import a_status, an_app
from tests.fakes import FakeSource, FakeWorld, a_repository


async def settled(fake: FakeWorld, timeout_s: float = 5.0) -> Waited:
    first = await reconcile(fake.world, PlanOptions())
    return await reconcile_until_settled(
        fake.world, PlanOptions(), first, timeout_s=timeout_s, tell=lambda _: None, every_s=0.01
    )


async def test_healthy_apps_end_the_wait() -> None:
    waited = await settled(FakeWorld(FakeSource(a_repository("a", "b"))))
    assert waited.ok and {app.verdict for app in waited.apps.values()} == {Verdict.HEALTHY}


async def test_a_rejected_app_ends_the_wait_with_its_log_lines() -> None:
    fake = FakeWorld(FakeSource(a_repository("a", "b")))
    fake.runtime.bad["a"] = "ImportError: no module named torch"
    waited = await settled(fake)
    assert not waited.ok
    assert waited.apps["a"].verdict is Verdict.REJECTED and waited.apps["a"].log_lines == ("Traceback",)
    assert waited.apps["b"].verdict is Verdict.HEALTHY


async def test_an_app_that_never_comes_up_runs_out_of_time() -> None:
    fake = FakeWorld(FakeSource(a_repository("a")))
    fake.runtime.slow.add("a")
    waited = await settled(fake, timeout_s=0.1)
    assert not waited.ok and waited.apps["a"].verdict is Verdict.WAITING


async def test_what_an_earlier_run_began_is_waited_for() -> None:
    fake = FakeWorld(FakeSource(a_repository("a")))
    fake.runtime.slow.add("a")
    await reconcile(fake.world, PlanOptions())
    waited = await settled(fake, timeout_s=0.1)
    assert waited.last.look.plan.empty and not waited.ok and waited.apps["a"].verdict is Verdict.WAITING


async def test_what_an_earlier_run_began_to_stop_is_waited_for() -> None:
    fake = FakeWorld(FakeSource(a_repository("a", "b")))
    await reconcile(fake.world, PlanOptions())
    fake.source.commit(a_repository("a"))
    fake.runtime.apps["b"] = AppState(app_id="b", status="DELETING")
    waited = await settled(fake, timeout_s=0.1)
    assert waited.apps["b"].verdict is Verdict.WAITING


async def test_what_failed_is_not_waited_for() -> None:
    fake = FakeWorld(FakeSource(a_repository("a", "b")))
    fake.runtime.bad_environments["a"] = "no solution found"
    waited = await settled(fake, timeout_s=60.0)
    assert not waited.ok and waited.apps.keys() == {"b"}


async def test_dependants_are_started_by_a_later_pass() -> None:
    fake = FakeWorld(FakeSource(a_repository("a", "b", b="    depends_on: [a]\n")))
    waited = await settled(fake)
    assert waited.ok and fake.runtime.apps.keys() == {"a", "b"}


async def test_out_of_time_between_two_waves_is_not_well() -> None:
    fake = FakeWorld(FakeSource(a_repository("a", "b", "c", b="    depends_on: [a]\n", c="    depends_on: [b]\n")))
    waited = await settled(fake, timeout_s=0.0)
    assert fake.runtime.apps.keys() == {"a"} and not waited.ok
    assert [line.split(": ")[0] for line in waited.left] == ["b", "c"]


async def test_a_chain_may_be_longer_than_the_passes_that_do_nothing_new() -> None:
    names = [f"a{number:02}" for number in range(PASSES + 2)]
    after = {name: f"    depends_on: [{before}]\n" for before, name in pairwise(names)}
    waited = await settled(FakeWorld(FakeSource(a_repository(*names, **after))), timeout_s=30.0)
    assert waited.ok and waited.apps.keys() == set(names)


async def test_what_waits_for_something_that_does_not_come_is_not_well() -> None:
    fake = FakeWorld(FakeSource(a_repository("a", "b", a="    suspend: later\n", b="    depends_on: [a]\n")))
    waited = await settled(fake)
    assert not waited.ok and fake.runtime.apps == {}
    (left,) = waited.left
    assert left.startswith("b: ") and "a" in left


async def test_what_differs_only_as_git_allows_is_up_as_it_runs() -> None:
    fake = FakeWorld(FakeSource(a_repository("a", a="    ignore: [/max_ongoing_requests]\n")))
    await reconcile(fake.world, PlanOptions())
    before = fake.runtime.apps["a"]
    assert before.spec
    spec = before.spec.model_copy(update={"max_ongoing_requests": 7})
    fake.runtime.apps["a"] = before.model_copy(update={"spec": spec, "digest": spec.digest()})
    waited = await settled(fake, timeout_s=0.1)
    assert waited.ok and waited.apps["a"].verdict is Verdict.HEALTHY


async def test_a_worker_that_is_away_for_a_moment_is_waited_for() -> None:
    fake = FakeWorld(FakeSource(a_repository("a")))
    first = await reconcile(fake.world, PlanOptions())
    fake.runtime.fail("observe")
    asyncio.get_running_loop().call_later(0.1, fake.runtime.heal)
    waited = await reconcile_until_settled(
        fake.world, PlanOptions(), first, timeout_s=5.0, tell=lambda _: None, every_s=0.01
    )
    assert waited.ok


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"service_id": "ws/c:a"}, Verdict.HEALTHY),
        ({}, Verdict.WAITING),
        ({"service_id": "ws/c:a", "updating": True}, Verdict.WAITING),
        ({"service_id": "ws/c:a", "digest": "0" * 64}, Verdict.WAITING),
        ({"status": "DEPLOY_FAILED"}, Verdict.REJECTED),
        ({"status": "UNHEALTHY", "service_id": "ws/c:a"}, Verdict.WAITING),
    ],
)
def test_an_app_is_up_when_the_wanted_digest_runs_and_its_service_is_there(
    fields: dict[str, object], verdict: Verdict
) -> None:
    app = an_app()
    assert judge(app.app_id, app.spec.digest(), a_status(app, **fields)).verdict is verdict


def test_a_stopped_app_is_waited_for_until_it_is_gone() -> None:
    app = an_app()
    assert judge(app.app_id, "", a_status(app)).verdict is Verdict.WAITING
    assert judge(app.app_id, "", None).verdict is Verdict.GONE
