"""How a version becomes the running one, or does not. Pure: states in, verdicts out, so a restarted worker goes on.

Law: the last version known to be good is named in every record that is not known to be good itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bioengine_runtime.apps.errors import Refused
from bioengine_runtime.apps.record import AppRecord, DeploymentState, Running
from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.status import Provenance

LOG_LINES = 30
NOBODY = ""
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ERROR = re.compile(r"^\w[\w.]*(Error|Exception|Interrupt|Exit|Warning|Unsealable)\b.*")


@dataclass(frozen=True, slots=True)
class Settled:
    """The version is up; what it replaced is no longer needed."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The version does not come up. `deployment` is the one that failed, when it is known."""

    reason: str
    lines: tuple[str, ...]
    deployment: DeploymentState | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Still coming up."""


Verdict = Settled | Failed | Waiting | None


def judge(running: Running, good: str | None, now: float) -> Verdict:
    """None: nothing to decide, this version was good before (Serve itself restarts what breaks later)."""
    record = running.record
    if record is None or record.release() == good or running.status == "DELETING":
        return None
    if running.status == "RUNNING" and all(one.status == "HEALTHY" for one in running.deployments):
        return Settled()
    failed = running.failed()
    if failed or running.status == "DEPLOY_FAILED":
        message = failed.message if failed else running.message
        return Failed(reason_of(message), lines_of(message), failed)
    limit = record.spec.rollout.health_timeout_s
    if record.previous and now - record.last_updated_at > limit:
        slow = next((one for one in running.deployments if one.status != "HEALTHY"), None)
        said = (slow.message if slow else running.message).strip()
        reason = f"did not come up within {limit:g} s" + (f": {said.splitlines()[0]}" if said else "")
        return Failed(reason, lines_of(said), slow)
    return Waiting()


def check(app_id: str, running: Running | None, *, owner: str, expected: str | None, worker: str) -> None:
    """Raises Refused unless this caller may change this app in the state it is in. `expected` None does not check."""
    record = running.record if running else None
    if running and running.status != "DELETING":
        if record is None:
            raise Refused(f"{app_id} runs in Ray Serve, but was not deployed by a BioEngine worker")
        if record.worker != worker:
            raise Refused(f"{app_id} is looked after by another worker, {record.worker}")
        if record.provenance.owner != owner:
            raise Refused(f"{app_id} belongs to {record.provenance.owner}, not to {owner}")
    runs = record.digest if running and record and running.status != "DELETING" else NOBODY
    if expected is not None and expected != runs:
        raise Refused(
            f"{app_id} is not as expected: {f'digest {runs[:12]} runs' if runs else 'it does not run'}, "
            f"expected {expected[:12] or 'none'}; look again"
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """What preparing found out about an app, as far as its record tells it."""

    name: str
    description: str
    entry: str
    methods: tuple[Mapping[str, object], ...]
    frontend_entry: str | None
    package: str
    worker: str
    resources: Mapping[str, float]
    capacity: int = 1
    warnings: tuple[str, ...] = ()


def next_record(
    spec: AppSpec,
    fingerprints: Mapping[str, str],
    provenance: Provenance,
    facts: Facts,
    running: Running | None,
    good: str | None,
    now: float,
) -> AppRecord:
    """The record to write. It keeps the last good version for as long as the new one is not known to be good."""
    current = running.record if running and running.status != "DELETING" else None
    record = AppRecord.model_validate(
        {
            "spec": spec,
            "digest": spec.digest(),
            "code_digest": spec.code_digest(),
            "provenance": provenance,
            "secret_fingerprints": dict(fingerprints),
            "name": facts.name,
            "description": facts.description,
            "entry": facts.entry,
            "methods": [dict(method) for method in facts.methods],
            "frontend_entry": facts.frontend_entry,
            "started_at": current.started_at if current else now,
            "last_updated_at": now,
            "blueprint": f"{spec.app_id}/{spec.digest()[:16]}-{int(now * 1000)}",
            "package": facts.package,
            "worker": facts.worker,
            "resources": dict(facts.resources),
            "capacity": facts.capacity,
            "warnings": list(facts.warnings),
        }
    )
    return record.model_copy(update={"previous": _last_good(record, current, good)})


def _last_good(record: AppRecord, current: AppRecord | None, good: str | None) -> AppRecord | None:
    if current is None or record.release() == good:
        return None
    if current.release() == good:
        return current.model_copy(update={"previous": None})
    return current.previous


def reason_of(message: str) -> str:
    """The exception in a message of Serve's, without the traceback around it."""
    lines = lines_of(message)
    errors = [line for line in lines if _ERROR.match(line)]
    return errors[-1] if errors else (lines[-1] if lines else "it did not start")


def lines_of(message: str) -> tuple[str, ...]:
    """The end of a message, without colours."""
    lines = [line.rstrip() for line in _ANSI.sub("", message).splitlines()]
    return tuple(line for line in lines if line)[-LOG_LINES:]
