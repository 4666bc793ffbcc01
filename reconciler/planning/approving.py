"""What an approval of a plan says yes to: its steps; and of one that has none, what it reports and holds back.

Law: a plan with steps is approved for those alone, so nobody who lets an app be deployed has undone a change by hand,
or confirmed removals, without having been asked that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.planning.agreed import WAITS
from reconciler.planning.desired import DesiredState
from reconciler.planning.live import LiveState
from reconciler.planning.marks import Mark, mark_of, mark_of_held
from reconciler.planning.rights import approved, by_itself, permitted_removals
from reconciler.planning.steps import Held, Plan, Reason

GUARDED = frozenset({Reason.PRUNE_BUDGET_EXCEEDED, Reason.SOURCE_EMPTY, Reason.HISTORY_REWRITTEN})
"""Removals that wait for a person's word."""


@dataclass(frozen=True, slots=True)
class Yes:
    """What people said yes to, of what a plan holds: to undo changes of these apps by hand, and to so many removals."""

    undo: frozenset[str] = frozenset()
    removals: int = 0


NO = Yes()


def shown(plan: Plan, desired: DesiredState, live: LiveState) -> tuple[Mark, ...]:
    """What an approval keeps: a mark of all that who gives it was asked."""
    marks = {mark_of(step, plan.revision) for step in plan.steps}
    marks |= {mark_of_held(held, plan.revision, desired, live) for held in plan.held if _is_asked(held, plan)}
    return tuple(sorted(mark for mark in marks if mark))


def said_of(plan: Plan, desired: DesiredState, live: LiveState) -> Yes:
    """What was said yes to, of what it holds. Removals are confirmed together, as they are held."""
    policy = desired.cluster.policy

    def among(held: Held, marks: frozenset[Mark]) -> bool:
        return mark_of_held(held, plan.revision, desired, live) in marks

    may_undo, may_stop, removals = approved(policy, live), permitted_removals(policy, live), guarded(plan)
    return Yes(
        undo=frozenset(held.app_id for held in plan.held if _is_told(held) and among(held, may_undo)),
        removals=len(removals) if all(among(held, may_stop) for held in removals) else 0,
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


def _is_asked(held: Held, plan: Plan) -> bool:
    """What is only told, and what waits for a person's word, is meant where there is nothing else to mean."""
    if held.reason in WAITS:
        return not held.drift
    alone = not plan.steps and (_is_told(held) or held.reason in GUARDED)
    return alone or held.reason in (Reason.APPROVAL_REQUIRED, Reason.PRUNE_NOT_PERMITTED)


def _is_told(held: Held) -> bool:
    return held.reason is Reason.SELF_HEAL_DISABLED


def _with_way(held: Held, plan_id: str) -> Held:
    if not _is_told(held) and held.reason not in GUARDED:
        return held
    return replace(held, fix=f"{held.fix}, or reconcile approve {plan_id}")
