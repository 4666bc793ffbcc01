"""What has come about since the look, and speaks against a step that was right then."""

from __future__ import annotations

from dataclasses import replace

from bioengine_runtime.contract.cluster import Policy
from reconciler.planning.gate import gate_of
from reconciler.planning.live import LiveState
from reconciler.planning.memory import NOTHING, Order, Remembered
from reconciler.planning.rights import is_approved
from reconciler.planning.shown import plain
from reconciler.planning.steps import Plan, Step


def ordered_otherwise(step: Step, live: LiveState, remembered: Remembered) -> str:
    """What somebody ordered of the step's app since; "" when nobody did. `live`: as of the look."""
    before, now = _orders(step, live.remembered or NOTHING), _orders(step, remembered)
    new = next((order for order in now if order not in before), None)
    if new:
        return f"{plain(new.by, 80)} ordered meanwhile: {new.kind}; planned anew for it"
    return "" if now == before else "an order for it was taken back meanwhile; planned anew"


def closed(plan: Plan, policy: Policy, live: LiveState, now: float) -> str:
    """The gate that has closed, in a sentence. A plan that was approved at the look is so until it is done."""
    if is_approved(plan, policy, live):
        return ""
    gate = gate_of(plan, policy, replace(live, observed_at=now))
    return gate.message if gate else ""


def _orders(step: Step, remembered: Remembered) -> frozenset[Order]:
    return frozenset(order for order in remembered.orders if order.subject == step.app_id)
