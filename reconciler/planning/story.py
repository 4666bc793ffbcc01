"""One app's story in rows: what git asks for, what runs, what differs, why nothing is done about it, what to do next.

`explain` answers "why is it not in sync"; `trace` follows one app from its commit to the processes that run it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bioengine_runtime.contract.status import AppState
from reconciler.planning.desired import DesiredApp, DesiredState
from reconciler.planning.drift import report
from reconciler.planning.ignoring import fields_left
from reconciler.planning.live import LiveState
from reconciler.planning.render_text import effect_text
from reconciler.planning.shown import at, count, plain
from reconciler.planning.steps import Change, Held, Plan, Step
from reconciler.planning.suspending import suspended
from reconciler.planning.why import by_hand, commit_of

LOG_LINES = 20
NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Story:
    """Rows of (name, text) for one app; `ok` says that nothing is wrong with it."""

    app_id: str
    ok: bool
    rows: tuple[tuple[str, str], ...]

    def document(self) -> dict[str, Any]:
        """For programs."""
        rows = [{"name": name, "text": text} for name, text in self.rows]
        return {"format_version": "1.0", "id": self.app_id, "ok": self.ok, "rows": rows}


def explain(app_id: str, desired: DesiredState, live: LiveState, plan: Plan) -> Story:
    """Why an app is as it is, and what will become of it."""
    stands = next((app for app in report(plan, live)["apps"] if app["id"] == app_id), _NOT_OURS)
    wanted, running = desired.apps.get(app_id), live.apps.get(app_id)
    ok = (stands["sync"], stands["health"]) == ("Synced", "Healthy")
    step = next((one for one in plan.steps if one.app_id == app_id), None)
    held = next((one for one in plan.held if one.app_id == app_id), None)
    # Also of an app that is as git wants it: so it will stay, whatever git says next.
    left = suspended(app_id, wanted, live, desired.revision.id)
    back = next((said for one, said in plan.rolled_back if one == app_id), None)
    ends = left.fix if left else f"reconcile resume {app_id}" if back else ""
    rows = [
        ("state", f"{stands['sync']}, {stands['health']}"),
        *([("drift", stands["class"])] if stands["class"] else []),
        ("wanted", _wanted(app_id, wanted, desired)),
        ("runs", _runs(running, live)),
        *(("differs", _change(change)) for change in (step.changes if step else held.changes if held else ())),
        *_said(running),
        *_proof(running),
        *_to_come(step, held),
        *([("suspended", left.message)] if left else []),
        *([("held", back)] if back else []),
        *([("waits", f"{plan.gate.reason}: {plain(plan.gate.message)}")] if plan.gate and step else []),
        ("next", _next(app_id, step, held, ends, live, ok=ok)),
    ]
    return Story(app_id, ok, tuple(rows))


def trace(app_id: str, desired: DesiredState, live: LiveState) -> Story:
    """Commit → folder → artifact → app → replicas; `ok` when every link was seen to hold."""
    wanted, running = desired.apps.get(app_id), live.apps.get(app_id)
    links = [*_source_links(wanted, desired), *_stored_link(wanted, live), *_running_links(wanted, running, live)]
    ok = wanted is not None and all(holds for _, _, holds in links)
    return Story(app_id, ok, tuple((name, f"{_SIGN[holds]} {text}") for name, text, holds in links))


_NOT_OURS = {"sync": "Unknown", "health": "Unknown", "class": "orphan"}
"""How an app stands that runs here, and is neither ours nor named."""


Link = tuple[str, str, bool | None]
"""What it is, what it is named by, and whether it holds; None: could not be seen."""

_SIGN = {True: "✔", False: "✗", None: "?"}


def _wanted(app_id: str, wanted: DesiredApp | None, desired: DesiredState) -> str:
    if problems := desired.broken.get(app_id):
        return f"not readable: {problems[0].where}: {plain(problems[0].message)}"
    if wanted is None:
        return f"{NOTHING}: cluster.yaml at {desired.revision.short} does not name it"
    return f"{_code(wanted)} by {wanted.where} at {desired.revision.short}{_last_commit(wanted, desired)}"


def _last_commit(wanted: DesiredApp, desired: DesiredState) -> str:
    return commit_of(wanted.code.folder.path, desired, ", last change ") if wanted.code else ""


def _code(app: DesiredApp) -> str:
    return f"{app.spec.artifact_id}@{app.spec.version}"


def _runs(running: AppState | None, live: LiveState) -> str:
    if running is None:
        return NOTHING if live.worker else "not known: no worker answered"
    if running.spec is None or running.provenance is None:
        return f"{running.status}, deployed by somebody else"
    since = f", since {at(running.started_at)}" if running.started_at else ""
    origin = f"from {running.provenance.commit[:7]} by {running.provenance.owner}{by_hand(running)}"
    return f"{running.spec.artifact_id}@{running.spec.version} ({running.status}), {origin}{since}"


def _change(change: Change) -> str:
    if change.before and change.after:
        return f"{change.field}: {change.before} → {change.after}"
    return f"{change.field}: {change.after or f'{change.before} → (nothing)'}"


def _said(running: AppState | None) -> Iterator[tuple[str, str]]:
    if running is None:
        return
    if running.updating:
        yield "now", "a new version is being brought up beside this one"
    if running.message:
        yield "says", plain(running.message)
    if running.rejected:
        yield "rejected", f"{plain(running.rejected.reason)} ({at(running.rejected.at)})"
        yield from (("log", plain(line)) for line in running.rejected.log_lines[-LOG_LINES:])


def _proof(running: AppState | None) -> Iterator[tuple[str, str]]:
    """What the replicas themselves say they run."""
    if running is None or running.spec is None or not running.replicas:
        return
    wanted = running.spec.code_digest()
    told = [one.code_digest == wanted for one in running.replicas if one.code_digest]
    silent = len(running.replicas) - len(told)
    said = f"{sum(told)} of {count(len(told), 'replica')} that said what they run run this code"
    yield "proof", said + (f"; {silent} said nothing" if silent else "")


def _to_come(step: Step | None, held: Held | None) -> Iterator[tuple[str, str]]:
    if step:
        yield "because", step.why
        yield "effect", effect_text(step.effect)
    if held:
        yield "held", f"{held.reason}: {plain(held.message)}"


def _next(app_id: str, step: Step | None, held: Held | None, ends: str, live: LiveState, *, ok: bool) -> str:
    """`ends`: how to end what somebody ordered of it, or wrote into git."""
    if held and held.fix:
        return plain(held.fix)
    if step:
        return f"reconcile apply --target {app_id}"
    if ends:
        return ends
    if ok:
        return f"reconcile trace {app_id}"
    return f"bioengine apps logs {app_id}" if live.worker else "reconcile doctor"


def _source_links(wanted: DesiredApp | None, desired: DesiredState) -> Iterator[Link]:
    revision = desired.revision
    signed = f", signed by {revision.signature}" if revision.signature else ""
    yield "commit", f'{revision.id} "{plain(revision.subject, 72)}"{signed}', True
    if wanted is None:
        yield "cluster.yaml", "does not name it", False
        return
    yield "cluster.yaml", str(wanted.where), True
    if wanted.code:
        folder = wanted.code.folder
        yield "folder", f"{folder.path}, tree {folder.tree}{_last_commit(wanted, desired)}", True


def _stored_link(wanted: DesiredApp | None, live: LiveState) -> Iterator[Link]:
    if wanted is None:
        return
    if live.artifacts is None:
        yield "artifact", f"{_code(wanted)} (the store did not answer)", None
        return
    artifact = live.artifacts.get(wanted.spec.artifact_id)
    version = artifact.version(wanted.spec.version) if artifact else None
    if version is None:
        # What other repositories store need not be in our collection.
        yield "artifact", f"{_code(wanted)} is not stored here", False if wanted.code else None
    else:
        same = wanted.code is None or version.tree == wanted.code.folder.tree
        yield "artifact", f"{_code(wanted)}, tree {version.tree or 'not said'}", same


def _running_links(wanted: DesiredApp | None, running: AppState | None, live: LiveState) -> Iterator[Link]:
    if running is None:
        yield "app", "does not run" if live.worker else "no worker answered", False if live.worker else None
        return
    same = wanted is not None and _as_wanted(wanted, running)
    yield "app", f"{_runs(running, live)}, digest {(running.digest or 'none')[:12]}", same
    spec = running.spec if same else wanted.spec if wanted else None
    code = spec.code_digest() if spec else None
    for replica in sorted(running.replicas, key=lambda one: (one.deployment, one.replica_id)):
        place = f"{replica.deployment} {replica.replica_id}, {replica.state}, pid {replica.pid}, node {replica.node_id}"
        said = f"runs {replica.code_digest[:12]}" if replica.code_digest else "has not said what it runs"
        yield "replica", f"{place}, {said}", replica.code_digest == code if replica.code_digest else None
    if running.service_id:
        yield "service", running.service_id, True


def _as_wanted(wanted: DesiredApp, running: AppState) -> bool:
    if running.digest == wanted.spec.digest():
        return True
    if running.spec is None or not wanted.ignore:
        return False
    return not fields_left(running.spec, wanted.spec, wanted.ignore)
