"""What a whole plan waits for, when the reconciler runs by itself: somebody's approval, or an open window.

What somebody approved waits for no window, and not for what has come up beside it since; a plan without steps waits
for nothing, so that drift is reported at any time.
"""

from __future__ import annotations

from dataclasses import replace

from bioengine_runtime.contract.cluster import Policy
from reconciler.planning.agreed import only
from reconciler.planning.live import LiveState
from reconciler.planning.marks import is_marked
from reconciler.planning.rights import approved, by_itself, is_approved
from reconciler.planning.steps import Gate, Plan, Reason
from reconciler.planning.windows import is_open, next_opening


def gated(plan: Plan, policy: Policy, live: LiveState) -> Plan:
    """The plan at its gate, if there is one; or else what was approved of it, the rest held."""
    gate = gate_of(plan, policy, live)
    if gate is None:
        return plan
    marks = approved(policy, live)
    part = only(plan, lambda step: is_marked(step, plan.revision, marks), gate.fix)
    return part if part.steps else replace(plan, gate=gate)


def gate_of(plan: Plan, policy: Policy, live: LiveState) -> Gate | None:
    """None when it may be carried out now."""
    if not plan.steps or is_approved(plan, policy, live):
        return None
    fix = f"reconcile approve {plan.id}"
    if not by_itself(plan.options):
        fix = f"say yes to it at a terminal: reconcile apply{plan.options.typed}"
    if policy.apply == "manual":
        message = f"policy.apply is manual, and no approver approved plan {plan.id} yet"
        return Gate(Reason.APPROVAL_REQUIRED, message, fix)
    if is_open(policy.windows, live.observed_at):
        return None
    opening = next_opening(policy.windows, live.observed_at)
    when = f"; the next one opens {opening:%Y-%m-%d %H:%M %Z}" if opening else ""
    return Gate(Reason.WINDOW_CLOSED, f"no maintenance window is open{when}", f"wait, or {fix}")
