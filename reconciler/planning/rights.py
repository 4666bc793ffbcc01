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


def is_approved(plan: Plan, policy: Policy, live: LiveState) -> bool:
    """Whether an approver let it be carried out; so may whoever has the reconciler's own token."""
    return _said_yes(plan, {*policy.approvers, *live.ourselves.names}, live)


def permitted(plan: Plan, policy: Policy, live: LiveState) -> Plan:
    """The plan, its removals held unless we may prune, or somebody who may has approved it. Its id is the same either
    way, because that is what they approve."""
    pruners = policy.pruners
    if pruners is None or live.ourselves.is_one_of(pruners) or _said_yes(plan, pruners, live):
        return plan
    removals = [step for step in plan.steps if isinstance(step.verb, StopApp)]
    others = [step for step in plan.steps if not isinstance(step.verb, StopApp)]
    held = (*plan.held, *(_not_permitted(step, plan, pruners, live.ourselves) for step in removals))
    return replace(plan, steps=tuple(others), held=tuple(sorted(held, key=lambda one: one.app_id)))


def may_confirm(plan: Plan, policy: Policy, live: LiveState) -> bool:
    """Whether somebody approved it who may also have apps stopped."""
    pruners = policy.pruners
    return is_approved(plan, policy, live) if pruners is None else _said_yes(plan, pruners, live)


def _said_yes(plan: Plan, names: Collection[str], live: LiveState) -> bool:
    orders = live.remembered.orders if live.remembered else ()
    return any(
        (order.kind, order.subject) == (OrderKind.APPROVE, plan.id)
        and (order.until is None or order.until > live.observed_at)
        and Person(order.by_id, order.by).is_one_of(names)
        for order in orders
    )


def _not_permitted(step: Step, plan: Plan, pruners: Collection[str], ourselves: Person) -> Held:
    who = listed(sorted(pruners)) if pruners else "nobody"
    message = f"{ourselves.name} may not have apps stopped: that is for {who}"
    fix = f"one of them: {_ways(plan.options, plan.id)}" if pruners else "name somebody in policy.pruners, or --pruners"
    return Held(step.app_id or "", Reason.PRUNE_NOT_PERMITTED, message, fix, Action.STOP, step.changes, step.drift)


def _ways(options: PlanOptions, plan_id: str) -> str:
    return f"reconcile approve {plan_id}, or reconcile apply" if by_itself(options) else "reconcile apply"


def by_itself(options: PlanOptions) -> bool:
    """Whether the reconciler plans so unasked. Only that can be approved; what is asked for besides, is to be asked."""
    return not (options.targets or options.prune_confirmed or options.force)
