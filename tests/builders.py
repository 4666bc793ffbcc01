"""Valid values, one keyword away from any case."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.base import SecretFromEnv
from bioengine_runtime.contract.cluster import ClusterSpec, SelfHeal, Suspension, artifact_version
from bioengine_runtime.contract.code import ClassFacts
from bioengine_runtime.contract.manifest import AppManifest
from bioengine_runtime.contract.status import AppState, NodeState, Provenance, Rejection, WorkerState
from reconciler.planning.approving import shown
from reconciler.planning.desired import AppCode, DesiredApp, DesiredState
from reconciler.planning.live import ArtifactVersion, LiveArtifact, LiveState, Unseen
from reconciler.planning.memory import Order, OrderKind, Remembered
from reconciler.planning.problems import Location, Problem
from reconciler.planning.source import Blob, Folder, Revision
from reconciler.planning.steps import Plan, SecretTable

CLUSTER = "prod"
WORKSPACE = "ws"
COMMIT = "9c1e7d2" + "0" * 33
OLD_COMMIT = "4c45ada" + "0" * 33
SOURCE = "https://git.example/lab/apps"
GIB = 2.0**30
NOW = 1_793_700_000.0
"""2026-11-03 10:00 UTC, a Tuesday."""


def an_oid(text: str) -> str:
    """40 hex digits that depend on the text alone, as a git id does on content."""
    return hashlib.sha1(text.encode()).hexdigest()


def a_revision(
    *, commit: str = COMMIT, subject: str = "Bump demo-app", ref: str = "main", worktree: bool = False
) -> Revision:
    return Revision(SOURCE, ref, commit, subject, worktree)


def a_folder(
    name: str = "demo-app", *, content: str = "v1", files: Iterable[str] = ("manifest.yaml", "main.py")
) -> Folder:
    """An app folder; another `content` is another tree."""
    blobs = {path: Blob(an_oid(f"{name}/{path}/{content}"), 1_000) for path in files}
    return Folder(f"apps/{name}", an_oid(f"{name} {content}"), blobs)


a_tree = a_folder


def a_class(name: str = "Main", *, unknown: tuple[str, ...] = (), **ray_actor_options: Any) -> ClassFacts:
    options = {"ray_actor_options": {"num_cpus": 1, **ray_actor_options}}
    return ClassFacts(name, "main", 1, options, unknown, (), (), False, ("ping",))


def a_manifest(alias: str = "demo-app", *, version: str = "1.0.0", **fields: Any) -> AppManifest:
    return AppManifest.model_validate(
        {
            "id": alias,
            "name": alias,
            "id_emoji": "🔬",
            "description": "An app",
            "type": "ray-serve",
            "version": version,
            "deployments": ["main:Main"],
            **fields,
        }
    )


def some_code(
    name: str = "demo-app", *, content: str = "v1", version: str = "1.0.0", classes: Iterable[ClassFacts] | None = None
) -> AppCode:
    return AppCode(
        a_folder(name, content=content),
        a_manifest(name, version=version),
        tuple(classes or (a_class(runtime_env={"pip": ["numpy==2.0"]}),)),
    )


def an_app(
    app_id: str = "demo-app",
    *,
    code: AppCode | str | None = "own",
    owner: str = CLUSTER,
    commit: str = COMMIT,
    secrets: SecretTable | None = None,
    depends_on: tuple[str, ...] = (),
    suspend: bool | str | Suspension = False,
    self_heal: SelfHeal | None = None,
    ignore: tuple[str, ...] = (),
    line: int = 7,
    **spec: Any,
) -> DesiredApp:
    """One instance of its own folder; `code=None` is an instance of an artifact that is not in the repository."""
    own = some_code(app_id) if code == "own" else code
    assert not isinstance(own, str)
    tree = own.folder.tree if own else None
    alias = own.manifest.id if own else "elsewhere"
    version = artifact_version(own.manifest.version, own.folder.tree) if own else "1.0.0"
    names = {class_name: list(table) for class_name, table in (secrets or {}).items()}
    fields = {
        "artifact_id": f"{WORKSPACE}/{alias}",
        "version": version,
        "authorized_users": ["*"],
        "secrets": names,
        **spec,
    }
    return DesiredApp(
        spec=AppSpec.model_validate({"app_id": app_id, **fields}),
        secrets=secrets or {},
        provenance=Provenance(
            owner=owner, source=SOURCE, commit=commit, path=own.folder.path if own else None, tree=tree
        ),
        code=own,
        where=Location("cluster.yaml", line, 3),
        depends_on=depends_on,
        suspend=suspend,
        self_heal=self_heal,
        ignore=ignore,
    )


def a_secret(name: str = "DB_PASS", *, class_name: str = "*", env: str = "CI_DB_PASS") -> SecretTable:
    return {class_name: {name: SecretFromEnv(env=env)}}


def a_cluster(
    *, policy: Mapping[str, Any] | None = None, compute: Mapping[str, Any] | None = None, apps: Iterable[str] = ()
) -> ClusterSpec:
    return ClusterSpec.model_validate(
        {
            "name": CLUSTER,
            "compute": dict(compute or {"mode": "single-machine"}),
            "policy": dict(policy or {}),
            "apps": {app_id: {"source": f"apps/{app_id}"} for app_id in apps},
        }
    )


def a_problem(app_id: str = "demo-app", message: str = "expected file:Class") -> Problem:
    return Problem(Location(f"apps/{app_id}/manifest.yaml", 3, 1), message, fix="write main:Main", app_id=app_id)


def a_desired(
    *apps: DesiredApp,
    broken: Mapping[str, tuple[Problem, ...]] | None = None,
    unused: tuple[str, ...] = (),
    policy: Mapping[str, Any] | None = None,
    compute: Mapping[str, Any] | None = None,
    revision: Revision | None = None,
    changed: Mapping[str, tuple[str, str]] | None = None,
    rewritten: bool = False,
) -> DesiredState:
    broken = broken or {}
    names = [*(app.app_id for app in apps), *broken]
    return DesiredState(
        revision=revision or a_revision(),
        cluster=a_cluster(policy=policy, compute=compute, apps=names),
        apps={app.app_id: app for app in apps},
        broken=broken,
        unused=unused,
        changed=changed,
        rewritten=rewritten,
    )


def a_status(app: DesiredApp, *, rejected: str | None = None, **fields: Any) -> AppState:
    """The app as it runs when it runs as wanted; `rejected` is the digest of a version that did not come up."""
    prints = dict.fromkeys(keys_of(app.secrets), "f" * 16)
    failed = (
        Rejection(digest=rejected, secret_fingerprints=prints, reason="it raised in __init__", at=0.0)
        if rejected
        else None
    )
    return AppState.model_validate(
        {
            "app_id": app.app_id,
            "status": "RUNNING",
            "spec": app.spec,
            "digest": app.spec.digest(),
            "provenance": app.provenance,
            "secret_fingerprints": prints,
            "rejected": failed,
            **fields,
        }
    )


def keys_of(secrets: SecretTable) -> list[str]:
    return [f"{class_name}/{name}" for class_name, table in secrets.items() for name in table]


def an_artifact(app: DesiredApp, *more: ArtifactVersion, staged: bool = False) -> LiveArtifact:
    """The artifact of an app's folder, its version stored."""
    tree = app.code.folder.tree if app.code else None
    return LiveArtifact(app.spec.artifact_id, (ArtifactVersion(app.spec.version, tree), *more), staged)


def a_node(name: str = "gn01", **free: float) -> NodeState:
    return NodeState(node_id=name, address=name, head=False, total=dict(free), free=dict(free))


def a_worker(*apps: AppState, **fields: Any) -> WorkerState:
    return WorkerState.model_validate(
        {
            "service_id": f"{WORKSPACE}/client:bioengine-worker",
            "workspace": WORKSPACE,
            "mode": "single-machine",
            "bioengine_version": "0.1.0",
            "ray_version": "2.60.0",
            "apps": list(apps),
            **fields,
        }
    )


def a_live(
    *apps: AppState,
    artifacts: Iterable[LiveArtifact] | None = (),
    unseen: Iterable[str] = (),
    orders: Iterable[Order] = (),
    seconds: Mapping[str, tuple[float, ...]] | None = None,
    at: float = NOW,
    **worker: Any,
) -> LiveState:
    """What is seen at `at`; a name in `unseen` (`apps`, `artifacts`, `memory`) is what was not."""
    missing = tuple(Unseen(what, "no answer within 10 s") for what in unseen)
    names = {one.what for one in missing}
    return LiveState(
        worker=None if "apps" in names else a_worker(*apps, **worker),
        artifacts=None if "artifacts" in names else {artifact.artifact_id: artifact for artifact in artifacts or ()},
        unseen=missing,
        remembered=None if "memory" in names else Remembered(orders=tuple(orders), seconds=dict(seconds or {})),
        observed_at=at,
    )


def a_world(*apps: DesiredApp, **desired: Any) -> tuple[DesiredState, LiveState]:
    """Desired and live that agree: every app runs as wanted, every folder is stored."""
    artifacts = {app.spec.artifact_id: an_artifact(app) for app in apps if app.code}
    return a_desired(*apps, **desired), a_live(*(a_status(app) for app in apps), artifacts=artifacts.values())


def an_approval(made: Plan, desired: DesiredState, live: LiveState, by: str = "anna", **fields: Any) -> Order:
    """A yes to the plan as it was made from these."""
    return Order(OrderKind.APPROVE, made.id, by, NOW, shown=shown(made, desired, live), **fields)
