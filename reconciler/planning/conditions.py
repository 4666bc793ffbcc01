"""Conditions: how a cluster stands, in the form that kubectl, Flux and their users know (kstatus).

Ready says that everything is as git wants it and well; Reconciling that time alone will change something; Stalled that
it will not. A condition that could not be judged is Unknown, never True.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from reconciler.errors import ReconcilerError, Remedy
from reconciler.planning.shown import count, listed, plain
from reconciler.planning.steps import Reason

MESSAGE_LIMIT = 1024


class Type(StrEnum):
    """Closed: a program may match on these."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    SOURCE_READY = "SourceReady"
    HEALTHY = "Healthy"
    DRIFTED = "Drifted"
    SUSPENDED = "Suspended"
    CREDENTIALS_VALID = "CredentialsValid"


class Status(StrEnum):
    """Kubernetes' three."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Why(StrEnum):
    """Reasons of conditions, besides those for which a difference is held (steps.Reason). Closed, too."""

    APPLIED = "Applied"
    CREDENTIAL_EXPIRING = "CredentialExpiring"
    CREDENTIAL_UNKNOWN = "CredentialUnknown"
    DRIFTED = "Drifted"
    FAILED = "Failed"
    HEALTH_CHECK_FAILED = "HealthCheckFailed"
    NOTHING = "AsExpected"
    PASS_CRASHED = "PassCrashed"
    PERSON_NEEDED = "PersonNeeded"
    PROGRESSING = "Progressing"
    SOURCE_UNUSABLE = "SourceUnusable"
    UNREACHABLE = "Unreachable"


@dataclass(frozen=True, slots=True)
class Condition:
    """One statement. `since` is when its status was first so, ISO 8601."""

    type: Type
    status: Status
    reason: str
    message: str
    revision: str
    since: str

    def document(self) -> dict[str, str]:
        """As Kubernetes writes it."""
        return {
            "type": self.type,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "observedRevision": self.revision,
            "lastTransitionTime": self.since,
        }


@dataclass(frozen=True, slots=True)
class Judged:
    """A condition before it is known since when it holds."""

    type: Type
    status: Status
    reason: str = Why.NOTHING
    message: str = ""


TIME_HELPS = frozenset({Reason.BACKING_OFF, Reason.UPDATING, Reason.DEPENDENCY_NOT_READY, Reason.LIVE_STATE_UNKNOWN})
"""Held, but only for now."""
A_PERSON_SAID_SO = frozenset({Reason.SUSPENDED, Reason.ROLLED_BACK, Reason.DRIFT_ACCEPTED})
"""Left as it is because somebody wants it so: nothing is stuck."""


def of_report(report: Mapping[str, Any]) -> tuple[Judged, ...]:
    """The conditions that one pass's report gives."""
    apps: Sequence[Mapping[str, Any]] = report["apps"]
    complete = bool(report["complete"])
    return (
        _ready(apps, report),
        _reconciling(apps, report.get("gate")),
        _stalled(apps, report.get("gate")),
        _source_ready(report),
        _healthy(apps, complete=complete),
        _some(Type.DRIFTED, [app for app in apps if app["reason"] in _DRIFT], Why.DRIFTED, complete=complete),
        _some(
            Type.SUSPENDED, [app for app in apps if app["reason"] == Reason.SUSPENDED], Reason.SUSPENDED, complete=True
        ),
        _credentials_valid(report.get("credentials", ()), complete=complete),
    )


def of_trouble(error: Exception) -> tuple[Judged, ...]:
    """The conditions after a pass that was stopped: nothing is known to be as git wants it. Who can mend it decides
    whether time alone does, and whether it lies at the source. Of a bug only the type is told: its words are nobody's
    who knew that they would be read."""
    known = isinstance(error, ReconcilerError)
    why = _TROUBLE[error.remedy if known else Remedy.BUG]
    text = plain(str(error) if known else f"unexpected {type(error).__name__}", MESSAGE_LIMIT)
    unknown = (Type.READY, Type.HEALTHY, Type.DRIFTED, Type.SUSPENDED, Type.CREDENTIALS_VALID)
    passes_by = why is Why.UNREACHABLE
    return (
        *(Judged(one, Status.UNKNOWN, why, text) for one in unknown),
        Judged(Type.RECONCILING, Status.TRUE if passes_by else Status.FALSE, why, text if passes_by else ""),
        Judged(Type.STALLED, Status.FALSE if passes_by else Status.TRUE, why, "" if passes_by else text),
        Judged(Type.SOURCE_READY, Status.FALSE if why is Why.SOURCE_UNUSABLE else Status.UNKNOWN, why, text),
    )


def since(judged: Iterable[Judged], before: Iterable[Condition], *, revision: str, now: str) -> tuple[Condition, ...]:
    """With the moment each status began: the former one's while it stays the same. In the order of Type."""
    old = {one.type: one for one in before}
    order = list(Type)
    return tuple(
        Condition(
            one.type,
            one.status,
            str(one.reason),
            one.message,
            revision,
            old[one.type].since if one.type in old and old[one.type].status == one.status else now,
        )
        for one in sorted(judged, key=lambda one: order.index(one.type))
    )


_DRIFT = frozenset(
    {str(Why.DRIFTED), str(Reason.SELF_HEAL_DISABLED), str(Reason.CODE_MISMATCH), str(Why.CREDENTIAL_EXPIRING)}
)
_TROUBLE: Mapping[Remedy, Why] = {
    Remedy.COMMIT: Why.SOURCE_UNUSABLE,
    Remedy.RETRY: Why.UNREACHABLE,
    Remedy.OPERATOR: Why.PERSON_NEEDED,
    Remedy.BUG: Why.PASS_CRASHED,
}
_WINDOW, _APPROVAL = str(Reason.WINDOW_CLOSED), str(Reason.APPROVAL_REQUIRED)


def _ready(apps: Sequence[Mapping[str, Any]], report: Mapping[str, Any]) -> Judged:
    if not report["complete"]:
        unseen = listed([one["what"] for one in report["unseen"]])
        return Judged(Type.READY, Status.UNKNOWN, Reason.LIVE_STATE_UNKNOWN, f"not seen: {unseen}")
    amiss = [app for app in apps if (app["sync"], app["health"]) != ("Synced", "Healthy")]
    if not amiss:
        return Judged(Type.READY, Status.TRUE, Why.APPLIED, f"{count(len(apps), 'app')} as git wants")
    return Judged(Type.READY, Status.FALSE, _reason_of(amiss[0]), _named(amiss))


def _reconciling(apps: Sequence[Mapping[str, Any]], gate: Mapping[str, str] | None) -> Judged:
    moving = [app for app in apps if app["health"] == "Progressing" or app["reason"] in TIME_HELPS]
    if gate and gate["reason"] == _WINDOW:
        return Judged(Type.RECONCILING, Status.TRUE, _WINDOW, gate["message"])
    if not moving:
        return Judged(Type.RECONCILING, Status.FALSE)
    return Judged(Type.RECONCILING, Status.TRUE, Why.PROGRESSING, _named(moving))


def _stalled(apps: Sequence[Mapping[str, Any]], gate: Mapping[str, str] | None) -> Judged:
    """Held for a reason that only a commit or a person ends, or failed, or not approved yet."""
    final = {str(reason) for reason in Reason} - {str(reason) for reason in TIME_HELPS | A_PERSON_SAID_SO}
    stuck = [app for app in apps if app["reason"] in final or app["reason"] == Why.FAILED]
    if gate and gate["reason"] == _APPROVAL:
        return Judged(Type.STALLED, Status.TRUE, _APPROVAL, gate["message"])
    if not stuck:
        return Judged(Type.STALLED, Status.FALSE)
    return Judged(Type.STALLED, Status.TRUE, _reason_of(stuck[0]), _named(stuck))


def _source_ready(report: Mapping[str, Any]) -> Judged:
    """A repository that is away leaves its last commit in force, and that is said."""
    if away := report.get("source_away"):
        return Judged(Type.SOURCE_READY, Status.FALSE, Why.SOURCE_UNUSABLE, plain(away, MESSAGE_LIMIT))
    return Judged(Type.SOURCE_READY, Status.TRUE, Why.NOTHING, str(report["revision"]))


def _credentials_valid(credentials: Sequence[Mapping[str, Any]], *, complete: bool) -> Judged:
    kind = Type.CREDENTIALS_VALID
    ending = [f"{one['id']}: {one['name']} ends {one['ends']}" for one in credentials if one["ends"]]
    if ending:
        return Judged(kind, Status.FALSE, Why.CREDENTIAL_EXPIRING, plain(listed(ending), MESSAGE_LIMIT))
    if not complete:
        return Judged(kind, Status.UNKNOWN, Reason.LIVE_STATE_UNKNOWN)
    if credentials:
        told = [f"{one['id']}: {one['name']}" for one in credentials]
        return Judged(kind, Status.UNKNOWN, Why.CREDENTIAL_UNKNOWN, plain(f"not read: {listed(told)}", MESSAGE_LIMIT))
    return Judged(kind, Status.TRUE)


def _healthy(apps: Sequence[Mapping[str, Any]], *, complete: bool) -> Judged:
    bad = [app for app in apps if app["health"] in ("Degraded", "Missing")]
    if bad:
        return Judged(Type.HEALTHY, Status.FALSE, Why.HEALTH_CHECK_FAILED, _named(bad))
    if not complete or any(app["health"] == "Unknown" for app in apps):
        return Judged(Type.HEALTHY, Status.UNKNOWN, Reason.LIVE_STATE_UNKNOWN)
    return Judged(Type.HEALTHY, Status.TRUE)


def _some(kind: Type, apps: Sequence[Mapping[str, Any]], reason: str, *, complete: bool) -> Judged:
    if apps:
        return Judged(kind, Status.TRUE, reason, _named(apps))
    if not complete:
        return Judged(kind, Status.UNKNOWN, Reason.LIVE_STATE_UNKNOWN)
    return Judged(kind, Status.FALSE)


def _reason_of(app: Mapping[str, Any]) -> str:
    return app["reason"] or (Why.PROGRESSING if app["health"] == "Progressing" else Why.HEALTH_CHECK_FAILED)


def _named(apps: Sequence[Mapping[str, Any]]) -> str:
    told = [f"{app['id']} ({app['reason'] or app['health']})" for app in apps]
    return plain(listed(told), MESSAGE_LIMIT)
