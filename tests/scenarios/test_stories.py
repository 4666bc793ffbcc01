"""Each folder here is a story: `desired/` as it stands in git and `live.yaml` give `plan.txt` and `report.yaml`.

live.yaml says how live differs from what is wanted, so that no digest has to be written by hand:

    commit, changed   the newest commit; which commit last touched a folder (id, subject)
    apps              app id → how it runs: `was` (fields of the spec that are otherwise), `spec` (all of it, for an app
                      that git does not name), tree, commit, owner (null: nobody), status, message, updating,
                      rejected (why the wanted version did not come up), secrets: changed, by (who changed it by hand),
                      at (when it was changed), replicas (id → wanted | other: the code that it says it runs)
    artifacts         alias → stored | staged | {versions: {name: tree}}
    nodes, workers    node → what is free; bounds
    unseen            question → why it got no answer
    now               when it is, ISO 8601
    orders            what people ordered: kind, subject, by, reason, until, revision, once; a pin is for what git wants
    seconds           app id → how long its latest deployments took
    options           targets, prune_confirmed, force
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.status import AppState, Provenance, Rejection, ReplicaState
from reconciler.planning import drift, render_text
from reconciler.planning.declare import declare
from reconciler.planning.desired import DesiredApp, DesiredState
from reconciler.planning.live import ArtifactVersion, LiveArtifact, LiveState, Unseen
from reconciler.planning.memory import Order, OrderKind, Remembered
from reconciler.planning.planner import plan
from reconciler.planning.source import Blob, Folder, Revision, SourceTree
from reconciler.planning.steps import PlanOptions
from tests.builders import a_node, a_worker, keys_of

HERE = Path(__file__).parent
STORIES = sorted(path.parent.name for path in HERE.glob("*/live.yaml"))
WORKSPACE = "lab"
SOURCE = "https://git.example/lab/apps"
NOW = "2026-11-03T10:00:00+00:00"
COMMIT = {"id": "9c1e7d2", "subject": "Newest commit"}


@pytest.mark.parametrize("story", STORIES)
def test_the_story_is_told_as_before(story: str, request: pytest.FixtureRequest) -> None:
    said = yaml.safe_load((HERE / story / "live.yaml").read_text()) or {}
    desired = declare(a_source(HERE / story / "desired", said), workspace=WORKSPACE)
    live = a_live_state(desired, said)
    known = {app_id: dict.fromkeys(keys_of(app.secrets), "f" * 16) for app_id, app in desired.apps.items()}
    made = plan(desired, live, known, options_of(said))
    text = render_text.render(made, command=f"reconcile {'apply' if made.steps else 'get'} .").plain + "\n"
    report = yaml.safe_dump(drift.report(made, live), sort_keys=False, allow_unicode=True, width=120)
    for name, content in (("plan.txt", text), ("report.yaml", report)):
        file = HERE / story / name
        if request.config.getoption("--update", default=False):
            file.write_text(content)
        assert file.exists(), "not told yet: pytest tests/scenarios --update"
        assert content == file.read_text()


def test_there_are_stories() -> None:
    assert len(STORIES) >= 24


def options_of(said: Mapping[str, Any]) -> PlanOptions:
    options = dict(said.get("options", {}))
    return PlanOptions(**{**options, "targets": frozenset(options.get("targets", ()))})


# ── desired/ as git would give it ──────────────────────────────────────────────────────────────────────────────────


def a_source(root: Path, said: Mapping[str, Any]) -> SourceTree:
    contents: dict[str, bytes] = {}
    folders = [a_git_folder(root, path, contents) for path in sorted((root / "apps").iterdir())]
    commit = said.get("commit", COMMIT)
    return SourceTree(
        revision=Revision(SOURCE, "main", an_id(commit["id"]), commit["subject"]),
        cluster_file=a_blob(root / "cluster.yaml", contents),
        folders={folder.path: folder for folder in folders},
        read=contents.__getitem__,
        changed={path: (an_id(one["id"]), one["subject"]) for path, one in said.get("changed", {}).items()},
    )


def a_git_folder(root: Path, path: Path, contents: dict[str, bytes]) -> Folder:
    files = {str(file.relative_to(path)): a_blob(file, contents) for file in sorted(path.rglob("*")) if file.is_file()}
    return Folder(str(path.relative_to(root)), a_git_tree(path, files), files)


def a_git_tree(path: Path, files: Mapping[str, Blob]) -> str:
    """The id that git gives a folder of plain files."""
    entries = b"".join(
        b"100644 " + name.encode() + b"\0" + bytes.fromhex(blob.oid) for name, blob in sorted(files.items())
    )
    assert not any("/" in name for name in files), f"{path}: stories have flat folders"
    return hashlib.sha1(b"tree %d\0" % len(entries) + entries).hexdigest()


def a_blob(file: Path, contents: dict[str, bytes]) -> Blob:
    data = file.read_bytes()
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    contents[oid] = data
    return Blob(oid, len(data))


def an_id(short: str) -> str:
    return short.ljust(40, "0")


# ── live.yaml ──────────────────────────────────────────────────────────────────────────────────────────────────────


def a_live_state(desired: DesiredState, said: Mapping[str, Any]) -> LiveState:
    unseen = said.get("unseen", {})
    apps = [a_running_app(app_id, how, desired, said) for app_id, how in said.get("apps", {}).items()]
    nodes = [a_node(name, **free) for name, free in said.get("nodes", {}).items()]
    stored = [an_artifact(alias, how, desired) for alias, how in said.get("artifacts", {}).items()]
    fields = {
        "workspace": WORKSPACE,
        "service_id": f"{WORKSPACE}/bioengine-worker",
        "mode": desired.cluster.compute.mode,
    }
    return LiveState(
        worker=None if "apps" in unseen else a_worker(*apps, nodes=nodes, workers=said.get("workers"), **fields),
        artifacts=None if "artifacts" in unseen else {artifact.artifact_id: artifact for artifact in stored},
        unseen=tuple(Unseen(what, why) for what, why in unseen.items()),
        remembered=None if "memory" in unseen else what_is_remembered(desired, said),
        observed_at=a_time(said.get("now", NOW)),
    )


def what_is_remembered(desired: DesiredState, said: Mapping[str, Any]) -> Remembered:
    orders = [an_order(one, desired) for one in said.get("orders", ())]
    seconds = {app_id: tuple(map(float, took)) for app_id, took in said.get("seconds", {}).items()}
    return Remembered(orders=tuple(orders), seconds=seconds)


def an_order(how: Mapping[str, Any], desired: DesiredState) -> Order:
    kind = OrderKind(how["kind"])
    until = a_time(how["until"]) if "until" in how else None
    digest = desired.apps[how["subject"]].spec.digest() if kind is OrderKind.PIN else ""
    revision = an_id(how.get("revision", ""))
    once = how.get("once", False)
    return Order(kind, how["subject"], how["by"], a_time(NOW), how.get("reason", ""), until, revision, digest, once)


def a_time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def a_running_app(app_id: str, how: Mapping[str, Any], desired: DesiredState, said: Mapping[str, Any]) -> AppState:
    wanted = desired.apps.get(app_id)
    spec = a_spec(app_id, wanted, how)
    owner = how.get("owner", desired.cluster.name)
    tree = an_id(how["tree"]) if "tree" in how else wanted.provenance.tree if wanted else None
    commit = an_id(how.get("commit", said.get("commit", COMMIT)["id"]))
    prints = {key: "0" * 16 if how.get("secrets") else "f" * 16 for key in keys_of(wanted.secrets if wanted else {})}
    rejected = how.get("rejected")
    return AppState(
        app_id=app_id,
        status=how.get("status", "RUNNING"),
        message=how.get("message", ""),
        spec=spec,
        digest=spec.digest(),
        secret_fingerprints=prints,
        provenance=Provenance(owner=owner, source=SOURCE, commit=commit, tree=tree, by=how.get("by"))
        if owner
        else None,
        rejected=Rejection(digest=wanted.spec.digest(), reason=rejected, at=0.0) if wanted and rejected else None,
        updating=how.get("updating", False),
        last_updated_at=a_time(how["at"]) if "at" in how else None,
        replicas=[a_replica(name, code, spec) for name, code in how.get("replicas", {}).items()],
    )


def a_replica(name: str, code: str, spec: AppSpec) -> ReplicaState:
    digest = spec.code_digest() if code == "wanted" else "0" * 64
    return ReplicaState(deployment="Demo", replica_id=name, state="RUNNING", code_digest=digest)


def a_spec(app_id: str, wanted: DesiredApp | None, how: Mapping[str, Any]) -> AppSpec:
    fields = wanted.spec.model_dump() if wanted else {}
    return AppSpec.model_validate({"app_id": app_id, **fields, **how.get("spec", {}), **how.get("was", {})})


def an_artifact(alias: str, how: Any, desired: DesiredState) -> LiveArtifact:
    artifact_id = f"{WORKSPACE}/{alias}"
    if how == "staged":
        return LiveArtifact(artifact_id, (), staged=True)
    if how == "stored":
        apps = [app for app in desired.apps.values() if app.spec.artifact_id == artifact_id]
        names = {app.spec.version: app.provenance.tree for app in apps}
    else:
        names = {name: an_id(tree) for name, tree in how["versions"].items()}
    return LiveArtifact(artifact_id, tuple(ArtifactVersion(name, tree) for name, tree in names.items()))
