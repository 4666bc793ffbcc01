"""An app that runs, as the entry of cluster.yaml that would have deployed it."""

from __future__ import annotations

from typing import Any

from bioengine_runtime.contract.app import HYPHA_TOKEN, AppSpec, Autoscaling
from bioengine_runtime.contract.base import ENTIRE
from bioengine_runtime.contract.status import AppState

_AS_THEY_ARE = ("disable_gpu", "max_ongoing_requests", "max_queued_requests", "auto_redeploy", "debug")


def entry_of(app: AppState) -> tuple[dict[str, Any], list[str]]:
    """(the entry, names of the environment variables its secrets are to be read from). Only what is not the default.

    A running app shows the names of its secrets and no values: whoever adopts it gives them again. Raises ValueError
    for an app that was not deployed through this contract, so that nobody knows what it was deployed with.
    """
    spec = app.spec
    if spec is None:
        raise ValueError(f"{app.app_id} runs, but what it was deployed with is not known")
    names: list[str] = []
    env: dict[str, dict[str, Any]] = {key: dict(values) for key, values in spec.env.items()}
    entry: dict[str, Any] = {"artifact": spec.artifact_id, "version": spec.version, "adopt": True}
    for key, secrets in spec.secrets.items():
        for name in secrets:
            variable = f"{app.app_id}_{name}".upper().replace("-", "_")
            names.append(variable)
            if (key, name) == (ENTIRE, HYPHA_TOKEN):
                entry["hypha_token"] = {"env": variable}
            else:
                env.setdefault(key, {})[name] = {"env": variable}
    said = {"kwargs": spec.kwargs, "env": env, **_numbers(spec)}
    entry |= {name: content for name, content in said.items() if content}
    entry["authorized_users"] = spec.authorized_users  # also nobody: left out, the policy's default would let people in
    default = AppSpec(app_id=spec.app_id, artifact_id=spec.artifact_id, version=spec.version, authorized_users=[])
    for name in _AS_THEY_ARE:
        if getattr(spec, name) != getattr(default, name):
            entry[name] = getattr(spec, name)
    if spec.rollout != default.rollout:
        entry["rollout"] = spec.rollout.model_dump(mode="json", exclude_defaults=True)
    if spec.ice_servers:
        entry["ice_servers"] = [one.model_dump(mode="json", exclude_defaults=True) for one in spec.ice_servers]
    return entry, names


def _numbers(spec: AppSpec) -> dict[str, Any]:
    """Replicas or their bounds; one number for all stands alone. An app has one or the other."""
    replicas: Any = spec.replicas if set(spec.replicas) != {ENTIRE} else spec.replicas[ENTIRE]
    bounds = {key: _bounds(one) for key, one in spec.autoscaling.items()}
    autoscaling: Any = bounds if set(bounds) != {ENTIRE} else bounds[ENTIRE]
    return {"autoscaling": autoscaling} if autoscaling else {"replicas": replicas}


def _bounds(one: Autoscaling) -> dict[str, Any]:
    return one.model_dump(mode="json", exclude_defaults=True) | {"max_replicas": one.max_replicas}
