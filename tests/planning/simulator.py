"""What the outside does when a step is carried out, as a pure function on LiveState."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import assert_never

from bioengine_runtime.contract.status import AppState, NodeState, Rejection
from reconciler.planning.desired import DesiredApp, DesiredState
from reconciler.planning.diff import Fingerprints
from reconciler.planning.effects import needs_of
from reconciler.planning.live import ArtifactVersion, LiveArtifact, LiveState
from reconciler.planning.steps import (
    DeployApp,
    Impact,
    PrepareRuntimeEnv,
    ScaleWorkers,
    SecretTable,
    Step,
    StopApp,
    UpdateApp,
    UploadArtifact,
)


def apply_steps(live: LiveState, steps: Iterable[Step], desired: DesiredState, fingerprints: Fingerprints) -> LiveState:
    for step in steps:
        live = apply_step(live, step, desired, fingerprints)
    return live


def apply_step(
    live: LiveState, step: Step, desired: DesiredState, fingerprints: Fingerprints, bad: Collection[str] = ()
) -> LiveState:
    """Live after the step; asserts that the step's preconditions hold before it. `bad`: digests that never come up."""
    check(live, step)
    verb = step.verb
    match verb:
        case ScaleWorkers():
            return _with_worker(live, workers={"min": verb.min, "max": verb.max})
        case UploadArtifact():
            old = (live.artifacts or {}).get(verb.artifact_id) or LiveArtifact(verb.artifact_id, ())
            stored = (*old.versions, ArtifactVersion(verb.version, verb.folder.tree))
            new = replace(old, versions=stored, staged=False)
            return replace(live, artifacts={**(live.artifacts or {}), verb.artifact_id: new})
        case PrepareRuntimeEnv():
            return live
        case DeployApp() | UpdateApp():
            _check_code_is_stored(live, step, desired.apps[verb.spec.app_id])
            known = fingerprints.get(verb.spec.app_id, {})
            state = AppState(
                app_id=verb.spec.app_id,
                status="RUNNING",
                spec=verb.spec,
                digest=verb.spec.digest(),
                secret_fingerprints={key: known.get(key) or "e" * 16 for key in _keys(verb.secrets)},
                provenance=verb.provenance,
            )
            if state.digest in bad:
                return _with_app(live, verb.spec.app_id, _put_back(live.apps.get(verb.spec.app_id), state))
            live = _with_app(live, verb.spec.app_id, state)
            return _taking_room(live, desired, verb.spec.app_id) if isinstance(verb, DeployApp) else live
        case StopApp():
            return _with_app(live, verb.app_id, None)
        case _:
            assert_never(verb)


def _put_back(before: AppState | None, tried: AppState) -> AppState:
    """What did not come up leaves what ran before as it was, or else itself, failed."""
    prints = tried.secret_fingerprints
    rejected = Rejection(digest=tried.digest or "", secret_fingerprints=prints, reason="it raised in __init__", at=0.0)
    return (before or tried.model_copy(update={"status": "DEPLOY_FAILED"})).model_copy(update={"rejected": rejected})


def staging(live: LiveState, step: Step) -> LiveState:
    """Live after an upload that was killed half way."""
    assert isinstance(step.verb, UploadArtifact)
    old = (live.artifacts or {}).get(step.verb.artifact_id) or LiveArtifact(step.verb.artifact_id, ())
    return replace(live, artifacts={**(live.artifacts or {}), step.verb.artifact_id: replace(old, staged=True)})


def check(live: LiveState, step: Step) -> None:
    """What the step says must be so, is so."""
    app = live.apps.get(step.app_id or "")
    for name, value in step.pre:
        match name:
            case "app.digest":
                assert (app.digest if app else "") == value, step
            case "app.owner":
                assert app is not None and app.provenance is not None and app.provenance.owner == value, step
            case "artifact.version":
                assert isinstance(step.verb, UploadArtifact)
                artifact = (live.artifacts or {}).get(step.verb.artifact_id)
                assert artifact is None or artifact.version(step.verb.version) is None, step
            case "workers":
                assert live.worker is not None
            case _:
                raise AssertionError(f"a precondition nobody checks: {name}")


def _check_code_is_stored(live: LiveState, step: Step, app: DesiredApp) -> None:
    """Replicas that start anew load their code from the artifact."""
    if app.code is not None and step.effect.impact is not Impact.IN_PLACE:
        artifact = (live.artifacts or {}).get(app.spec.artifact_id)
        assert artifact is not None and artifact.version(app.spec.version), step


def _keys(secrets: SecretTable) -> list[str]:
    return [f"{class_name}/{name}" for class_name, table in secrets.items() for name in table]


def _with_app(live: LiveState, app_id: str, state: AppState | None) -> LiveState:
    assert live.worker is not None
    apps = [app for app in live.worker.apps if app.app_id != app_id]
    if state is not None:
        apps.append(state)
    return _with_worker(live, apps=sorted(apps, key=lambda app: app.app_id))


def _with_worker(live: LiveState, **fields: object) -> LiveState:
    assert live.worker is not None
    return replace(live, worker=live.worker.model_copy(update=fields))


def _taking_room(live: LiveState, desired: DesiredState, app_id: str) -> LiveState:
    assert live.worker is not None
    wanted = {}
    for need in needs_of(desired.apps[app_id]) or ():
        for name, amount in need.each.items():
            wanted[name] = wanted.get(name, 0.0) + amount * need.replicas
    nodes = [_less(node, wanted) for node in live.worker.nodes]
    return _with_worker(live, nodes=nodes)


def _less(node: NodeState, wanted: Mapping[str, float]) -> NodeState:
    """Worlds have one node at most, so it takes everything."""
    return node.model_copy(update={"free": {name: free - wanted.get(name, 0.0) for name, free in node.free.items()}})
