"""DriftReport: where live stands against git, as one document for the status service.

`complete: false` means that some question got no answer; an app we know nothing about is Unknown, never Synced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from bioengine_runtime.contract.status import AppState, ServeStatus
from reconciler.planning.diff import WORKERS, failed_and_stays
from reconciler.planning.live import LiveState
from reconciler.planning.shown import at, listed, moment, plain
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
MESSAGE_LIMIT = 300
"""Characters of what the runtime says of an app that is as git wants it, and not well or not there yet."""

Sync = Literal["Synced", "OutOfSync", "Unknown"]
Health = Literal["Healthy", "Progressing", "Degraded", "Missing", "Unknown"]
Class = Literal["", "config", "code", "health", "credential", "missing", "orphan", "unknown"]
"""What sort of drift it is; "" when it is none: in sync, or on its way there by a commit."""

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
    if failed_and_stays(app):
        return "Degraded"
    return "Progressing" if app.updating else HEALTH[app.status]


def report(plan: Plan, live: LiveState, outcomes: Iterable[Outcome] = (), *, observed_at: str = "") -> dict[str, Any]:
    """The report of one pass: the plan, what was seen before it, and what became of its steps. A step that is done
    was accepted; whether its app is healthy is for the next look, so until then it is Progressing."""
    results = {outcome.address: outcome for outcome in outcomes}
    running, seen = live.apps, live.worker is not None
    back, left, ending = dict(plan.rolled_back), dict(plan.suspended), _ending(plan)

    def health_of(app_id: str) -> Health:
        return health(running.get(app_id), seen=seen)

    apps = [
        *(_app_of_step(step, app_id, health_of(app_id), results) for step, app_id in _steps_of_apps(plan)),
        *(_app_held(held, health_of(held.app_id)) for held in plan.held if held.app_id != WORKERS),
        *(
            _app_unchanged(
                app_id,
                health_of(app_id),
                running.get(app_id),
                back=back.get(app_id, ""),
                left=left.get(app_id, ""),
                ending=ending.get(app_id, ""),
            )
            for app_id in plan.unchanged
        ),
    ]
    return {
        "schema": SCHEMA,
        "target": plan.cluster,
        "observed_at": observed_at,
        "revision": plan.revision.short,
        "commit": plan.revision.id,
        "source_away": plan.revision.away,
        "plan_id": plan.id,
        "gate": _gate(plan) if not results else None,
        "complete": not plan.unseen,
        "unseen": [{"what": unseen.what, "why": unseen.why} for unseen in plan.unseen],
        "apps": [{**app, **_origin(app, running.get(app["id"]))} for app in sorted(apps, key=lambda app: app["id"])],
        "orphans": list(_orphans(plan, live)),
        "credentials": [{"id": one.app_id, "name": one.name, "ends": _iso(one.ends)} for one in plan.credentials],
        "workers": _workers(plan, results),
        "notes": list(plan.notes),
    }


def _gate(plan: Plan) -> dict[str, str] | None:
    gate = plan.gate
    return {"reason": gate.reason.value, "message": gate.message, "fix": gate.fix} if gate else None


def _origin(app: Mapping[str, Any], running: AppState | None) -> dict[str, str]:
    """Since when, and by whom it was changed, of what nobody asked for in git."""
    by = running.provenance.by if running and running.provenance else None
    if running is None or not app["class"]:
        return {"since": "", "actor": ""}
    return {"since": _iso(running.last_updated_at) if by else "", "actor": by or ""}


def _orphans(plan: Plan, live: LiveState) -> Iterator[dict[str, Any]]:
    """Apps that run here, and are neither ours nor named by git. They are told, and left alone."""
    for app_id in plan.orphans:
        app = live.apps[app_id]
        owner = app.provenance.owner if app.provenance else ""
        actor = (app.provenance.by if app.provenance else None) or ""
        since = _iso(app.started_at)
        yield {"id": app_id, "class": "orphan", "health": health(app), "owner": owner, "since": since, "actor": actor}


def _iso(seconds: float | None) -> str:
    return moment(seconds).isoformat(timespec="seconds") if seconds else ""


def _steps_of_apps(plan: Plan) -> Iterator[tuple[Step, str]]:
    for step in plan.steps:
        if step.app_id and isinstance(step.verb, DeployApp | UpdateApp | StopApp):
            yield step, step.app_id


def _app_of_step(step: Step, app_id: str, now: Health, results: Mapping[str, Outcome]) -> dict[str, Any]:
    outcome = results.get(step.address)
    sort = _class_of(step.changes, created=isinstance(step.verb, DeployApp)) if step.drift else ""
    if outcome is None:
        return _app(app_id, "OutOfSync", now, "Drifted" if step.drift else "Changed", step.why, sort, step.changes)
    message = outcome.message or step.why
    if outcome.result is Result.WAITING:
        coming: Health = "Progressing" if now == "Missing" else now
        return _app(app_id, "OutOfSync", coming, Reason.UPDATING.value, message, sort, step.changes)
    if outcome.result is not Result.DONE:
        return _app(app_id, "OutOfSync", now, outcome.result.value.capitalize(), message, sort, step.changes)
    after: Health = "Missing" if isinstance(step.verb, StopApp) else "Progressing"
    return _app(app_id, "Synced", after, "Applied", message, sort, step.changes)


def _app_held(held: Held, now: Health) -> dict[str, Any]:
    unknown = held.reason in _NOT_KNOWN and held.action is Action.UNKNOWN
    # What is taken as meant is as it should be; what it is stays to be read.
    sync: Sync = "Unknown" if unknown else "Synced" if held.reason is Reason.DRIFT_ACCEPTED else "OutOfSync"
    return _app(held.app_id, sync, now, held.reason.value, held.message, _class_held(held), held.changes)


def _ending(plan: Plan) -> Mapping[str, str]:
    """App id → which of its tokens end soon."""
    ending: dict[str, list[str]] = {}
    for one in plan.credentials:
        if one.ends is not None:
            ending.setdefault(one.app_id, []).append(f"{one.name} ends {at(one.ends)}")
    return {app_id: f"{listed(said)}; give it a new value" for app_id, said in ending.items()}


def _app_unchanged(
    app_id: str, now: Health, running: AppState | None, *, back: str, left: str, ending: str
) -> dict[str, Any]:
    """Rolled back (`back`), suspended (`left`), or with a token that ends: each in words, "" when it is not so."""
    sort: Class = "health" if now == "Degraded" else "unknown" if now == "Unknown" else ""
    if back:
        return _app(app_id, "OutOfSync", now, Reason.ROLLED_BACK.value, _together(back, left), sort)
    if ending and not sort:
        return _app(app_id, "Synced", now, CREDENTIAL_EXPIRING, _together(ending, left), "credential")
    says = plain(running.message, MESSAGE_LIMIT) if running and now in ("Progressing", "Degraded") else ""
    return _app(app_id, "Synced", now, Reason.SUSPENDED.value if left else "", _together(says, left), sort)


def _together(*said: str) -> str:
    return "; ".join(one for one in said if one)


def _class_held(held: Held) -> Class:
    if held.action is Action.UNKNOWN:
        return "unknown" if held.reason is Reason.LIVE_STATE_UNKNOWN else ""
    if held.action is Action.STOP:
        return "orphan"
    if held.drift and held.reason is not Reason.DRIFT_ACCEPTED:
        return _class_of(held.changes, created=held.action is Action.CREATE)
    return ""


def _class_of(changes: tuple[Change, ...], *, created: bool) -> Class:
    if created:
        return "missing"
    if any(change.field in _CODE or change.field.startswith("replica ") for change in changes):
        return "code"
    return "credential" if changes and all(change.after.startswith("(secret") for change in changes) else "config"


CREDENTIAL_EXPIRING = "CredentialExpiring"
_CODE = frozenset({"artifact_id", "version", "files"})


def _app(
    app_id: str,
    sync: Sync,
    now: Health,
    reason: str = "",
    message: str = "",
    sort: Class = "",
    changes: tuple[Change, ...] = (),
) -> dict[str, Any]:
    return {
        "id": app_id,
        "sync": sync,
        "health": now,
        "class": sort,
        "reason": reason,
        "message": message,
        "changes": _changes(changes),
    }


def _changes(changes: tuple[Change, ...]) -> list[dict[str, str]]:
    return [
        {"field": change.field, "path": change.path, "live": change.before, "desired": change.after}
        for change in changes
    ]


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
