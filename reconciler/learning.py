"""How long deployments take, learned from those that came up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from reconciler.planning.live import LiveState
from reconciler.planning.memory import Remembered
from reconciler.planning.steps import Outcome, Plan, Result, StopApp

KEPT = 5
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


def stopped(outcomes: Iterable[Outcome], plan: Plan) -> frozenset[str]:
    """Apps that were stopped because git no longer names them: should it name them again, they are new."""
    done = {outcome.address for outcome in outcomes if outcome.result is Result.DONE}
    return frozenset(step.verb.app_id for step in plan.steps if isinstance(step.verb, StopApp) and step.address in done)


def with_seconds(remembered: Remembered, took: Mapping[str, float], gone: Collection[str] = ()) -> Remembered:
    """The newest of each app, newest last; nothing of those that are gone."""
    known = {app_id: seconds for app_id, seconds in remembered.seconds.items() if app_id not in gone}
    return replace(remembered, seconds={**known, **{app: (*known.get(app, ()), s)[-KEPT:] for app, s in took.items()}})
