"""Cause first: why a step is there, in words of commit and file, and what the reader should know besides."""

from __future__ import annotations

from collections.abc import Iterator

from bioengine_runtime.contract.status import AppState
from reconciler.planning.desired import DesiredApp, DesiredState
from reconciler.planning.diff import CLUSTER_FILE, SECRET_VALUES, STATUS, Difference, Fingerprints, Kind, not_compared
from reconciler.planning.live import LiveState
from reconciler.planning.memory import Order
from reconciler.planning.shown import at, count, listed, plain
from reconciler.planning.source import Revision
from reconciler.planning.steps import PlanOptions


def why(
    difference: Difference,
    wanted: DesiredApp,
    desired: DesiredState,
    pin: Order | None = None,
    since: Revision | None = None,
) -> str:
    """`pin`: by which the app is to run as an older commit has it. `since`: the commit that is supposed to run."""
    if difference.kind is Kind.CREATE and difference.drift:
        return f"{wanted.where} asks for it, and it ran before and is gone (drift)"
    if difference.kind is Kind.CREATE:
        is_new = f", and {since.short} does not" if since else " and it does not run"
        return f"{wanted.where} asks for it{is_new}{commit_of(_path(wanted), desired, '; last change ')}"
    if pin:
        return rolled_back(pin)
    if difference.drift:
        return f"live differs from git (drift{by_hand(difference.running)})"
    return "; ".join(_causes(difference, wanted, desired, since)) or "what runs is not what was deployed last"


def by_hand(running: AppState | None) -> str:
    """`; changed by anna@lab.example, 2026-11-03 09:12 UTC`, as far as that is known."""
    by = running.provenance.by if running and running.provenance else None
    if running is None or by is None:
        return ""
    when = f", {at(running.last_updated_at)}" if running.last_updated_at else ""
    return f"; changed by {plain(by, 80)}{when}"


def rolled_back(pin: Order) -> str:
    """`rolled back to 4c45ada by anna@lab.example: too slow`."""
    reason = f": {plain(pin.reason)}" if pin.reason else ""
    return f"rolled back to {pin.revision[:7]} by {plain(pin.by, 80)}{reason}"


def _causes(difference: Difference, wanted: DesiredApp, desired: DesiredState, since: Revision | None) -> Iterator[str]:
    running = difference.running
    old_tree = running.provenance.tree if running and running.provenance else None
    new_tree = wanted.provenance.tree
    path = _path(wanted)
    said_by_folder: frozenset[str] = frozenset()
    if new_tree and new_tree != old_tree:
        said_by_folder = frozenset({"artifact_id", "version", "authorized_users"})
        yield f"{path} changed{commit_of(path, desired, ' in ')}"
    if difference.fields - said_by_folder - {SECRET_VALUES, STATUS}:
        yield f"{wanted.where} changed{commit_of(CLUSTER_FILE, desired, ' in ')}"
    if SECRET_VALUES in difference.fields:
        yield "a secret is read from elsewhere" if since else "the value of a secret changed where it is read from"
    if STATUS in difference.fields:
        failed = "did not pass its gate" if running and running.status == "RUNNING" else "did not come up"
        yield f"it {failed}, and is to be tried again"


def _path(wanted: DesiredApp) -> str:
    return wanted.code.folder.path if wanted.code else CLUSTER_FILE


def commit_of(path: str, desired: DesiredState, lead: str) -> str:
    """`<lead>9c1e7d2 "Bump demo-app"`, when it is known which commit touched the path last."""
    last = (desired.changed or {}).get(path)
    if last is None:
        return ""
    commit, subject = last
    return f"{lead}{commit[:7]}" + (f' "{plain(subject, 72)}"' if subject else "")


def notes(
    desired: DesiredState, live: LiveState, fingerprints: Fingerprints, options: PlanOptions, different: set[str]
) -> Iterator[str]:
    running = live.apps
    for app_id in sorted(options.targets - desired.apps.keys() - desired.broken.keys() - running.keys()):
        yield f"--target {app_id}: there is no such app"
    for app_id in sorted(desired.apps.keys() & running.keys() - different):
        app = running[app_id]
        if app.status != "RUNNING":
            said = f": {app.message}" if app.message else ""
            yield f"{app_id} runs what git says and is {app.status}{said}"
        elif app.updating:
            yield f"{app_id} is being brought to what git says"
    for app_id, names in not_compared(desired, fingerprints, live):
        yield f"{app_id}: {count(len(names), 'secret')} not compared ({listed(names)})"
    if desired.strangers:
        yield f"cluster.yaml cannot give rights here, they are said outside the repository: {listed(desired.strangers)}"
    worker, mode = live.worker, desired.cluster.compute.mode
    if worker is not None and worker.mode != mode:
        yield f"cluster.yaml says compute.mode {mode}, the worker runs in {worker.mode}"
