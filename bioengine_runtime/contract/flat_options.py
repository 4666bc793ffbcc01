"""Options of `@bioengine.app` (format 0.6.0) as Ray Serve's: the same names flat that Serve wants nested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

MIB = 1024 * 1024
PLACES: Mapping[str, tuple[str, ...]] = {
    "num_cpus": ("ray_actor_options", "num_cpus"),
    "num_gpus": ("ray_actor_options", "num_gpus"),
    "gpu_memory_mb": ("ray_actor_options", "num_gpus"),
    "memory_mb": ("ray_actor_options", "memory"),
    "pip": ("ray_actor_options", "runtime_env", "pip"),
    "env_vars": ("ray_actor_options", "runtime_env", "env_vars"),
}
"""Where each flat option belongs; what is not here is Serve's own option already."""

_TODAY = {"target_num_ongoing_requests_per_replica": "target_ongoing_requests"}
"""Names that apps write and Serve passes over in silence."""


def as_serve(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested options. What `ray_actor_options` says itself is laid over what the flat ones say."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        if name in PLACES and value is not None:
            _put(nested, PLACES[name], _in_rays_units(name, value))
    own = {name: value for name, value in flat.items() if name not in PLACES}
    scaling = cast("object", own.get("autoscaling_config"))
    if isinstance(scaling, Mapping):
        own["autoscaling_config"] = {
            _TODAY.get(name, name): value for name, value in cast("Mapping[str, Any]", scaling).items()
        }
    return _laid_over(nested, own)


def place(name: str) -> str:
    """Where an option whose value is computed belongs: `memory_mb` → `ray_actor_options.memory`."""
    return ".".join(PLACES.get(name, (name,)))


def _in_rays_units(name: str, value: Any) -> Any:
    if name == "memory_mb" and isinstance(value, int | float):
        return int(value * MIB)
    # Ray knows whole GPUs; an app that asks for a part of one's memory gets all of it.
    return (1 if value else 0) if name == "gpu_memory_mb" else value


def _put(into: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *folders, last = path
    for folder in folders:
        into = into.setdefault(folder, {})
    if last == "num_gpus" and last in into:
        value = max(into[last], value)
    into[last] = value


def _laid_over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        if isinstance(under, dict) and isinstance(value, Mapping):
            merged[name] = _laid_over(cast("dict[str, Any]", under), cast("Mapping[str, Any]", value))
        else:
            merged[name] = value
    return merged
