"""A plan that asks nobody: as if one commit had been carried out, all of it and nothing else, and every app were well.

Law: planned against what is supposed of itself, a commit has nothing to do; planned against what is supposed of another
one, it has to do what it would after that one was really carried out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bioengine_runtime.contract.base import SecretRef
from bioengine_runtime.contract.cluster import Slurm
from bioengine_runtime.contract.status import AppState, WorkerState
from reconciler.planning.desired import DesiredApp, DesiredState
from reconciler.planning.diff import Fingerprints
from reconciler.planning.digest import digest_of
from reconciler.planning.live import ArtifactVersion, LiveArtifact, LiveState
from reconciler.planning.planner import plan
from reconciler.planning.steps import Plan, PlanOptions
from reconciler.planning.suspending import suspended


def plan_since(desired: DesiredState, then: DesiredState, options: PlanOptions, now: float) -> Plan:
    """What would be done if `then` were what runs, at `now` (seconds since the epoch). It is to be read and not to be
    applied, so it has no id, waits for nobody, and is whoever's who may apply it."""
    live = supposed(then, now)
    made = plan(_for_anybody(desired), live, references(desired), options)
    return replace(made, id="", gate=None, valid_s=0.0, notes=(*made.notes, *_doubts(desired, then, live)))


def supposed(then: DesiredState, now: float = 0.0) -> LiveState:
    """What would run. Of an app whose declaration is broken in that commit, nobody can tell."""
    artifacts: dict[str, LiveArtifact] = {}
    for app in then.apps.values():
        if app.code is not None:  # two apps of one folder share its version
            stored = ArtifactVersion(app.spec.version, app.code.folder.tree)
            artifacts[app.spec.artifact_id] = LiveArtifact(app.spec.artifact_id, (stored,))
    short = then.revision.short
    return LiveState(
        worker=_worker(then),
        artifacts=artifacts,
        observed_at=now,
        supposed=then.revision,
        unknown=dict.fromkeys(then.broken, f"its declaration is broken in {short}, so nobody can tell what runs of it"),
    )


def references(desired: DesiredState) -> Fingerprints:
    """What stands for the fingerprints of secrets, of which no value is read: hashes of where they are read from, or of
    the encrypted text."""
    return {app_id: _references(app) for app_id, app in desired.apps.items()}


def _for_anybody(desired: DesiredState) -> DesiredState:
    policy = desired.cluster.policy.model_copy(update={"pruners": None})
    return replace(desired, cluster=desired.cluster.model_copy(update={"policy": policy}))


def _references(app: DesiredApp) -> dict[str, str]:
    each = {f"{class_name}/{name}": ref for class_name, table in app.secrets.items() for name, ref in table.items()}
    return {key: _hash(ref) for key, ref in each.items()}


def _hash(ref: SecretRef) -> str:
    return digest_of(ref.model_dump())


def _worker(then: DesiredState) -> WorkerState:
    """Without nodes, since free resources are not known, and of no workspace, so that an artifact which is not of this
    repository is not missed."""
    compute = then.cluster.compute
    bounds = {"min": compute.workers.min, "max": compute.workers.max} if isinstance(compute, Slurm) else None
    return WorkerState(
        service_id="",
        workspace="",
        mode=compute.mode,
        bioengine_version="",
        ray_version="",
        apps=[_running(app) for app in then.apps.values()],
        workers=bounds,
    )


def _running(app: DesiredApp) -> AppState:
    return AppState(
        app_id=app.app_id,
        status="RUNNING",
        spec=app.spec,
        digest=app.spec.digest(),
        secret_fingerprints=_references(app),
        provenance=app.provenance,
    )


def _doubts(desired: DesiredState, then: DesiredState, live: LiveState) -> Iterator[str]:
    """Where even a cluster that follows git to the letter may not be what is supposed."""
    short = then.revision.short
    if _place(desired) != _place(then):
        yield f"cluster.yaml leads to another Hypha, workspace or worker than in {short}; what runs there is not known"
    for app_id in sorted(then.apps.keys() & desired.apps.keys()):
        if suspended(app_id, then.apps[app_id], live, then.revision.id):
            yield f"{app_id} is suspended in {short}, so what runs of it may be older"


def _place(desired: DesiredState) -> tuple[str, str | None, str]:
    hypha = desired.cluster.hypha
    return hypha.server_url, hypha.workspace, hypha.worker
