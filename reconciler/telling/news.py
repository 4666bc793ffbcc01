"""What is new since the last pass, as values: nobody wants to be told every minute that all is as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from reconciler.planning.conditions import Type
from reconciler.planning.plan_file import KINDS
from reconciler.planning.shown import plain
from reconciler.planning.steps import DeployApp, Reason, Result, StopApp, UpdateApp
from reconciler.reconcile import Pass
from reconciler.telling.forges import State

TEXT_LIMIT = 300
AT_MOST = 100
"""Pieces of news in one notification; the rest is counted."""

Kind = Literal["applied", "failed", "recovered", "drift"]


@dataclass(frozen=True, slots=True)
class News:
    """One thing that is new. `app_id` is "" for what concerns all."""

    kind: Kind
    app_id: str
    reason: str
    message: str

    def document(self) -> dict[str, str]:
        return {"kind": self.kind, "app": self.app_id, "reason": self.reason, "message": self.message}


@dataclass(frozen=True, slots=True)
class Standing:
    """What is wrong and what drifted, by app id, with the reason."""

    failing: Mapping[str, str] = field(default_factory=dict[str, str])
    drifted: Mapping[str, str] = field(default_factory=dict[str, str])


def after(before: Standing, done: Pass) -> tuple[Standing, tuple[News, ...]]:
    """How things stand after a pass, and what of it is new. What was not seen stays as it was, and what is being
    mended, or is tried again later, fails until it is well."""
    apps = {app["id"]: app for app in done.report["apps"]}
    causes = _causes(done)
    failing = {app_id: _why(app) for app_id, app in apps.items() if app_id in causes or _fails(app)}
    drifted = {app_id: str(app["class"]) for app_id, app in apps.items() if app["class"] in _DRIFT}
    for app_id, app in apps.items():
        unknown = app["sync"] == "Unknown" or app["health"] == "Unknown"
        if unknown or app["reason"] in (Reason.UPDATING, Reason.BACKING_OFF):
            failing.update({app_id: before.failing[app_id]} if app_id in before.failing else {})
        if unknown:
            drifted.update({app_id: before.drifted[app_id]} if app_id in before.drifted else {})
    now = Standing(failing, drifted)
    return now, tuple(_news(before, now, done, apps, causes))


def after_trouble(before: Standing, error: Exception) -> tuple[Standing, tuple[News, ...]]:
    """How things stand when a pass was stopped. Apps stay as they were: nobody looked."""
    reason = type(error).__name__
    now = Standing({**before.failing, "": reason}, before.drifted)
    if before.failing.get("") == reason:
        return now, ()
    return now, (News("failed", "", reason, plain(str(error), TEXT_LIMIT)),)


def standing_of(report: Mapping[str, Any]) -> tuple[State, str]:
    """A report in one word and a line, for a mark beside a commit."""
    conditions = {one["type"]: one for one in report["conditions"]}
    ready, stalled = conditions[Type.READY], conditions[Type.STALLED]
    if stalled["status"] == "True" or conditions[Type.HEALTHY]["status"] == "False":
        worst = stalled if stalled["status"] == "True" else conditions[Type.HEALTHY]
        moving = conditions[Type.RECONCILING]["status"] == "True" and stalled["status"] != "True"
        return "pending" if moving else "failure", f"{worst['reason']}: {worst['message']}"
    if ready["status"] == "True":
        return "success", ready["message"]
    return "pending", f"{ready['reason']}: {ready['message']}"


_DRIFT = frozenset({"config", "code", "credential", "missing"})


_FAILED = frozenset({"BadCommit", "Failed", "InvalidDeclaration", "RolledBack"})


def _fails(app: Mapping[str, Any]) -> bool:
    return app["health"] == "Degraded" or app["reason"] in _FAILED


def _causes(done: Pass) -> Mapping[str, str]:
    """app id → why the step failed that stopped it: its own, or one that it needed. An app that goes on because what
    comes in its place failed is none of them."""
    outcomes = {outcome.address: outcome for outcome in done.outcomes}
    roots: dict[str, str] = {}
    for step in done.look.plan.steps:  # a step needs only earlier ones
        outcome, needs = outcomes.get(step.address), () if isinstance(step.verb, StopApp) else step.needs
        if outcome and outcome.result is Result.FAILED:
            roots[step.address] = outcome.message
        elif root := next((address for address in needs if address in roots), None):
            roots[step.address] = roots[root]
    return {step.app_id: roots[step.address] for step in done.look.plan.steps if step.app_id and step.address in roots}


def _why(app: Mapping[str, Any]) -> str:
    """`Skipped` is what a step becomes that needed one which failed."""
    reason = str(app["reason"] or app["health"])
    return "Failed" if reason == "Skipped" else reason


def _news(
    before: Standing,
    now: Standing,
    done: Pass,
    apps: Mapping[str, Mapping[str, Any]],
    causes: Mapping[str, str],
) -> Iterator[News]:
    for app_id, reason in sorted(now.failing.items()):
        if before.failing.get(app_id) != reason:
            yield News("failed", app_id, reason, plain(causes.get(app_id) or str(apps[app_id]["message"]), TEXT_LIMIT))
    for app_id, reason in sorted(before.failing.items()):
        if app_id not in now.failing:
            gone = "it is not wanted any more" if app_id and app_id not in apps else ""
            yield News("recovered", app_id, reason, gone)
    for app_id, sort in sorted(now.drifted.items()):
        if before.drifted.get(app_id) != sort:
            yield News("drift", app_id, sort, _fields(apps[app_id]))
    yield from _applied(done)


def _fields(app: Mapping[str, Any]) -> str:
    """Which fields differ, not what is in them."""
    return plain(", ".join(change["field"] for change in app["changes"]), TEXT_LIMIT)


def _applied(done: Pass) -> Iterator[News]:
    results = {outcome.address: outcome.result for outcome in done.outcomes}
    for step in done.look.plan.steps:
        of_app = isinstance(step.verb, DeployApp | UpdateApp | StopApp)
        if of_app and step.app_id and results.get(step.address) is Result.DONE:
            yield News("applied", step.app_id, KINDS[type(step.verb)], plain(step.why, TEXT_LIMIT))
