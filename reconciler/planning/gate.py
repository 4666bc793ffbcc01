"""What a whole plan waits for, when the reconciler runs by itself: somebody's approval, or an open window.

A plan that somebody approved waits for no window; a plan without steps waits for nothing, so that drift is reported at
any time.
"""

from __future__ import annotations

from bioengine_runtime.contract.cluster import Policy
from reconciler.planning.live import LiveState
from reconciler.planning.memory import OrderKind
from reconciler.planning.steps import Gate, Plan, Reason
from reconciler.planning.windows import is_open, next_opening


def gate_of(plan: Plan, policy: Policy, live: LiveState) -> Gate | None:
    """None when it may be carried out now."""
    if not plan.steps or _approved(plan, live):
        return None
    fix = f"reconcile approve {plan.id}"
    if policy.apply == "manual":
        return Gate(Reason.APPROVAL_REQUIRED, f"policy.apply is manual, and nobody approved plan {plan.id} yet", fix)
    if is_open(policy.windows, live.observed_at):
        return None
    opening = next_opening(policy.windows, live.observed_at)
    when = f"; the next one opens {opening:%Y-%m-%d %H:%M %Z}" if opening else ""
    return Gate(Reason.WINDOW_CLOSED, f"no maintenance window is open{when}", f"wait, or {fix}")


def _approved(plan: Plan, live: LiveState) -> bool:
    orders = live.remembered.orders if live.remembered else ()
    return any(
        (order.kind, order.subject) == (OrderKind.APPROVE, plan.id)
        and (order.until is None or order.until > live.observed_at)
        for order in orders
    )
