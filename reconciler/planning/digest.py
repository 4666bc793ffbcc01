"""Identity of values: SHA-256 over canonical JSON, so that equal content has one digest in any order of its keys."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from reconciler.planning.desired import DesiredState
from reconciler.planning.live import LiveState


def digest_of(content: Any) -> str:
    """`sha256:…` of JSON-like content."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def live_digest(desired: DesiredState, live: LiveState) -> str:
    """Identity of what a plan for `desired` was made from. What comes and goes by itself (health, free resources,
    replicas) is left out, and so are apps and artifacts that are not ours: they make no plan stale."""
    return digest_of([_apps(desired, live), _artifacts(desired, live), live.worker.workers if live.worker else None])


def _apps(desired: DesiredState, live: LiveState) -> list[Any] | None:
    if live.worker is None:
        return None
    owner = desired.cluster.name
    facts: list[Any] = []
    for app in live.worker.apps:
        came_from = app.provenance.owner if app.provenance else None
        if came_from == owner or app.app_id in desired.apps or app.app_id in desired.broken:
            rejected = app.rejected.digest if app.rejected else None
            facts.append([app.app_id, came_from, app.digest, rejected, app.updating, app.secret_fingerprints])
    return sorted(facts, key=_first)


def _artifacts(desired: DesiredState, live: LiveState) -> list[Any] | None:
    if live.artifacts is None:
        return None
    facts: dict[str, Any] = {}
    for app in desired.apps.values():
        artifact_id = app.spec.artifact_id
        artifact = live.artifacts.get(artifact_id)
        if artifact is not None and artifact_id not in facts:
            versions = sorted([version.name, version.tree or ""] for version in artifact.versions)
            facts[artifact_id] = [artifact_id, artifact.staged, versions]
    return [facts[artifact_id] for artifact_id in sorted(facts)]


def _first(facts: list[Any]) -> str:
    return facts[0]
