"""What an approval says of a plan that has no steps: it can only mean what the plan reports and holds back.

Law: a plan with steps is approved for those alone, so nobody who lets an app be deployed has undone a change by hand,
or confirmed removals, without having been asked that. The id pins what is meant: it is the same before and after the
yes, and another one as soon as anything else runs or is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bioengine_runtime.contract.cluster import Policy
from reconciler.planning.live import LiveState
from reconciler.planning.rights import by_itself, is_approved, may_confirm
from reconciler.planning.steps import Held, Plan, Reason

GUARDED = frozenset({Reason.PRUNE_BUDGET_EXCEEDED, Reason.SOURCE_EMPTY, Reason.HISTORY_REWRITTEN})
"""Removals that wait for a person's word."""


@dataclass(frozen=True, slots=True)
class Yes:
    """What people said yes to, of what a plan holds: to undo changes by hand, and to so many removals."""

    undo: bool = False
    removals: int = 0


NO = Yes()


def said_of(plan: Plan, policy: Policy, live: LiveState) -> Yes:
    """Of a plan that has its id."""
    if plan.steps:
        return NO
    removals = len(guarded(plan))
    return Yes(
        undo=any(_is_told(held) for held in plan.held) and is_approved(plan, policy, live),
        removals=removals if removals and may_confirm(plan, policy, live) else 0,
    )


def guarded(plan: Plan) -> tuple[Held, ...]:
    """Removals that are held until somebody confirms them."""
    return tuple(held for held in plan.held if held.reason in GUARDED)


def offered(plan: Plan) -> Plan:
    """With the way to say yes, where there is one."""
    if plan.steps or plan.since or not by_itself(plan.options):
        return plan
    return replace(plan, held=tuple(_with_way(held, plan.id) for held in plan.held))


def says_something(plan: Plan) -> bool:
    """Whether approving it would have anything done."""
    return bool(plan.steps) or any(
        _is_told(held) or held.reason in GUARDED | {Reason.PRUNE_NOT_PERMITTED} for held in plan.held
    )


def _is_told(held: Held) -> bool:
    return held.reason is Reason.SELF_HEAL_DISABLED


def _with_way(held: Held, plan_id: str) -> Held:
    if not _is_told(held) and held.reason not in GUARDED:
        return held
    return replace(held, fix=f"{held.fix}, or reconcile approve {plan_id}")
