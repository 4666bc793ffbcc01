"""What an app's code says of itself, read from its syntax tree: nothing of it is ever imported or run here.

Law: reading is bounded (syntax.py, literals.py). Hostile input ends in a CodeError or in `unknown`.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from bioengine_runtime.contract.flat_options import as_serve, place
from bioengine_runtime.contract.literals import constants_of, keyword_values, keywords
from bioengine_runtime.contract.syntax import (
    MAX_SOURCE_BYTES,
    TOO_DEEP,
    CodeError,
    dotted_name,
    imported_names,
    is_called,
    lineage,
    parse,
    statements,
)

__all__ = [
    "LARGEST",
    "MAX_SOURCE_BYTES",
    "ClassFacts",
    "CodeError",
    "Hint",
    "Resources",
    "deployment_classes",
    "read_class",
    "read_hints",
    "read_imports",
    "requirements",
    "resources",
    "runtime_env",
]

LARGEST = 10**15
"""No amount of anything that an app asks for is larger; what claims to be is not known."""
_MAX_NAME = 256


@dataclass(frozen=True, slots=True)
class ClassFacts:
    """One deployment class. Of the decorator's options those that are literals (or module constants) are known;
    `unknown` names those that are computed, which only running the code would tell.

    `open_parameters` and `open_methods` say that there may be more than is listed: `**kwargs`, or a base class from
    elsewhere.
    """

    name: str
    module: str
    line: int
    options: Mapping[str, Any]
    unknown: tuple[str, ...]
    parameters: tuple[str, ...]
    required: tuple[str, ...]
    open_parameters: bool
    methods: tuple[str, ...]
    open_methods: bool = False
    handles: tuple[str, ...] = ()
    """Parameters that are filled with handles of other deployments of the app."""


def read_class(source: str, module: str, class_name: str, filename: str) -> ClassFacts:
    """Facts about one deployment class of a Python file. Raises CodeError."""
    try:
        return _read_class(parse(source, filename), module, class_name, filename)
    except RecursionError:
        raise CodeError(TOO_DEEP) from None


@dataclass(frozen=True, slots=True)
class Hint:
    """A parameter of `__init__`, and the dotted name of its annotation, as far as the file says where it is from."""

    parameter: str
    type_name: str


def read_hints(source: str, class_name: str, filename: str) -> tuple[Hint, ...]:
    """Parameters of a class's `__init__` whose annotation is a plain name. Raises CodeError."""
    tree = parse(source, filename)
    names = imported_names(tree, filename)
    classes = {node.name: node for node in statements(tree.body) if isinstance(node, ast.ClassDef)}
    if class_name not in classes:
        return ()
    for item in lineage(classes[class_name], classes)[0]:
        for statement in item.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == "__init__":
                args = [*statement.args.posonlyargs, *statement.args.args, *statement.args.kwonlyargs][1:]
                hints = ((one.arg, _annotated(one.annotation, names)) for one in args)
                return tuple(Hint(parameter, named) for parameter, named in hints if named)
    return ()


def _annotated(node: ast.expr | None, names: Mapping[str, str]) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) <= _MAX_NAME:
        text = node.value  # "RuntimeA", as one writes what is defined further down
        head, *rest = text.split(".")
        return ".".join([names.get(head, head), *rest]) if all(part.isidentifier() for part in (head, *rest)) else ""
    return dotted_name(node, names) if node is not None else ""


def deployment_classes(source: str, filename: str) -> frozenset[str]:
    """Classes of a file that are decorated as deployments. Raises CodeError."""
    tree = parse(source, filename)
    names = imported_names(tree)
    classes = (node for node in statements(tree.body) if isinstance(node, ast.ClassDef))
    return frozenset(node.name for node in classes if _decorator(node, names) is not None)


def read_imports(source: str, filename: str) -> Mapping[str, str]:
    """Local name → the dotted name it was imported from. Raises CodeError."""
    return imported_names(parse(source, filename), filename)


def _read_class(tree: ast.Module, module: str, class_name: str, filename: str) -> ClassFacts:
    classes = {node.name: node for node in statements(tree.body) if isinstance(node, ast.ClassDef)}
    node = classes.get(class_name)
    if node is None:
        raise _no_such_class(class_name, classes, filename)
    names = imported_names(tree)
    decorator = _decorator(node, names)
    if decorator is None:
        raise CodeError(
            f"class {class_name} is not a Ray Serve deployment",
            line=node.lineno,
            column=node.col_offset + 1,
            fix="put @serve.deployment(...) (in format 0.6.0: @bioengine.app(...)) above it",
        )
    named = any(isinstance(item, ast.Name) for keyword in keywords(decorator) for item in ast.walk(keyword.value))
    options, unknown = keyword_values(decorator, constants_of(tree) if named else {})
    if _is_app(decorator, names):
        options, unknown = as_serve(options), tuple(place(name) for name in unknown)
    parameters, required, open_parameters = _init_parameters(node, classes)
    methods, open_methods = _schema_methods(node, classes, names)
    return ClassFacts(
        name=class_name,
        module=module,
        line=node.lineno,
        options=options,
        unknown=unknown,
        parameters=parameters,
        required=required,
        open_parameters=open_parameters,
        methods=methods,
        open_methods=open_methods,
    )


@dataclass(frozen=True, slots=True)
class Resources:
    """What one replica reserves. memory in bytes; None where the code computes it, or it is none that can be."""

    num_cpus: float | None = 1.0
    num_gpus: float | None = 0.0
    memory: float | None = 0.0


def resources(facts: ClassFacts) -> Resources:
    """CPUs, GPUs and memory of one replica, with Ray Serve's defaults."""
    actor = _actor_options(facts)

    def number(name: str, default: float) -> float | None:
        value = actor.get(name, default)
        if _is_unknown(facts, f"ray_actor_options.{name}") or not isinstance(value, int | float):
            return None
        return float(value) if 0 <= value <= LARGEST else None

    return Resources(num_cpus=number("num_cpus", 1.0), num_gpus=number("num_gpus", 0.0), memory=number("memory", 0.0))


def runtime_env(facts: ClassFacts) -> dict[str, Any] | None:
    """The environment the code asks for; None where (a part of) it is computed."""
    prefix = "ray_actor_options.runtime_env"
    if _is_unknown(facts, prefix) or any(name.startswith(prefix + ".") for name in facts.unknown):
        return None
    env = _actor_options(facts).get("runtime_env", {})
    return dict(cast("dict[str, Any]", env)) if isinstance(env, dict) else None


def requirements(facts: ClassFacts) -> tuple[str, ...] | None:
    """The pip (or uv) requirements the code asks for, in its order; None where they are computed."""
    prefix = "ray_actor_options.runtime_env"
    if any(_is_unknown(facts, f"{prefix}.{name}") for name in ("pip", "uv")):
        return None
    env = _actor_options(facts).get("runtime_env", {})
    if not isinstance(env, dict):
        return None
    table = cast("dict[str, Any]", env)
    wanted = table.get("pip", table.get("uv", []))
    if isinstance(wanted, dict):
        wanted = cast("dict[str, Any]", wanted).get("packages", [])
    if not isinstance(wanted, list):
        return None
    items = cast("list[object]", wanted)
    return tuple(str(item) for item in items)


def _actor_options(facts: ClassFacts) -> dict[str, Any]:
    options = facts.options.get("ray_actor_options")
    return cast("dict[str, Any]", options) if isinstance(options, dict) else {}


def _is_unknown(facts: ClassFacts, name: str) -> bool:
    """True when the option, or something it is part of, is computed."""
    return any(name == item or name.startswith(item + ".") for item in facts.unknown) or "**" in facts.unknown


# ── Finding the class ──────────────────────────────────────────────────────────────────────────────────────────────

_DEPLOYMENT = frozenset({"ray.serve.deployment", "ray.serve.api.deployment"})
_APP = "bioengine.app"
_SCHEMA_METHOD = frozenset({"hypha_rpc.utils.schema.schema_method", "hypha_rpc.schema_method"})
_APP_METHOD = "bioengine.method"


def _decorator(node: ast.ClassDef, names: Mapping[str, str]) -> ast.expr | None:
    """What makes the class a deployment."""
    for item in node.decorator_list:
        if _is_app(item, names) or is_called(item, "deployment", _DEPLOYMENT, names):
            return item
    return None


def _is_app(decorator: ast.expr, names: Mapping[str, str]) -> bool:
    return dotted_name(decorator, names) == _APP


def _no_such_class(class_name: str, classes: Mapping[str, ast.ClassDef], filename: str) -> CodeError:
    near = difflib.get_close_matches(class_name, classes, n=1)
    fix = f'did you mean "{near[0]}"?' if near else _listing(sorted(classes), filename)
    return CodeError(f"no class {class_name} in {filename}", fix=fix)


def _listing(names: list[str], filename: str) -> str:
    return f"{filename} defines {', '.join(names[:8])}" if names else f"{filename} defines no class"


# ── What it takes and offers ───────────────────────────────────────────────────────────────────────────────────────


def _init_parameters(
    node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]
) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    related, foreign = lineage(node, classes)
    for item in related:
        for statement in item.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == "__init__":
                return _parameters(statement.args)
    return (), (), foreign


def _parameters(args: ast.arguments) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    positional = [item.arg for item in [*args.posonlyargs, *args.args]]
    optional = set(positional[len(positional) - len(args.defaults) :]) if args.defaults else set[str]()
    optional |= {item.arg for item, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default}
    names = (*positional[1:], *(item.arg for item in args.kwonlyargs))
    return names, tuple(name for name in names if name not in optional), args.kwarg is not None


def _schema_methods(
    node: ast.ClassDef, classes: Mapping[str, ast.ClassDef], names: Mapping[str, str]
) -> tuple[tuple[str, ...], bool]:
    related, foreign = lineage(node, classes)
    found: dict[str, None] = {}
    for item in related:
        for statement in item.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and _is_offered(statement, names):
                found[statement.name] = None
    return tuple(found), foreign


def _is_offered(method: ast.FunctionDef | ast.AsyncFunctionDef, names: Mapping[str, str]) -> bool:
    return any(
        is_called(item, "schema_method", _SCHEMA_METHOD, names) or dotted_name(item, names) == _APP_METHOD
        for item in method.decorator_list
    )
