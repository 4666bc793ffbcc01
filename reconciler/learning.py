"""What a pass learns: how long deployments take, which apps are gone, which pins are over, and whose history it is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from reconciler.planning.approving import GUARDED
from reconciler.planning.desired import DesiredState
from reconciler.planning.live import LiveState
from reconciler.planning.memory import Order, OrderKind, Remembered
from reconciler.planning.pins import is_over
from reconciler.planning.source import SourceTree
from reconciler.planning.steps import Outcome, Plan, Reason, Result, StopApp

KEPT = 5
REMOVALS = GUARDED | {Reason.PRUNE_DISABLED}
"""Why apps that git no longer names go on."""
LONGEST_S = 3600.0
"""What seems to have taken longer was something else: an old version that was started again, or a wrong clock."""


def came_up(before: Mapping[str, Any], live: LiveState) -> Mapping[str, float]:
    """App id → seconds from when the runtime accepted it until now, of each app that was on its way in the report
    `before` and is up. As exact as the time between two looks."""
    on_their_way = {app["id"] for app in before.get("apps", ()) if app["health"] == "Progressing"}
    took = {
        app.app_id: live.observed_at - app.last_updated_at
        for app in live.apps.values()
        if app.app_id in on_their_way and app.status == "RUNNING" and not app.updating and app.last_updated_at
    }
    return {app_id: round(seconds, 1) for app_id, seconds in took.items() if 0 < seconds < LONGEST_S}


def gone(outcomes: Iterable[Outcome], plan: Plan, asked: DesiredState, live: LiveState) -> frozenset[str]:
    """Apps that git no longer names and that we stopped, or that are there no more: should git name them again, they
    are new."""
    done = {outcome.address for outcome in outcomes if outcome.result is Result.DONE}
    ours = {step.verb.app_id for step in plan.steps if isinstance(step.verb, StopApp) and step.address in done}
    known = live.remembered.seconds.keys() if live.remembered and live.complete else frozenset[str]()
    there = asked.apps.keys() | asked.broken.keys() | live.apps.keys() | live.unknown.keys()
    return frozenset(ours | (known - there))


def over(asked: DesiredState, live: LiveState) -> frozenset[Order]:
    """Pins that have ended, since git asks for something else."""
    orders = live.remembered.orders if live.remembered else ()
    return frozenset(order for order in orders if order.kind is OrderKind.PIN and is_over(order, asked, live))


def with_history(asked: DesiredState, tree: SourceTree, live: LiveState) -> DesiredState:
    """Says that history was rewritten as long as the commit that is remembered is not in it: also when a process was
    started since, or a further commit came."""
    before = live.remembered.commit if live.remembered else ""
    if not before:
        return asked
    return replace(asked, rewritten=before != tree.revision.commit and not tree.contains(before))


def carried_on(plan: Plan, desired: DesiredState, live: LiveState) -> bool:
    """Whether later commits may be held against this one: nothing is held back of what its history, if that is another
    one, would remove."""
    return live.complete and not (desired.rewritten and any(held.reason in REMOVALS for held in plan.held))


def learned(
    remembered: Remembered, took: Mapping[str, float], gone: Collection[str], over: Collection[Order]
) -> Remembered:
    """The newest seconds of each app, newest last; nothing of those that are gone; and no pins that are over."""
    known = {app_id: seconds for app_id, seconds in remembered.seconds.items() if app_id not in gone}
    seconds = {**known, **{app: (*known.get(app, ()), s)[-KEPT:] for app, s in took.items()}}
    return replace(remembered, seconds=seconds, orders=tuple(one for one in remembered.orders if one not in over))
