"""How long deployments take, learned from those that came up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reconciler.planning.live import LiveState
from reconciler.planning.memory import Remembered

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


def with_seconds(remembered: Remembered, took: Mapping[str, float]) -> Remembered:
    """The newest of each app, newest last."""
    known = remembered.seconds
    return replace(remembered, seconds={**known, **{app: (*known.get(app, ()), s)[-KEPT:] for app, s in took.items()}})
