"""Who may change an app, and what is written of the change. Pure.

Law: the last version known to be good is named in every record that is not known to be good itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bioengine_runtime.apps.errors import Refused
from bioengine_runtime.apps.record import AppRecord, Running
from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.status import PERSON, Provenance, Rejection
from bioengine_runtime.rpc.access import both

NOBODY = ""


def check(
    app_id: str, running: Running | None, *, owner: str, expected: str | None, worker: str, adopts: str | None = None
) -> None:
    """Raises Refused unless this caller may change this app in the state it is in. `expected` None does not check;
    `adopts` is the owner, a person, that it is taken over from."""
    record = running.record if running else None
    if running and running.status != "DELETING":
        if running.unreadable:
            raise Refused(f"{app_id} was deployed by another release of the worker, which alone can read its record")
        if record is None:
            raise Refused(f"{app_id} runs in Ray Serve, but was not deployed by a BioEngine worker")
        if record.worker != worker:
            raise Refused(f"{app_id} is looked after by another worker, {record.worker}")
        by_hand = record.provenance.owner.startswith(PERSON)
        if record.provenance.owner != owner and not (by_hand and adopts == record.provenance.owner):
            raise Refused(f"{app_id} belongs to {record.provenance.owner}, not to {owner}")
    runs = record.digest if running and record and running.status != "DELETING" else NOBODY
    if expected is not None and expected != runs:
        raise Refused(
            f"{app_id} is not as expected: {f'digest {runs[:12]} runs' if runs else 'it does not run'}, "
            f"expected {expected[:12] or 'none'}; look again"
        )


def failed_and_stays(running: Running, rejected: Rejection | None, good: str | None) -> bool:
    """Whether what runs failed and nothing is about to take its place: asked for again, it is to be tried again. `good`
    is the release that was known to be good."""
    record = running.record
    if record is None:
        return False
    if rejected and record.runs(rejected.digest, rejected.secret_fingerprints):
        return rejected.rollback != "under way"
    return running.status == "DEPLOY_FAILED" and (record.previous is None or record.release() == good)


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
    layers: tuple[str, ...] = ()
    token_expires_at: float | None = None


def next_record(
    spec: AppSpec,
    fingerprints: Mapping[str, str],
    provenance: Provenance,
    facts: Facts,
    running: Running | None,
    good: str | None,
    now: float,
    asked_at: float | None = None,
    *,
    again: bool = False,
) -> AppRecord:
    """The record to write. It keeps the last good version for as long as the new one is not known to be good.

    again: what failed and stays is tried again, so its time to come up begins anew."""
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
            "layers": sorted(facts.layers),
            "token_expires_at": facts.token_expires_at,
        }
    )
    times = {"asked_at": asked_at or now, "sent_at": now}
    if not again and current and current.release() == record.release():
        # The same processes: an update in place begins nothing anew.
        times = {"asked_at": current.asked_at, "sent_at": current.sent_at}
    return record.model_copy(update={**times, "previous": _last_good(record, current, good)})


def for_whom_both_let_in(previous: AppRecord, newest: AppRecord) -> AppRecord:
    """The version before, while the newest comes up, and when it is brought back. Whom the newest lets in no
    more is shut out from when it is accepted, whatever becomes of it; whom it lets in anew waits until it is up."""
    users = both(previous.spec.authorized_users, newest.spec.authorized_users)
    if users == previous.spec.authorized_users:
        return previous
    spec = previous.spec.model_copy(update={"authorized_users": users})
    return previous.model_copy(update={"spec": spec, "digest": spec.digest()})


def _last_good(record: AppRecord, current: AppRecord | None, good: str | None) -> AppRecord | None:
    if current is None or record.release() == good:
        return None
    if current.release() == good:
        return current.model_copy(update={"previous": None})
    return current.previous
