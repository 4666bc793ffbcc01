"""An app's status in the shape that clients of the worker know. What only insiders may see is left out for the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from bioengine_runtime.access import USER_OWNER
from bioengine_runtime.apps.record import AppRecord, DeploymentState, Running
from bioengine_runtime.contract.base import ENTIRE
from bioengine_runtime.contract.status import AppState

HIDDEN = "*****"
NOBODY_SERVES = {"websocket_service_id": None, "webrtc_service_id": None}


def not_running(app_id: str) -> dict[str, Any]:
    return {"status": "NOT_RUNNING", "message": f"Application '{app_id}' is not running."}


def app_status(state: AppState, running: Running | None, logs: Mapping[str, Any], *, insider: bool) -> dict[str, Any]:
    """Parameters, variables, users, messages and logs are for insiders."""
    spec, record = state.spec, running.record if running else None
    deployments = running.deployments if running else ()
    status = {
        "display_name": record.name if record else state.app_id,
        "description": record.description if record else "",
        "artifact_id": spec.artifact_id if spec else None,
        "version": spec.version if spec else None,
        "recovered_app": False,
        "status": state.status,
        "message": state.message if insider else "",
        "deployments": {one.name: _deployment(one, logs, insider=insider) for one in deployments},
        "application_kwargs": spec.kwargs if spec and insider else {},
        "application_env_vars": _variables(state) if insider else {},
        "gpu_enabled": not spec.disable_gpu if spec else None,
        "application_resources": {"num_cpus": None, "num_gpus": None, "memory": None},
        "authorized_users": _users(state) if insider else {},
        "available_methods": state.methods,
        "max_ongoing_requests": spec.max_ongoing_requests if spec else None,
        "static_site_url": state.static_site_url,
        "service_ids": [
            {"websocket_service_id": state.service_id, "webrtc_service_id": None} if state.service_id else NOBODY_SERVES
        ],
        "start_time": state.started_at,
        "last_updated_at": state.last_updated_at,
        "last_updated_by": _updated_by(record) if insider else None,
        "auto_redeploy": False,
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
    return record.provenance.owner.removeprefix(USER_OWNER) if record else None
