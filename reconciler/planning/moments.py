"""When something is known to change by itself: a window, a suspension, a token, an app that rested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bioengine_runtime.contract.cluster import Suspension
from reconciler.planning.credentials import SOON_S
from reconciler.planning.desired import DesiredState
from reconciler.planning.live import LiveState
from reconciler.planning.steps import Plan, Rest
from reconciler.planning.windows import next_edge


def next_moment(desired: DesiredState, live: LiveState, plan: Plan, resting: Mapping[str, Rest]) -> float | None:
    """Seconds from `live.observed_at` until the first of them; None when nothing is known to come."""
    now = live.observed_at
    coming = [at - now for at in _moments(desired, live, plan, resting) if at > now]
    edge = next_edge(desired.cluster.policy.windows, now)
    return min([*coming, edge] if edge is not None else coming, default=None)


def _moments(desired: DesiredState, live: LiveState, plan: Plan, resting: Mapping[str, Rest]) -> Iterator[float]:
    yield from (rest.until for rest in resting.values())
    for app in desired.apps.values():
        if isinstance(app.suspend, Suspension) and app.suspend.until is not None:
            yield app.suspend.until.timestamp()
    for order in live.remembered.orders if live.remembered else ():
        if order.until is not None:
            yield order.until
    for credential in plan.credentials:
        if credential.ends is not None:
            yield from (credential.ends - SOON_S, credential.ends)
