"""The decorators of format 0.6.0, as thin names for what Ray Serve and hypha-rpc have already.

@bioengine.app(num_cpus=1, memory_mb=512, pip=["pandas"])    → serve.deployment with nested options
@bioengine.method                                            → hypha_rpc's schema_method
@bioengine.async_init, smoke_test, health_check              → async_init, test_deployment, check_health
@bioengine.multiplexed(max_models=3)                         → serve.multiplexed
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from hypha_rpc.utils.schema import schema_method
from ray import serve

from bioengine_runtime.apps.handles import APP_MARK
from bioengine_runtime.contract.flat_options import as_serve

Function = TypeVar("Function", bound=Callable[..., Any])
HOOK = "__bioengine_hook__"
RESERVED = ("async_init", "test_deployment", "check_health")
"""What the runtime calls these methods; in format 0.6.0 their names are the author's to choose."""

DEFAULTS = {"max_ongoing_requests": 10}
"""Where the format promises another number than Serve."""


def app(cls: type | None = None, /, **options: Any) -> Any:
    """Make a class a deployment. Raises TypeError for a method that bears a reserved name, and for two methods with
    one task."""
    if cls is None:
        return lambda decorated: app(decorated, **options)
    for name in RESERVED:
        if name in vars(cls):
            raise TypeError(f"{cls.__name__}.{name}: choose another name and put the decorator for it above")
    for hook, name in _hooks(cls).items():
        setattr(cls, hook, getattr(cls, name))
    setattr(cls, APP_MARK, True)
    return serve.deployment(**as_serve({**DEFAULTS, **options}))(cls)


def method(function: Callable[..., Any] | None = None, /, *, context: bool = False) -> Any:
    """Offer a method to callers. With `context`, a parameter of that name is given who calls."""
    if function is None:
        return lambda decorated: method(decorated, context=context)
    if context and "context" not in inspect.signature(function).parameters:
        raise TypeError(f"{function.__qualname__} is to be given who calls, but has no parameter `context` to take it")
    # Arrays and images pass as they are; what JSON cannot describe has no schema.
    return schema_method(function, arbitrary_types_allowed=True)


def async_init(function: Function) -> Function:
    """Run once before the replica takes requests."""
    return _hooked(function, "async_init")


def smoke_test(function: Function) -> Function:
    """Run once after it; what it raises fails the start."""
    return _hooked(function, "test_deployment")


def health_check(function: Function) -> Function:
    """Run again and again; what it raises makes the replica unhealthy."""
    return _hooked(function, "check_health")


def multiplexed(function: Callable[..., Any] | None = None, /, *, max_models: int = 3) -> Any:
    """Keep the models that this method loads, `max_models` of them per replica."""
    return serve.multiplexed(function, max_num_models_per_replica=max_models)


def _hooks(cls: type) -> dict[str, str]:
    """What the runtime calls → the name that the author chose, also in a base class."""
    found: dict[str, str] = {}
    for name in dir(cls):
        hook = getattr(getattr(cls, name, None), HOOK, None)
        if hook in found and name not in RESERVED:
            raise TypeError(f"{cls.__name__}.{found[hook]} and .{name} are both {hook}; keep one of the decorators")
        if hook and name not in RESERVED:
            found[hook] = name
    return found


def _hooked(function: Function, hook: str) -> Function:
    setattr(function, HOOK, hook)
    return function
