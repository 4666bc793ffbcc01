"""Which pins were followed, and which could not be because their commit could not be read."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.planning.desired import DesiredState
from reconciler.planning.live import LiveState
from reconciler.planning.memory import Order, OrderKind
from reconciler.planning.pins import pins


def gone_back(desired: DesiredState, live: LiveState) -> Mapping[str, Order]:
    """App id → the pin by which it is wanted as an older commit has it."""
    orders = live.remembered.orders if live.remembered else ()
    return {
        order.subject: order
        for order in orders
        if order.kind is OrderKind.PIN
        and order.revision != desired.revision.id
        and order.subject in desired.apps
        and desired.apps[order.subject].provenance.commit == order.revision
    }


def not_read(desired: DesiredState, live: LiveState) -> Mapping[str, Order]:
    """App id → the pin that holds, while the app is still wanted as the newest commit has it."""
    back = gone_back(desired, live)
    return {app_id: pin for app_id, pin in pins(desired, live).items() if app_id not in back}
