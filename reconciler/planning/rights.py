"""Who may say yes to a plan, and who to the removals in it: two rights, of people whom cluster.yaml names, or whom
somebody named outside the repository, and then only of those.

Law: a yes counts while who said it has the right; who is not known has none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from bioengine_runtime.contract.cluster import Policy
from reconciler.planning.desired import DesiredState
from reconciler.planning.live import LiveState
from reconciler.planning.marks import Mark, is_marked, mark_of
from reconciler.planning.memory import OrderKind
from reconciler.planning.people import Anchor, Person
from reconciler.planning.shown import listed
from reconciler.planning.steps import Action, Held, Plan, PlanOptions, Reason, Step, StopApp


def anchored(desired: DesiredState, anchor: Anchor) -> DesiredState:
    """With the people of the anchor in the place of those of cluster.yaml: who may push cannot name himself."""
    policy = desired.cluster.policy
    said = {"approvers": anchor.approvers, "pruners": anchor.pruners}
    counts = {right: list(people) for right, people in said.items() if people is not None}
    if not counts:
        return desired
    named = {(right, one) for right in counts for one in getattr(policy, right) or ()}
    strangers = tuple(f"{one} (policy.{right})" for right, one in sorted(named) if one not in counts[right])
    cluster = desired.cluster.model_copy(update={"policy": policy.model_copy(update=counts)})
    return replace(desired, cluster=cluster, strangers=strangers)


def approved(policy: Policy, live: LiveState) -> frozenset[Mark]:
    """What approvers said yes to; so may whoever has the reconciler's own token."""
    return _said_yes({*policy.approvers, *live.ourselves.names}, live)


def permitted_removals(policy: Policy, live: LiveState) -> frozenset[Mark]:
    """What was said yes to by people who may also have apps stopped."""
    return approved(policy, live) if policy.pruners is None else _said_yes(policy.pruners, live)


def is_approved(plan: Plan, policy: Policy, live: LiveState) -> bool:
    """Whether approvers let all of it be carried out."""
    marks = approved(policy, live)
    changes = [step for step in plan.steps if mark_of(step, plan.revision)] if marks else []
    return bool(changes) and all(is_marked(step, plan.revision, marks) for step in changes)


def permitted(plan: Plan, policy: Policy, live: LiveState) -> Plan:
    """The plan, each of its removals held unless we may prune, or somebody who may has approved it. Its id is the same
    either way, because that is what they approve."""
    pruners = policy.pruners
    if pruners is None or live.ourselves.is_one_of(pruners):
        return plan
    marks = permitted_removals(policy, live)
    refused = [
        step for step in plan.steps if isinstance(step.verb, StopApp) and not is_marked(step, plan.revision, marks)
    ]
    others = [step for step in plan.steps if step not in refused]
    held = (*plan.held, *(_not_permitted(step, plan, pruners, live.ourselves) for step in refused))
    return replace(plan, steps=tuple(others), held=tuple(sorted(held, key=lambda one: one.app_id)))


def _said_yes(names: Collection[str], live: LiveState) -> frozenset[Mark]:
    orders = live.remembered.orders if live.remembered else ()
    return frozenset(
        mark
        for order in orders
        if order.kind is OrderKind.APPROVE
        and (order.until is None or order.until > live.observed_at)
        and Person(order.by_id, order.by).is_one_of(names)
        for mark in order.shown
    )


def _not_permitted(step: Step, plan: Plan, pruners: Collection[str], ourselves: Person) -> Held:
    who = listed(sorted(pruners)) if pruners else "nobody"
    message = f"{ourselves.name} may not have apps stopped: that is for {who}"
    fix = f"one of them: {_ways(plan.options, plan.id)}" if pruners else "name somebody in policy.pruners, or --pruners"
    return Held(step.app_id or "", Reason.PRUNE_NOT_PERMITTED, message, fix, Action.STOP, step.changes, step.drift)


def _ways(options: PlanOptions, plan_id: str) -> str:
    apply = f"reconcile apply{options.typed}"
    return f"reconcile approve {plan_id}, or {apply}" if by_itself(options) else apply


def by_itself(options: PlanOptions) -> bool:
    """Whether the reconciler plans so unasked. Only that can be approved; what is asked for besides, is to be asked."""
    return not (options.targets or options.prune_confirmed or options.force)
