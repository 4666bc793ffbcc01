"""Apps that somebody rolled back: until git asks for something else, they run what an older commit asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reconciler.planning.desired import DesiredApp, DesiredState
from reconciler.planning.live import LiveState
from reconciler.planning.memory import Order, OrderKind


def pins(desired: DesiredState, live: LiveState) -> Mapping[str, Order]:
    """App id → the pin that holds. One is over when git wants something else than it did, or the app no more."""
    orders = live.remembered.orders if live.remembered else ()
    return {order.subject: order for order in orders if order.kind is OrderKind.PIN and holds(order, desired)}


def holds(pin: Order, desired: DesiredState) -> bool:
    """Whether git wants of the app what it wanted when the pin was given."""
    wanted = desired.apps.get(pin.subject)
    return wanted is not None and wanted.spec.digest() == pin.digest


def is_over(pin: Order, desired: DesiredState, live: LiveState) -> bool:
    """For good: it must not hold again when git comes back to what it wanted. What git wants has the name of the
    workspace in it, and of an app that is broken it is not known."""
    return live.complete and pin.subject not in desired.broken and not holds(pin, desired)


def pinned(desired: DesiredState, older: Mapping[str, DesiredState]) -> DesiredState:
    """With each app of `older` running what that state has. Where it has no such app, or a broken one, nothing
    changes."""
    back = {
        app_id: _gone_back(desired.apps[app_id], then.apps[app_id])
        for app_id, then in older.items()
        if app_id in then.apps
    }
    return replace(desired, apps={**desired.apps, **back}) if back else desired


def _gone_back(now: DesiredApp, then: DesiredApp) -> DesiredApp:
    """What runs is of then. How it is handled (left alone, healed, after which others) is said now: a rollback takes
    back what somebody deployed, not what people wrote since about touching it."""
    origin = then.provenance.model_copy(update={"owner": now.provenance.owner})
    return replace(now, spec=then.spec, secrets=then.secrets, code=then.code, provenance=origin)
