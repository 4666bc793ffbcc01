"""What one deployment asks for: the author's decorator, overridden by the instance's spec. Pure.

Law: everything that needs a new replica when it changes is in `release`, and nothing else is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bioengine_runtime.apps.errors import BadApp
from bioengine_runtime.contract.app import AppSpec, for_class
from bioengine_runtime.contract.base import ENTIRE

START_ATTEMPTS = 2
"""One more try forgives a lost node or a slow download; a broken app fails its second start as surely as its first."""

ONGOING, QUEUED = 10, 100
"""Requests that a replica of the entry works on, and that may wait, when nobody says how many."""

AUTHOR_DECIDES = (
    "num_replicas",
    "autoscaling_config",
    "max_ongoing_requests",
    "max_queued_requests",
    "health_check_period_s",
    "health_check_timeout_s",
    "graceful_shutdown_wait_loop_s",
    "max_replicas_per_node",
    "placement_group_bundles",
    "placement_group_strategy",
)
"""Decorator options handed on to Serve as they are, unless the spec says otherwise. The rest is ours."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One deployment, ready to be handed to Serve."""

    name: str
    actor_options: Mapping[str, Any]
    options: Mapping[str, Any]
    user_config: Any
    requirements: tuple[str, ...]
    release: str


def wanted(
    spec: AppSpec,
    class_name: str,
    decorator: Mapping[str, Any],
    *,
    fingerprints: Mapping[str, str],
    entry: bool,
) -> Wanted:
    """Merge what the author wrote at the class with what the instance asks for."""
    author = dict(decorator.get("ray_actor_options") or {})
    runtime_env = dict(author.pop("runtime_env", None) or {})
    packages = packages_of(runtime_env)
    author_env = runtime_env.pop("env_vars", None) or {}
    env = {**author_env, **for_class(spec.env, class_name)}
    if env:
        runtime_env["env_vars"] = {name: str(value) for name, value in sorted(env.items())}
    if spec.disable_gpu:
        author["num_gpus"] = 0
    if (gpus := author.get("num_gpus") or 0) % 1:
        raise BadApp(
            f"{class_name} asks for {gpus:g} GPU, and a GPU is not shared between apps; "
            "set num_gpus to 1 or 0, or deploy the app with disable_gpu"
        )
    if runtime_env:
        author["runtime_env"] = runtime_env
    options = {key: decorator[key] for key in AUTHOR_DECIDES if decorator.get(key) is not None}
    options |= _scale(spec, class_name, options)
    options |= _rollout(spec)
    if entry:
        options |= _capacity(spec, options)
    return Wanted(
        name=class_name,
        actor_options=author,
        options=options,
        user_config=decorator.get("user_config"),
        requirements=packages,
        release=_release(spec, class_name, fingerprints),
    )


def packages_of(runtime_env: dict[str, Any]) -> tuple[str, ...]:
    """Take the Python packages out of a runtime_env, in any of the spellings Ray knows."""
    found: list[str] = []
    for key in ("pip", "uv"):
        asked = runtime_env.pop(key, None)
        if isinstance(asked, Mapping):
            asked = asked.get("packages")
        if isinstance(asked, str):
            raise BadApp(f'runtime_env: {key}: give a list of requirements, not the file "{asked}"')
        found += [str(one).strip() for one in asked or () if str(one).strip()]
    return tuple(dict.fromkeys(found))


def resources(actor_options: Mapping[str, Any]) -> dict[str, float]:
    """What one replica takes from a node, in Ray's names; memory in bytes."""
    asked = {
        "CPU": actor_options.get("num_cpus", 1),
        "GPU": actor_options.get("num_gpus", 0),
        "memory": actor_options.get("memory", 0),
        **(actor_options.get("resources") or {}),
    }
    return {name: float(amount) for name, amount in asked.items() if amount}


def doubts(spec: AppSpec, class_name: str, decorator: Mapping[str, Any]) -> list[str]:
    """What the author of the entry may not have meant, as sentences."""
    meant = decorator.get("max_ongoing_requests")
    if not meant or meant >= (spec.max_ongoing_requests or meant):
        return []
    return [
        f"{class_name} is written for {meant} requests at once and gets {spec.max_ongoing_requests}; "
        "max_ongoing_requests of the instance decides"
    ]


def total(each: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`ray_actor_options` of one replica of every deployment, added up in the words of the status. memory in bytes."""
    one_of_each = [resources(options) for options in each]
    return {
        name: sum(one.get(rays_name, 0.0) for one in one_of_each)
        for name, rays_name in (("num_cpus", "CPU"), ("num_gpus", "GPU"), ("memory", "memory"))
    }


def lacks(asked: Mapping[str, float], there: Mapping[str, float]) -> str:
    """What of `asked` is not `there`, as "4 CPU, has 2"; empty when nothing is."""
    return " and ".join(
        f"{amount(name, needed)}, has {amount(name, there.get(name, 0.0), unit=False)}"
        for name, needed in asked.items()
        if needed > there.get(name, 0.0) * (1 + 1e-9) + 1e-9
    )


def amount(name: str, value: float, *, unit: bool = True) -> str:
    """Of a resource, for people; memory in GB."""
    if name == "memory":
        return f"{value / 1024**3:.3g} GB" + (" of memory" if unit else "")
    return f"{value:g}" + (f" {name}" if unit else "")


def _scale(spec: AppSpec, class_name: str, author: Mapping[str, Any]) -> dict[str, Any]:
    autoscaling = spec.autoscaling.get(class_name) or spec.autoscaling.get(ENTIRE)
    replicas = spec.replicas.get(class_name) or spec.replicas.get(ENTIRE)
    if autoscaling:
        return {"num_replicas": None, "autoscaling_config": autoscaling.model_dump()}
    if replicas:
        return {"num_replicas": replicas, "autoscaling_config": None}
    if author.get("autoscaling_config"):
        return {"num_replicas": None}
    return {}


def _capacity(spec: AppSpec, author: Mapping[str, Any]) -> dict[str, Any]:
    """Of the entry: the instance's word, else the author's, else ours. Serve's own would queue without end."""
    queued = author.get("max_queued_requests", -1)
    return {
        "max_ongoing_requests": spec.max_ongoing_requests or author.get("max_ongoing_requests") or ONGOING,
        "max_queued_requests": spec.max_queued_requests or (queued if queued > 0 else QUEUED),
    }


def _rollout(spec: AppSpec) -> dict[str, Any]:
    return {
        "max_surge_percent": 100 if spec.rollout.surge else 0,
        "graceful_shutdown_timeout_s": spec.rollout.drain_timeout_s,
        "max_constructor_retry_count": START_ATTEMPTS,
    }


def _release(spec: AppSpec, class_name: str, fingerprints: Mapping[str, str]) -> str:
    mine = {name: print_ for name, print_ in fingerprints.items() if name.split("/")[0] in (class_name, ENTIRE)}
    return _hash({"code": spec.code_digest(), "secrets": mine})


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
