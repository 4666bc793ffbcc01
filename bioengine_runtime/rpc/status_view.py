"""Status of the worker and its apps in the shape that clients know, without what only insiders may see for the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import ray

from bioengine_runtime.apps.record import AppRecord, DeploymentState, Running
from bioengine_runtime.contract.base import ENTIRE
from bioengine_runtime.contract.status import PERSON, AppState, NodeState
from bioengine_runtime.rpc.operations import BIOENGINE_VERSION, WorkerFacts
from bioengine_runtime.rpc.wishes import HIDDEN
from bioengine_runtime.worker.nodes import cluster_summary
from bioengine_runtime.worker.pending import Pending

NOT_KNOWN = "N/A"
GEO = ("region", "country_name", "country_code", "latitude", "longitude", "timezone")
RESOURCES = ("num_cpus", "num_gpus", "memory")


def not_running(app_id: str) -> dict[str, Any]:
    return {"status": "NOT_RUNNING", "message": f"Application '{app_id}' is not running."}


def worker_status(
    facts: WorkerFacts,
    nodes: Sequence[NodeState] | None,
    waiting: Pending,
    admins: Sequence[str],
    now: float,
    *,
    insider: bool,
) -> dict[str, Any]:
    """`nodes` None: Ray did not answer. Admins, addresses, who waits and the end of the token are for admins."""
    return {
        "service_start_time": facts.started_at,
        "service_uptime": now - facts.started_at,
        "bioengine_version": BIOENGINE_VERSION,
        "ray_version": ray.__version__,
        "worker_mode": facts.mode,
        "workspace": facts.workspace,
        "client_id": facts.client_id,
        "ray_cluster": {
            "head_address": facts.ray_address if insider else None,
            "start_time": NOT_KNOWN if facts.ray_started_at is None else facts.ray_started_at,
            "mode": facts.mode,
            **cluster_summary(nodes or (), waiting, insider=insider),
        },
        "admin_users": list(admins) if insider else [],
        "geo_location": {name: (facts.geo or {}).get(name) for name in GEO},
        "is_ready": nodes is not None,
        "token_expires_at": facts.token_expires_at if insider else None,
        "startup_failures": dict(facts.startup_failures) if insider else {},
    }


def app_status(
    state: AppState,
    running: Running | None,
    logs: Mapping[str, Any],
    *,
    rtc_service_id: str | None,
    worker_started_at: float,
    insider: bool,
) -> dict[str, Any]:
    """Parameters, variables, users, messages and logs are for insiders. Times in seconds since the epoch."""
    spec, record = state.spec, running.record if running else None
    deployments = running.deployments if running else ()
    status = {
        "display_name": record.name if record else state.app_id,
        "description": record.description if record else "",
        "artifact_id": spec.artifact_id if spec else None,
        "version": spec.version if spec else None,
        "recovered_app": state.started_at is not None and state.started_at < worker_started_at,
        "status": state.status,
        "message": state.message if insider else "",
        "deployments": {one.name: _deployment(one, logs, insider=insider) for one in deployments},
        "application_kwargs": spec.kwargs if spec and insider else {},
        "application_env_vars": _variables(state) if insider else {},
        "gpu_enabled": not spec.disable_gpu if spec else None,
        "application_resources": {name: record.resources.get(name, 0) if record else None for name in RESOURCES},
        "authorized_users": _users(state) if insider else {},
        "available_methods": state.methods,
        "max_ongoing_requests": record.capacity if record else None,
        "static_site_url": state.static_site_url,
        "service_ids": [{"websocket_service_id": state.service_id, "webrtc_service_id": rtc_service_id}],
        "start_time": state.started_at,
        "last_updated_at": state.last_updated_at,
        "last_updated_by": _updated_by(record) if insider else None,
        "auto_redeploy": spec.auto_redeploy if spec else False,
    }
    if insider and state.rejected is not None:
        status["rejected_version"] = state.rejected.model_dump(mode="json")
    return status


def _deployment(one: DeploymentState, logs: Mapping[str, Any], *, insider: bool) -> dict[str, Any]:
    return {
        "status": one.status,
        "message": one.message if insider else "",
        "replica_states": dict(Counter(replica.state for replica in one.replicas)),
        "logs": logs.get(one.name, {}) if insider else {},
    }


def unread(deployments: Collection[DeploymentState], reason: str) -> dict[str, Any]:
    """What stands where the logs would, when they could not be read."""
    return {one.name: {"error": reason} for one in deployments}


def _variables(state: AppState) -> dict[str, dict[str, str]]:
    """Variables by class with their keys in order; of secrets only that they are there."""
    if state.spec is None:
        return {}
    places = sorted(state.spec.env.keys() | state.spec.secrets.keys())
    return {
        place: dict(
            sorted(
                [
                    *state.spec.env.get(place, {}).items(),
                    *((name, HIDDEN) for name in state.spec.secrets.get(place, ())),
                ]
            )
        )
        for place in places
    }


def _users(state: AppState) -> dict[str, list[str]]:
    users = state.spec.authorized_users if state.spec else []
    return dict(users) if isinstance(users, dict) else {ENTIRE: list(users)}


def _updated_by(record: AppRecord | None) -> str | None:
    """Who did it by hand, else the reconciler that owns the app."""
    return record.provenance.by or record.provenance.owner.removeprefix(PERSON) if record else None
