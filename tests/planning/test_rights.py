"""Who may say yes: to a plan, and to its removals; and that nobody becomes such a one by a push."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.planning import plan_file
from reconciler.planning.desired import DesiredState
from reconciler.planning.live import LiveState
from reconciler.planning.memory import Order
from reconciler.planning.people import NOBODY, Anchor, Person
from reconciler.planning.planner import plan
from reconciler.planning.render_text import render
from reconciler.planning.rights import anchored
from reconciler.planning.steps import Held, Plan, PlanOptions, Reason, StopApp
from tests.builders import NOW, a_desired, a_live, a_status, an_app, an_approval

ANN = Person("ann-id", "ann@lab.example")
CI = Person("ci-id", "ci@lab.example")
MALLORY = Person("mallory-id", "mallory@elsewhere.example")
PRUNE = {"prune": True, "removal_budget": "100%"}


def a_fleet(ourselves: Person = CI, *orders: Order, **policy: Any) -> tuple[DesiredState, LiveState]:
    """One app is new, and one is no longer named."""
    live = a_live(a_status(an_app("gone")), orders=orders)
    return a_desired(an_app("new"), policy={**PRUNE, **policy}), replace(live, ourselves=ourselves)


def a_plan(ourselves: Person = CI, *orders: Order, anchor: Anchor | None = None, **policy: Any) -> Plan:
    desired, live = a_fleet(ourselves, *orders, **policy)
    return plan(anchored(desired, anchor) if anchor else desired, live, {})


def yes(by: Person, anchor: Anchor | None = None, **policy: Any) -> Order:
    """To the plan as it waits."""
    made, fleet = a_plan(CI, anchor=anchor, **policy), a_fleet(CI, **policy)
    return an_approval(made, *fleet, by.name, by_id=by.user_id)


def stops(made: Plan) -> bool:
    return any(isinstance(step.verb, StopApp) for step in made.steps)


def held(made: Plan) -> Held:
    (one,) = made.held
    return one


# ── the right to prune ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ourselves", "pruners", "may"),
    [
        (CI, None, True),
        (NOBODY, None, True),
        (ANN, ["ann@lab.example"], True),
        (ANN, ["ann-id"], True),
        (CI, ["ann@lab.example"], False),
        (CI, [], False),
        (CI, ["*"], False),
        (NOBODY, ["ann@lab.example"], False),
        (NOBODY, ["", "*"], False),
        (Person("*", ""), ["*"], False),
    ],
)
def test_sp_07_apps_are_stopped_by_who_may_and_all_else_goes_on(
    ourselves: Person, pruners: list[str] | None, may: bool
) -> None:
    made = a_plan(ourselves, pruners=pruners)
    assert stops(made) is may
    assert any(step.address == "deploy new" for step in made.steps)
    assert may or (held(made).app_id, held(made).reason) == ("gone", Reason.PRUNE_NOT_PERMITTED)


def test_what_is_held_says_who_may_and_how() -> None:
    made = a_plan(CI, pruners=["ann@lab.example", "bob-id"])
    assert held(made).message == "ci@lab.example may not have apps stopped: that is for ann@lab.example, bob-id"
    assert held(made).fix == f"one of them: reconcile approve {made.id}, or reconcile apply"
    assert "HELD PruneNotPermitted (stop)" in render(made, command="")
    assert "policy.pruners" in held(a_plan(CI, pruners=[])).fix


def test_what_was_asked_for_besides_cannot_be_approved_only_asked_for_by_who_may() -> None:
    made = plan(*a_fleet(CI, pruners=["ann-id"]), {}, PlanOptions(prune_confirmed=1))
    assert held(made).fix == "one of them: reconcile apply --confirm-deletes 1"


@pytest.mark.parametrize(("by", "may"), [(ANN, True), (CI, False), (MALLORY, False), (NOBODY, False)])
def test_an_approval_permits_removals_when_it_is_of_one_who_may(by: Person, may: bool) -> None:
    waiting = a_plan(CI, pruners=["ann@lab.example"])
    approved = a_plan(CI, yes(by, pruners=["ann@lab.example"]), pruners=["ann@lab.example"])
    assert stops(approved) is may and approved.id == waiting.id


def test_an_approval_counts_for_its_plan_and_while_it_and_the_right_last() -> None:
    order = yes(ANN, pruners=["ann-id"])
    assert stops(a_plan(CI, order, pruners=["ann-id"]))
    assert not stops(a_plan(CI, order, pruners=["bob-id"]))
    assert not stops(a_plan(CI, replace(order, until=NOW - 1), pruners=["ann-id"]))
    assert not stops(
        a_plan(CI, replace(order, shown=yes(ANN, pruners=["ann-id"], prune=False).shown), pruners=["ann-id"])
    )


def test_who_may_prune_may_not_confirm_what_the_rails_forbid() -> None:
    made = a_plan(ANN, pruners=["ann-id"], removal_budget=0)
    assert held(made).reason is Reason.PRUNE_BUDGET_EXCEEDED


def test_sp_07_a_plan_saved_by_who_may_prune_is_another_for_who_may_not() -> None:
    by_ann = a_plan(ANN, pruners=["ann-id"])
    document = plan_file.to_json(by_ann, "2026-11-03T10:00:00+00:00")
    assert plan_file.differences(document, a_plan(ANN, pruners=["ann-id"])) == ()
    assert plan_file.differences(document, a_plan(CI, pruners=["ann-id"])) == (
        "step stop gone is gone",
        "held gone is new",
    )


# ── two rights ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("givers", "gate", "stopped"), [((ANN,), False, False), ((MALLORY,), True, True), ((ANN, MALLORY), False, True)]
)
def test_the_right_to_approve_and_the_right_to_prune_are_two(
    givers: tuple[Person, ...], gate: bool, stopped: bool
) -> None:
    policy = {"apply": "manual", "approvers": ["ann-id"], "pruners": ["mallory-id"]}
    made = a_plan(CI, *(yes(by, **policy) for by in givers), **policy)
    assert (made.gate is not None, stops(made)) == (gate, stopped)


@pytest.mark.parametrize(
    ("by", "may"), [(ANN, True), (CI, True), (MALLORY, False), (NOBODY, False), (Person("", "ann-id"), True)]
)
def test_a_plan_that_waits_is_approved_by_an_approver_or_with_our_own_token(by: Person, may: bool) -> None:
    policy = {"apply": "manual", "approvers": ["ann-id"]}
    assert (a_plan(CI, yes(by, **policy), **policy).gate is None) is may


# ── the trust anchor ───────────────────────────────────────────────────────────────────────────────────────────────


def test_attack_a_push_that_names_its_author_approver_and_pruner_changes_nothing() -> None:
    """The push names mallory, asks for no window, and lets an app go; mallory approves it."""
    pushed = {"apply": "manual", "approvers": ["mallory-id", "ann-id"], "pruners": ["mallory-id", "ci-id"]}
    anchor = Anchor(approvers=("ann-id",), pruners=("ann-id",))
    said = yes(MALLORY, anchor, **pushed)
    made = a_plan(CI, said, anchor=anchor, **pushed)
    assert made.gate and made.gate.reason is Reason.APPROVAL_REQUIRED
    assert not stops(made) and held(made).reason is Reason.PRUNE_NOT_PERMITTED
    (note,) = made.notes
    assert "mallory-id (policy.approvers), ci-id (policy.pruners), mallory-id (policy.pruners)" in note
    assert "ann-id" not in note
    without = a_plan(CI, said, **pushed)
    assert without.gate is None and stops(without), "the attack works when nobody is named outside"


@pytest.mark.parametrize("pushed", [None, []])
def test_attack_a_push_that_takes_the_list_away_gives_nobody_the_right(pushed: list[str] | None) -> None:
    assert not stops(a_plan(MALLORY, anchor=Anchor(pruners=("ann-id",)), pruners=pushed))
    assert stops(a_plan(ANN, anchor=Anchor(pruners=("ann-id",)), pruners=pushed))


def test_an_anchor_for_one_right_leaves_the_other_to_cluster_yaml() -> None:
    desired, _ = a_fleet(approvers=["ann-id"], pruners=["bob-id"])
    policy = anchored(desired, Anchor(pruners=())).cluster.policy
    assert (policy.approvers, policy.pruners) == (["ann-id"], [])
    assert anchored(desired, Anchor()) is desired
