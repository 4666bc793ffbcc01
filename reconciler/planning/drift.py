"""DriftReport: where live stands against git, as one document for the status service.

`complete: false` means that some question got no answer; an app we know nothing about is Unknown, never Synced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from bioengine_runtime.contract.status import AppState, ServeStatus
from reconciler.planning.diff import WORKERS
from reconciler.planning.live import LiveState
from reconciler.planning.steps import (
    Action,
    Change,
    DeployApp,
    Held,
    Outcome,
    Plan,
    Reason,
    Result,
    ScaleWorkers,
    Step,
    StopApp,
    UpdateApp,
)

SCHEMA = "reconcile.drift/v1"

Sync = Literal["Synced", "OutOfSync", "Unknown"]
Health = Literal["Healthy", "Progressing", "Degraded", "Missing", "Unknown"]

HEALTH: Mapping[ServeStatus, Health] = {
    "NOT_STARTED": "Progressing",
    "DEPLOYING": "Progressing",
    "DEPLOY_FAILED": "Degraded",
    "RUNNING": "Healthy",
    "UNHEALTHY": "Degraded",
    "DELETING": "Progressing",
}
_NOT_KNOWN = frozenset({Reason.LIVE_STATE_UNKNOWN, Reason.INVALID_DECLARATION})


def health(app: AppState | None, *, seen: bool = True) -> Health:
    """How an app is, whatever git says of it."""
    if app is None:
        return "Missing" if seen else "Unknown"
    return "Progressing" if app.updating else HEALTH[app.status]


def report(plan: Plan, live: LiveState, outcomes: Iterable[Outcome] = (), *, observed_at: str = "") -> dict[str, Any]:
    """The report of one pass: the plan, what was seen before it, and what became of its steps. A step that is done
    was accepted; whether its app is healthy is for the next look, so until then it is Progressing."""
    results = {outcome.address: outcome for outcome in outcomes}
    running, seen = live.apps, live.worker is not None

    def health_of(app_id: str) -> Health:
        return health(running.get(app_id), seen=seen)

    apps = [
        *(_app_of_step(step, app_id, health_of(app_id), results) for step, app_id in _steps_of_apps(plan)),
        *(_app_held(held, health_of(held.app_id)) for held in plan.held if held.app_id != WORKERS),
        *(_app(app_id, "Synced", health_of(app_id)) for app_id in plan.unchanged),
    ]
    return {
        "schema": SCHEMA,
        "target": plan.cluster,
        "observed_at": observed_at,
        "revision": plan.revision.short,
        "commit": plan.revision.id,
        "complete": not plan.unseen,
        "unseen": [{"what": unseen.what, "why": unseen.why} for unseen in plan.unseen],
        "apps": sorted(apps, key=lambda app: app["id"]),
        "workers": _workers(plan, results),
        "notes": list(plan.notes),
    }


def _steps_of_apps(plan: Plan) -> Iterator[tuple[Step, str]]:
    for step in plan.steps:
        if step.app_id and isinstance(step.verb, DeployApp | UpdateApp | StopApp):
            yield step, step.app_id


def _app_of_step(step: Step, app_id: str, now: Health, results: Mapping[str, Outcome]) -> dict[str, Any]:
    outcome = results.get(step.address)
    changes = _changes(step.changes)
    if outcome is None:
        return _app(app_id, "OutOfSync", now, "Drifted" if step.drift else "Changed", step.why, changes)
    message = outcome.message or step.why
    if outcome.result is not Result.DONE:
        return _app(app_id, "OutOfSync", now, outcome.result.value.capitalize(), message, changes)
    after: Health = "Missing" if isinstance(step.verb, StopApp) else "Progressing"
    return _app(app_id, "Synced", after, "Applied", message, changes)


def _app_held(held: Held, now: Health) -> dict[str, Any]:
    sync: Sync = "Unknown" if held.reason in _NOT_KNOWN and held.action is Action.UNKNOWN else "OutOfSync"
    return _app(held.app_id, sync, now, held.reason.value, held.message, _changes(held.changes))


def _app(
    app_id: str,
    sync: Sync,
    now: Health,
    reason: str = "",
    message: str = "",
    changes: list[dict[str, str]] | None = None,
) -> dict[str, Any]:
    return {
        "id": app_id,
        "sync": sync,
        "health": now,
        "reason": reason,
        "message": message,
        "changes": changes or [],
    }


def _changes(changes: tuple[Change, ...]) -> list[dict[str, str]]:
    return [{"field": change.field, "live": change.before, "desired": change.after} for change in changes]


def _workers(plan: Plan, results: Mapping[str, Outcome]) -> dict[str, Any] | None:
    for step in plan.steps:
        if isinstance(step.verb, ScaleWorkers):
            outcome = results.get(step.address)
            done = outcome is not None and outcome.result is Result.DONE
            return {"sync": "Synced" if done else "OutOfSync", "reason": "", "changes": _changes(step.changes)}
    held = next((held for held in plan.held if held.app_id == WORKERS), None)
    if held is None:
        return None
    sync: Sync = "Unknown" if held.action is Action.UNKNOWN else "OutOfSync"
    return {"sync": sync, "reason": held.reason.value, "changes": _changes(held.changes)}
