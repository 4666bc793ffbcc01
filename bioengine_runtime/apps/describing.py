"""What only running an app's code can tell: options of its decorator, schemas of its methods, whether its kwargs fit.

Runs in a process that is thrown away, without Ray, tokens or the worker's environment variables.
"""

from __future__ import annotations

import difflib
import inspect
import json
import os
import sys
import traceback
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from bioengine_runtime.apps.errors import BadApp
from bioengine_runtime.apps.loading import load_class, offer_bioengine
from bioengine_runtime.apps.requirements import AUTHOR_DECIDES


class Request(TypedDict):
    """One class to describe. `handles` are the parameters that will be filled with the other deployments."""

    code: str
    layer: str | None
    module: str
    class_name: str
    kwargs: dict[str, Any]
    handles: list[str]
    entry: bool
    environment: dict[str, str]


class Description(TypedDict):
    """The answer; `problem` is empty when the class can be deployed."""

    problem: str
    options: dict[str, Any]
    methods: list[dict[str, Any]]
    multiplexed: bool


def describe(request: Request) -> Description:
    """Import the class and look at it. Never raises for what the app's code does."""
    os.environ.update(request["environment"])
    for folder in (request["layer"], request["code"]):
        if folder and folder not in sys.path:
            sys.path.insert(0, folder)
    offer_bioengine()
    try:
        _keep_ray_away()
        deployment, user_class = load_class(request["code"], request["module"], request["class_name"])
        methods = _methods(user_class)
        problems = _kwargs_problems(user_class, request) + _schema_problems(user_class, methods)
        if request["entry"] and not methods:
            marks = "@schema_method (format 0.6.0: @bioengine.method)"
            problems.append(f"{user_class.__name__} has no {marks}, so nobody could call the app")
        return Description(
            problem="; ".join(problems),
            options=_options(deployment),
            methods=methods if request["entry"] else [],
            multiplexed=_is_multiplexed(user_class),
        )
    except (Exception, SystemExit) as error:
        return failed(_in_words(error, request))


def failed(problem: str) -> Description:
    return Description(problem=problem, options={}, methods=[], multiplexed=False)


def _keep_ray_away() -> None:
    """Code that calls ray.init() when imported must not start or join a cluster from here."""
    import ray

    ray.init = lambda *_args, **_kwargs: None


def _options(deployment: Any) -> dict[str, Any]:
    config = deployment._deployment_config
    named = set(config.user_configured_option_names)
    options = {name: getattr(config, name) for name in (*AUTHOR_DECIDES, "user_config") if name in named}
    scaling = options.get("autoscaling_config")
    if scaling is not None:
        options["autoscaling_config"] = scaling.model_dump(exclude_none=True, exclude={"policy"})
        options.pop("num_replicas", None)
    replica = deployment._replica_config
    for name in ("placement_group_bundles", "placement_group_strategy", "max_replicas_per_node"):
        if getattr(replica, name) is not None:
            options[name] = getattr(replica, name)
    return _plain({**options, "ray_actor_options": deployment.ray_actor_options})


def _methods(user_class: type) -> list[dict[str, Any]]:
    """Public methods that carry a hypha-rpc schema, in the order of the source."""
    found: dict[str, dict[str, Any]] = {}
    for owner in reversed(user_class.__mro__):
        for name, value in vars(owner).items():
            schema = getattr(value, "__schema__", None)
            if isinstance(schema, Mapping) and not name.startswith("_"):
                found[name] = {"name": name, "schema": _plain(dict(schema))}
    return list(found.values())


def _schema_problems(user_class: type, methods: list[dict[str, Any]]) -> list[str]:
    """What an author wrote as a schema by hand, and no caller could be shown."""
    problems: list[str] = []
    for method in methods:
        parameters = method["schema"].get("parameters") or {}
        parts: dict[str, tuple[Any, type]] = {"": (parameters, dict)}
        if isinstance(parameters, dict):
            parts["properties of "] = (parameters.get("properties") or {}, dict)
            parts["required of "] = (parameters.get("required") or [], list)
        problems += [
            f"{user_class.__name__}.{method['name']}: {part}the parameters of its schema must be a "
            f"{'mapping' if kind is dict else 'list'}, not {type(value).__name__}"
            for part, (value, kind) in parts.items()
            if not isinstance(value, kind)
        ]
    return problems


def _kwargs_problems(user_class: type, request: Request) -> list[str]:
    """Names and types of what the instance gives to __init__, against what __init__ takes."""
    where, kwargs, handles = f"{user_class.__name__}.__init__", request["kwargs"], request["handles"]
    parameters = dict(list(inspect.signature(user_class.__init__).parameters.items())[1:])
    if user_class.__init__ is object.__init__:
        parameters = {}
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    named = {name: one for name, one in parameters.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    free = [name for name in named if name not in handles]
    problems = [
        f'{where}: "{name}" is the handle of another deployment, which is passed by itself; remove it from kwargs'
        for name in kwargs
        if name in handles
    ]
    if not takes_all:
        problems += [
            f'{where} has no parameter "{name}"; it takes {", ".join(free) or "none"}{did_you_mean(name, free)}'
            for name in kwargs
            if name not in named and name not in handles
        ]
        problems += [
            f'{where} needs a parameter "{name}: DeploymentHandle" for the deployment in {name}.py'
            for name in handles
            if name not in named
        ]
    problems += [
        f'{where} needs a value for "{name}"; give it under kwargs'
        for name, one in named.items()
        if one.default is one.empty and name not in kwargs and name not in handles
    ]
    return problems + [
        f'{where}, parameter "{name}": {problem}'
        for name in free
        if name in kwargs and (problem := _misfit(user_class, named[name], kwargs[name]))
    ]


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`; did you mean "size"?`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, known, n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def _misfit(user_class: type, parameter: inspect.Parameter, value: Any) -> str:
    """Why a value from JSON is not what the annotation says; empty when it is, or when nobody can tell."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    try:
        hint = _annotation(user_class, parameter)
        # Without conversions: the author's code is given the value as it came. An int is a float in JSON.
        TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        return str(error.errors()[0]["msg"])
    except Exception:  # an annotation that does not resolve, or that pydantic cannot check, is the author's to use
        pass
    return ""


def _annotation(user_class: type, parameter: inspect.Parameter) -> Any:
    """Of one parameter by itself; postponed ones are resolved where `__init__` was written."""
    if parameter.annotation is parameter.empty:
        return Any
    alone = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
    return typing.get_type_hints(alone, inspect.unwrap(user_class.__init__).__globals__, include_extras=True)["it"]


def _is_multiplexed(user_class: type) -> bool:
    from ray.serve._private.utils import _callable_uses_multiplexing

    return bool(_callable_uses_multiplexing(user_class))


def _in_words(error: BaseException, request: Request) -> str:
    """Where in the app's own files it happened, and what."""
    if isinstance(error, BadApp):
        return str(error)
    text = f"{type(error).__name__}: {error}".strip()
    if isinstance(error, SyntaxError) and error.filename:
        text = f"{type(error).__name__}: {error.msg}"
        place = f"{_relative(error.filename, request['code'])}:{error.lineno}: "
        return place + text
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if request["code"] in frame.filename]
    place = f"{_relative(frames[-1].filename, request['code'])}:{frames[-1].lineno}: " if frames else ""
    if isinstance(error, ModuleNotFoundError):
        text += "; add its package to the pip list of the deployment"
    return place + text


def _relative(filename: str, code: str) -> str:
    path = Path(filename)
    return str(path.relative_to(code)) if path.is_relative_to(code) else path.name


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
