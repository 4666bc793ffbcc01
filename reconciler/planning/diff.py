"""Desired against live: every way in which they differ, and nothing about what to do.

Digests are compared first; only where they differ are fields looked at. Values of secrets are never compared, only
their fingerprints, and one that could not be read here is not compared at all: it is a note, not a difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from bioengine_runtime.contract.app import IN_PLACE_FIELDS, AppSpec
from bioengine_runtime.contract.cluster import Slurm
from bioengine_runtime.contract.status import PERSON, AppState
from reconciler.planning.desired import DesiredApp, DesiredState
from reconciler.planning.ignoring import fields_left
from reconciler.planning.live import LiveState
from reconciler.planning.shown import pair, value
from reconciler.planning.steps import Change

Fingerprints = Mapping[str, Mapping[str, str | None]]
"""app id → Class/NAME → keyed hash of the secret wanted; None where it could not be read here."""

CLUSTER_FILE = "cluster.yaml"
WORKERS = "(workers)"
"""Stands where an app id stands, for the difference of the SLURM bounds; no app can have this id."""

SECRET_VALUES = "secret values"
STATUS = "status"
RUNNING_CODE = "running code"
OWNER = "owner"
"""Four ways to differ that are no fields of AppSpec: a replica says that it runs something else; the app is a person's,
and is to be adopted."""

SOUNDS_SECRET = re.compile(r"^_|PASS|SECRET|TOKEN|KEY|CREDENTIAL", re.IGNORECASE)


class Kind(Enum):
    """What sort of difference it is."""

    CREATE = "wanted, and does not run"
    UPDATE = "runs, and differs"
    REMOVE = "ours, runs, and is not wanted"
    FOREIGN = "wanted, and runs under another owner"
    BROKEN = "its declaration is invalid"
    UNSEEN = "wanted, or was, and we could not see whether it runs"
    WORKERS = "bounds of the workers differ"


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which desired and live differ. `fields` are those of AppSpec; `drift`: no commit asked for it."""

    app_id: str
    kind: Kind
    wanted: DesiredApp | None = None
    running: AppState | None = None
    fields: frozenset[str] = frozenset()
    changes: tuple[Change, ...] = ()
    drift: bool = False
    mended: bool = False
    """The secrets that a rejected version was tried with have changed since, so it may come up now."""

    @property
    def in_place(self) -> bool:
        """Whether the running replicas can take it over."""
        if self.kind is not Kind.UPDATE or self.running is None or self.running.spec is None:
            return False
        if self.fields == frozenset({STATUS}) and self.running.status == "RUNNING":
            return True  # it is only judged anew
        return self.fields - {OWNER} <= IN_PLACE_FIELDS


def differences(
    desired: DesiredState,
    live: LiveState,
    fingerprints: Fingerprints,
    again: Callable[[str], bool] = lambda _: False,
) -> tuple[Difference, ...]:
    """All of them, ordered by app id, the workers' first; at most one per app. `again`: whether an app that failed, and
    runs as wanted for all that, is to be tried again, which then is a difference."""
    apps = sorted(_apps(desired, live, fingerprints, again), key=lambda found: found.app_id)
    return (*_workers(desired, live), *apps)


def not_compared(desired: DesiredState, fingerprints: Fingerprints, live: LiveState) -> Iterator[tuple[str, list[str]]]:
    """Apps that run as wanted as far as we can tell, with the names of the secrets that we cannot tell about."""
    running = live.apps
    for app_id in sorted(desired.apps.keys() & running.keys()):
        known, held = fingerprints.get(app_id, {}), running[app_id].secret_fingerprints
        names = [
            name
            for class_name, secrets in desired.apps[app_id].secrets.items()
            for name in secrets
            if known.get(key := f"{class_name}/{name}") is None or key not in held
        ]
        if names:
            yield app_id, sorted(names)


def _workers(desired: DesiredState, live: LiveState) -> Iterator[Difference]:
    compute = desired.cluster.compute
    if not isinstance(compute, Slurm):
        return
    if live.worker is None:
        yield Difference(WORKERS, Kind.UNSEEN)
    elif live.worker.mode == "slurm":
        wanted = {"min": compute.workers.min, "max": compute.workers.max}
        bounds = live.worker.workers
        if bounds != wanted:
            before = _bounds(bounds) if bounds else ""
            yield Difference(WORKERS, Kind.WORKERS, changes=(Change("workers", before, _bounds(wanted)),))


def _bounds(bounds: Mapping[str, int]) -> str:
    return f"{bounds.get('min', 0)}…{bounds.get('max', 0)}"


def _apps(
    desired: DesiredState, live: LiveState, fingerprints: Fingerprints, again: Callable[[str], bool]
) -> Iterator[Difference]:
    seen, running = live.worker is not None, live.apps
    owner = desired.cluster.name
    for app_id in desired.broken:
        yield Difference(app_id, Kind.BROKEN, running=running.get(app_id))
    for app_id, wanted in desired.apps.items():
        if app_id in desired.broken:
            continue
        app = running.get(app_id)
        if not seen or app_id in live.unknown:
            yield Difference(app_id, Kind.UNSEEN, wanted)
        elif app is None:
            # It ran once, so that no commit asks for it: somebody, or something, took it away.
            ran = live.remembered is not None and app_id in live.remembered.seconds
            yield Difference(app_id, Kind.CREATE, wanted, drift=ran)
        elif adoptable(wanted, app, owner):
            fields = _fields(wanted, app, fingerprints.get(app_id, {})) | {OWNER}
            yield _update(_adopting(wanted, app), app, fields, desired, fingerprints.get(app_id, {}))
        elif app.provenance is None or app.provenance.owner != owner:
            yield Difference(app_id, Kind.FOREIGN, wanted, app)
        else:
            fields = _fields(wanted, app, fingerprints.get(app_id, {}))
            if app.digest == wanted.spec.digest() and again(app_id) and _failed(app):
                fields |= {STATUS}
            if fields:
                yield _update(wanted, app, fields, desired, fingerprints.get(app_id, {}))
    for app_id in live.unknown.keys() - desired.apps.keys() - desired.broken.keys():
        yield Difference(app_id, Kind.UNSEEN)
    for app_id, app in running.items():
        if app_id in desired.apps or app_id in desired.broken or app.status == "DELETING":
            continue
        if app.provenance is not None and app.provenance.owner == owner:
            yield Difference(app_id, Kind.REMOVE, running=app)


def adoptable(wanted: DesiredApp, app: AppState, owner: str) -> bool:
    """A person's app that git says to take over. Another reconciler's never is."""
    theirs = app.provenance.owner if app.provenance else ""
    return wanted.adopt and theirs != owner and theirs.startswith(PERSON)


def _adopting(wanted: DesiredApp, app: AppState) -> DesiredApp:
    theirs = app.provenance.owner if app.provenance else None
    return replace(wanted, provenance=wanted.provenance.model_copy(update={"adopts": theirs}))


def failed_and_stays(app: AppState) -> bool:
    """A version that was rejected after it took over, and runs for want of a better one."""
    return app.rejected is not None and app.rejected.digest == app.digest and not app.updating


def _failed(app: AppState) -> bool:
    return app.status == "DEPLOY_FAILED" or failed_and_stays(app)


def _fields(wanted: DesiredApp, app: AppState, known: Mapping[str, str | None]) -> frozenset[str]:
    digest = wanted.spec.digest()
    fields: set[str] = set()
    if app.digest != digest:
        fields = _fields_of_spec(app.spec, wanted.spec) or {"digest"}
        if wanted.ignore and app.spec is not None and not fields_left(app.spec, wanted.spec, wanted.ignore):
            fields = set()
    if wanted.secrets and any(_secrets_changed(wanted, app, known)):
        fields.add(SECRET_VALUES)
    if app.status == "DELETING" or (app.status == "DEPLOY_FAILED" and app.rejected and app.rejected.digest == digest):
        fields.add(STATUS)
    if not fields and other_code(app, wanted.spec if app.digest == digest else app.spec):
        fields.add(RUNNING_CODE)
    return frozenset(fields)


def other_code(app: AppState, deployed: AppSpec | None) -> tuple[str, ...]:
    """Replicas that take calls and say that they run something else than the app was deployed with. While an update is
    under way that is as it should be, and a replica that says nothing proves nothing."""
    if deployed is None or app.updating or app.status != "RUNNING":
        return ()
    wanted = deployed.code_digest()
    serving = [one for one in app.replicas if one.state == "RUNNING" and one.code_digest is not None]
    return tuple(sorted(one.replica_id for one in serving if one.code_digest != wanted))


def _fields_of_spec(before: AppSpec | None, after: AppSpec) -> set[str]:
    if before is None:
        return set(AppSpec.model_fields)
    old, new = before.__dict__, after.__dict__
    return {name for name in AppSpec.model_fields if old[name] != new[name]}


def _secrets_changed(wanted: DesiredApp, app: AppState, known: Mapping[str, str | None]) -> Iterator[str]:
    """Class/NAME of secrets whose value differs. The runtime not knowing a fingerprint is no difference: it would
    restart the app in every pass; a name that is new differs in the spec already."""
    running = app.secret_fingerprints
    for class_name, secrets in wanted.secrets.items():
        for name in secrets:
            key = f"{class_name}/{name}"
            now = known.get(key)
            if now is not None and running.get(key, now) != now:
                yield key


def _update(
    wanted: DesiredApp, app: AppState, fields: frozenset[str], desired: DesiredState, known: Mapping[str, str | None]
) -> Difference:
    return Difference(
        app_id=wanted.app_id,
        kind=Kind.UPDATE,
        wanted=wanted,
        running=app,
        fields=fields,
        changes=tuple(_changes(wanted, app, fields, frozenset(_secrets_changed(wanted, app, known)))),
        drift=_is_drift(wanted, app, fields, desired),
        mended=_is_mended(app, known),
    )


def _is_mended(app: AppState, known: Mapping[str, str | None]) -> bool:
    tried = app.rejected.secret_fingerprints if app.rejected else {}
    return any(known.get(key) not in (None, print_) for key, print_ in tried.items())


def _is_drift(wanted: DesiredApp, app: AppState, fields: frozenset[str], desired: DesiredState) -> bool:
    """Whether no commit explains the difference: what runs was deployed from this commit, or from the same folder
    content and the commit that last touched cluster.yaml. Uncommitted files have no commit, so nothing is drift."""
    came_from = app.provenance
    if RUNNING_CODE in fields:
        return True
    if OWNER in fields:
        return False
    if came_from is None or desired.revision.worktree or not fields - {SECRET_VALUES, STATUS}:
        return False
    if came_from.digest is not None and came_from.digest == wanted.spec.digest():
        return True  # git asks for what it asked for, whatever was committed since
    if came_from.commit == wanted.provenance.commit:  # not the newest one, for an app that was rolled back
        return True
    if wanted.provenance.commit != desired.revision.id:
        return False  # somebody has just rolled it back
    last = (desired.changed or {}).get(CLUSTER_FILE)
    return last is not None and came_from.commit == last[0] and came_from.tree == wanted.provenance.tree


def _changes(wanted: DesiredApp, app: AppState, fields: frozenset[str], secrets: frozenset[str]) -> Iterator[Change]:
    before, after = app.spec, wanted.spec
    if before is None:
        yield Change("spec", "not deployed by this reconciler's contract", "as declared")
    elif fields:
        if OWNER in fields and app.provenance:
            yield Change("owner", app.provenance.owner, wanted.provenance.owner)
        for name in sorted(fields & FIELD_TEXTS.keys()):
            yield from FIELD_TEXTS[name](before, after)
        if "version" in fields:
            yield from _tree(app, wanted)
        if RUNNING_CODE in fields:
            said = {one.replica_id: one.code_digest or "" for one in app.replicas}
            for replica in other_code(app, app.spec):
                yield Change(f"replica {replica}", f"code {said[replica][:12]}", f"code {after.code_digest()[:12]}")
        if "digest" in fields:
            yield Change("digest", (app.digest or "")[:12], after.digest()[:12])
        if fields & {"env", "secrets", SECRET_VALUES}:
            yield from _env(before, after, secrets)


def _tree(app: AppState, wanted: DesiredApp) -> Iterator[Change]:
    old = app.provenance.tree if app.provenance else None
    new = wanted.provenance.tree
    if old and new and old != new:
        yield Change("files", f"tree {old[:7]}", f"tree {new[:7]}")


def _scalar(name: str, none: str = "null") -> Callable[[AppSpec, AppSpec], Iterator[Change]]:
    def said(spec: AppSpec) -> str:
        content = getattr(spec, name)
        return none if content is None else value(content)

    def changes(before: AppSpec, after: AppSpec) -> Iterator[Change]:
        yield Change(name, *pair(said(before), said(after)))

    return changes


def _table(name: str) -> Callable[[AppSpec, AppSpec], Iterator[Change]]:
    """A field that is a table: one change per entry; an entry that is a table itself is taken apart once more."""

    def changes(before: AppSpec, after: AppSpec) -> Iterator[Change]:
        old, new = _flat(name, getattr(before, name)), _flat(name, getattr(after, name))
        for key in sorted(old.keys() | new.keys()):
            if old.get(key, _ABSENT) != new.get(key, _ABSENT):
                yield Change(key, *pair(_text(old, key), _text(new, key)))

    return changes


_ABSENT = object()


def _text(table: Mapping[Any, Any], key: Any) -> str:
    return value(table[key]) if key in table else ""


def _flat(name: str, table: Any) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        return {name: table}
    flat: dict[str, Any] = {}
    for key, content in _items(table):
        for inner, leaf in _items(content) if isinstance(content, Mapping) else ():
            flat[f"{name}.{key}.{inner}"] = leaf
        if not isinstance(content, Mapping):
            flat[f"{name}.{key}"] = content
    return flat


def _items(table: Any) -> Iterator[tuple[str, Any]]:
    yield from table.items()


def _rollout(before: AppSpec, after: AppSpec) -> Iterator[Change]:
    for name in type(after.rollout).model_fields:
        old, new = getattr(before.rollout, name), getattr(after.rollout, name)
        if old != new:
            yield Change(f"rollout.{name}", value(old), value(new))


def _ice_servers(before: AppSpec, after: AppSpec) -> Iterator[Change]:
    """By their addresses: passwords of TURN servers change all the time and tell nobody anything."""
    old, new = ([one.urls for one in spec.ice_servers] for spec in (before, after))
    yield Change("ice_servers", *pair(value(old), value(new)))


def _env(before: AppSpec, after: AppSpec, changed: frozenset[str]) -> Iterator[Change]:
    """Variables. A name that is a secret for any class on either side is never shown with a value, and neither is
    one that sounds like a secret: somebody may have put it in plain sight by mistake."""
    hidden = {name for spec in (before, after) for names in spec.secrets.values() for name in names}
    old, new = dict(_variables(before)), dict(_variables(after))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) == new.get(key) and (key in old) == (key in new) and "/".join(key) not in changed:
            continue
        field = f"env.{key[0]}.{key[1]}"
        if key[1] in hidden or SOUNDS_SECRET.search(key[1]):
            sign = "added" if key not in old else "removed" if key not in new else "changed"
            yield Change(field, "", f"(secret {sign})")
        else:
            yield Change(field, *pair(_text(old, key), _text(new, key)))


def _variables(spec: AppSpec) -> Iterator[tuple[tuple[str, str], str | None]]:
    """(class, NAME) → value; None for a secret."""
    for class_name, table in spec.env.items():
        for name, content in table.items():
            yield (class_name, name), content
    for class_name, names in spec.secrets.items():
        for name in names:
            yield (class_name, name), None


FIELD_TEXTS: Mapping[str, Callable[[AppSpec, AppSpec], Iterator[Change]]] = {
    "artifact_id": _scalar("artifact_id"),
    "version": _scalar("version"),
    "kwargs": _table("kwargs"),
    "authorized_users": _table("authorized_users"),
    "disable_gpu": _scalar("disable_gpu"),
    "max_ongoing_requests": _scalar("max_ongoing_requests", none="as the code says"),
    "max_queued_requests": _scalar("max_queued_requests", none="as the code says"),
    "replicas": _table("replicas"),
    "autoscaling": _table("autoscaling"),
    "rollout": _rollout,
    "auto_redeploy": _scalar("auto_redeploy"),
    "debug": _scalar("debug"),
    "ice_servers": _ice_servers,
}
"""How a field of AppSpec is shown; env and secrets are shown together, by `_env`."""
