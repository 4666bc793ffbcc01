"""A yes is to all that a plan showed, however many passes that takes, and to nothing else."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from reconciler.errors import Unreachable
from reconciler.lease import Lease
from reconciler.orders import NotOrdered, Orders
from reconciler.planning.memory import Order, OrderKind
from reconciler.planning.steps import PlanOptions, Reason
from reconciler.reconcile import Pass, reconcile
from tests.fakes import FakeMemory, FakeSource, FakeWorld, a_repository, an_app_folder

MANUAL = "policy: {apply: manual, approvers: [anna]}\n"
OPEN_IN_2_H, SHUT_IN_3_H = (f"{time.gmtime(time.time() + hours * 3600).tm_hour:02}:00" for hours in (2, 3))
CLOSED = f"policy: {{approvers: [anna], windows: [{{start: '{OPEN_IN_2_H}', end: '{SHUT_IN_3_H}'}}]}}\n"
CHAIN = {"two": "    depends_on: [one]\n", "three": "    depends_on: [two]\n"}


def a_world(*apps: str, cluster: str = MANUAL, **more: str) -> FakeWorld:
    fake = FakeWorld(FakeSource(a_repository(*apps, cluster=cluster, **more)), memory=FakeMemory())
    fake.lease = Lease("lab", settle_s=0.0)
    return fake


async def one_pass(fake: FakeWorld) -> Pass:
    """As the reconciler that runs for ever does it."""
    return await reconcile(fake.world, PlanOptions())


async def approve(fake: FakeWorld, done: Pass, **more: Any) -> None:
    orders = Orders(fake.world, lambda: done.look, lambda: None, lambda _: None)
    order = Order(OrderKind.APPROVE, done.look.plan.id, "anna", time.time(), by_id="anna")
    await orders.give(replace(order, **more))


def number(fake: FakeWorld, app_id: str) -> int | None:
    spec = fake.runtime.apps[app_id].spec
    return spec.max_ongoing_requests if spec else None


def by_hand(fake: FakeWorld, app_id: str, calls: int) -> None:
    app = fake.runtime.apps[app_id]
    assert app.spec
    spec = app.spec.model_copy(update={"max_ongoing_requests": calls})
    fake.runtime.apps[app_id] = app.model_copy(update={"spec": spec, "digest": spec.digest()})


@pytest.mark.parametrize("cluster", [MANUAL, CLOSED], ids=["manual", "closed"])
async def test_one_yes_is_enough_for_a_chain_of_apps(cluster: str) -> None:
    fake = a_world("one", "two", "three", cluster=cluster, **CHAIN)
    await approve(fake, await one_pass(fake))
    for _ in range(3):
        assert (await one_pass(fake)).look.plan.gate is None
    assert fake.runtime.apps.keys() == {"one", "two", "three"}


@pytest.mark.parametrize("trouble", ["slow", "hiccup"])
async def test_one_yes_is_enough_for_an_environment_that_takes_several_passes(
    trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.reconcile.PATIENCE_S", 0.0)
    fake = a_world("one")
    if trouble == "slow":
        fake.runtime.builds["one"] = 1
    else:
        fake.runtime.fail("prepare one", Unreachable("no answer"))
    await approve(fake, await one_pass(fake))
    await one_pass(fake)
    assert "upload ws/one" in fake.artifacts.calls and not fake.runtime.apps
    fake.runtime.heal()
    await one_pass(fake)
    assert fake.runtime.apps.keys() == {"one"}


async def test_drift_that_comes_up_later_was_not_shown() -> None:
    """Neither a change by hand nor an app that was stopped by hand is undone, though the yes still lasts."""
    fake = a_world("one", "two")
    await approve(fake, await one_pass(fake))
    await one_pass(fake)
    by_hand(fake, "one", 50)
    assert fake.memory
    fake.memory.remembered = replace(fake.memory.remembered, seconds={"two": (1.0,)})
    del fake.runtime.apps["two"]
    done = await one_pass(fake)
    assert not done.outcomes and done.look.plan.gate
    assert {step.address for step in done.look.plan.steps if step.drift} == {"update one", "deploy two"}
    assert number(fake, "one") == 50 and fake.runtime.apps.keys() == {"one"}


async def test_what_comes_up_beside_it_is_held_and_the_rest_goes_on() -> None:
    fake = a_world("one", "two", "three")
    await approve(fake, await one_pass(fake))
    await one_pass(fake)
    fake.source.commit(
        a_repository("one", "two", "three", cluster=MANUAL, one="    max_ongoing_requests: 3\n", **CHAIN)
    )
    await approve(fake, await one_pass(fake))
    by_hand(fake, "three", 50)
    done = await one_pass(fake)
    (held,) = done.look.plan.held
    assert (held.app_id, held.reason) == ("three", Reason.APPROVAL_REQUIRED)
    assert held.fix == f"reconcile approve {done.look.plan.id}"
    assert (number(fake, "one"), number(fake, "three")) == (3, 50)
    await approve(fake, done)
    await one_pass(fake)
    assert number(fake, "three") != 50


@pytest.mark.parametrize("drift", [False, True])
async def test_a_yes_is_also_to_what_waits_but_to_no_drift_that_does(*, drift: bool) -> None:
    """`one` is being updated, so what else differs of it is looked at when that has ended; `new` is deployed."""
    fake = a_world("one", cluster="")
    await one_pass(fake)
    files = a_repository("one", "new", cluster=MANUAL, one="    max_ongoing_requests: 3\n")
    if drift:
        fake.source.commit(files)
        await approve(fake, await one_pass(fake))
        await one_pass(fake)
        fake.source.commit({"cluster.yaml": files["cluster.yaml"], **an_app_folder("new", says="2")})
        by_hand(fake, "one", 50)
    else:
        fake.source.commit(files)
    before = fake.runtime.apps["one"]
    fake.runtime.apps["one"] = before.model_copy(update={"updating": True})
    waiting = await one_pass(fake)
    assert [(held.app_id, held.reason, held.drift) for held in waiting.look.plan.held] == [
        ("one", Reason.UPDATING, drift)
    ]
    await approve(fake, waiting)
    fake.runtime.apps["one"] = before
    await one_pass(fake)
    assert number(fake, "one") == (50 if drift else 3)


async def test_another_commit_is_another_plan() -> None:
    fake = a_world("one", "two", **CHAIN)
    await approve(fake, await one_pass(fake))
    await one_pass(fake)
    fake.source.commit(an_app_folder("spare"))
    done = await one_pass(fake)
    assert done.look.plan.gate and fake.runtime.apps.keys() == {"one"}


async def test_a_yes_ends() -> None:
    fake = a_world("one", "two", **CHAIN)
    await approve(fake, await one_pass(fake))
    await one_pass(fake)
    assert fake.memory
    (order,) = fake.memory.remembered.orders
    ended = replace(order, until=time.time() - 1)
    fake.memory.remembered = replace(fake.memory.remembered, orders=(ended,))
    assert (await one_pass(fake)).look.plan.gate and fake.runtime.apps.keys() == {"one"}


async def test_removals_that_were_confirmed_are_tried_again_after_one_failed() -> None:
    policy = "policy: {prune: true, removal_budget: 0, approvers: [anna]}\n"
    fake = a_world("one", "two", "three", cluster=policy)
    await one_pass(fake)
    fake.source.commit(a_repository("one", cluster=policy))
    await approve(fake, await one_pass(fake))
    fake.runtime.fail("remove two", Unreachable("no answer"))
    await one_pass(fake)
    assert fake.runtime.apps.keys() == {"one", "two"}
    fake.runtime.heal()
    await one_pass(fake)
    assert fake.runtime.apps.keys() == {"one"}


async def test_undoing_what_was_told_is_not_undoing_what_is_done_next() -> None:
    policy = "policy: {self_heal: detect-only, approvers: [anna]}\n"
    fake = a_world("one", "two", cluster=policy)
    await one_pass(fake)
    by_hand(fake, "one", 50)
    await approve(fake, await one_pass(fake))
    by_hand(fake, "two", 60)
    await one_pass(fake)
    assert (number(fake, "one") != 50, number(fake, "two")) == (True, 60)


async def test_a_plan_that_is_no_longer_is_not_approved() -> None:
    fake = a_world("one")
    done = await one_pass(fake)
    with pytest.raises(NotOrdered, match=f"the plan is {done.look.plan.id} now, not p-1"):
        await approve(fake, done, subject="p-1")
