"""Who said that an app is to be left as it is: in git, or by an order. What has ended is no more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bioengine_runtime.contract.cluster import Suspension
from bioengine_runtime.contract.status import AppState
from reconciler.planning.desired import DesiredApp, DesiredState
from reconciler.planning.live import LiveState
from reconciler.planning.memory import Order, OrderKind
from reconciler.planning.shown import at, plain


@dataclass(frozen=True, slots=True)
class Suspended:
    """In words for people, and how to end it."""

    message: str
    fix: str


def suspended(
    app_id: str, wanted: DesiredApp | None, live: LiveState, revision: str, *, drift: bool = False
) -> Suspended | None:
    """None when it is not. `revision`: the commit that git is at, which an order may let through once, but for what is
    `drift`: that commit did not ask for it."""
    by_git = _said_in_git(wanted, live.observed_at) if wanted else None
    if by_git is not None:
        return Suspended(by_git, "remove `suspend`")
    order = _ordered(app_id, live)
    if order is None or (not drift and _let_through(order, live.apps.get(app_id), revision)):
        return None
    return Suspended(_words(order.reason, order.by, order.until, once=order.once), f"reconcile resume {app_id}")


def all_suspended(desired: DesiredState, live: LiveState) -> Iterator[tuple[str, str]]:
    """(app id, in words) of each, whether or not it differs."""
    for app_id in sorted({*desired.apps, *live.apps}):
        if found := suspended(app_id, desired.apps.get(app_id), live, desired.revision.id):
            yield app_id, found.message


def _said_in_git(wanted: DesiredApp, now: float) -> str | None:
    match wanted.suspend:
        case Suspension(reason=reason, owner=owner, until=until):
            ends = until.timestamp() if until else None
            return None if ends is not None and ends <= now else _words(reason, owner or "", ends)
        case str(reason):
            return _words(reason) if reason else None
        case meant:
            return _words() if meant else None


def _ordered(app_id: str, live: LiveState) -> Order | None:
    orders = live.remembered.orders if live.remembered else ()
    ours = [order for order in orders if (order.kind, order.subject) == (OrderKind.SUSPEND, app_id)]
    return next((order for order in ours if order.until is None or order.until > live.observed_at), None)


def _let_through(order: Order, running: AppState | None, revision: str) -> bool:
    """The first commit after the order, until something was deployed or tried since: that was the once."""
    if not order.once or order.revision == revision:
        return False
    times = (running.last_updated_at, running.rejected.at if running.rejected else None) if running else ()
    return all(moment is None or moment <= order.at for moment in times)


def _words(reason: str = "", owner: str = "", until: float | None = None, *, once: bool = False) -> str:
    said = f"suspended: {plain(reason)}" if reason else "suspended"
    who = f" ({plain(owner, 80)})" if owner else ""
    when = f", until {at(until)}" if until is not None else ""
    return f"{said}{who}{when}" + (", but for one commit" if once else "")
