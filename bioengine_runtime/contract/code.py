"""What an app's code says of itself, read from its syntax tree: nothing of it is ever imported or run here.

Law: reading is bounded. Hostile input (deep nesting, `9**9**9`, megabytes) ends in a CodeError or in `unknown`.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from bioengine_runtime.contract.flat_options import as_serve, place

MAX_SOURCE_BYTES = 1024 * 1024
_MAX_TEXT = 64 * 1024
_MAX_BITS = 256
_MAX_DEPTH = 50
_MAX_NAME = 256
_TOO_DEEP = "nested too deeply to be read"


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


class CodeError(Exception):
    """The file cannot be read as an app's code. Lines and columns count from 1; line 0 means the file as a whole.

    `filename` is empty where it is about what the caller asked for."""

    def __init__(self, message: str, *, line: int = 0, column: int = 0, fix: str = "", filename: str = "") -> None:
        super().__init__(message)
        self.message, self.line, self.column, self.fix, self.filename = message, line, column, fix, filename

    def told(self) -> str:
        """`runtimes/a.py:3: what is wrong; the way out`."""
        where = f"{self.filename}:{self.line}: " if self.filename and self.line else ""
        return where + self.message + (f"; {self.fix}" if self.fix else "")


def read_class(source: str, module: str, class_name: str, filename: str) -> ClassFacts:
    """Facts about one deployment class of a Python file. Raises CodeError."""
    try:
        return _read_class(_parse(source, filename), module, class_name, filename)
    except RecursionError:
        raise CodeError(_TOO_DEEP) from None


@dataclass(frozen=True, slots=True)
class Hint:
    """A parameter of `__init__`, and the dotted name of its annotation, as far as the file says where it is from."""

    parameter: str
    type_name: str


def read_hints(source: str, class_name: str, filename: str) -> tuple[Hint, ...]:
    """Parameters of a class's `__init__` whose annotation is a plain name. Raises CodeError."""
    tree = _parse(source, filename)
    names = _imported_names(tree, filename)
    classes = {node.name: node for node in _statements(tree.body) if isinstance(node, ast.ClassDef)}
    if class_name not in classes:
        return ()
    for item in _lineage(classes[class_name], classes)[0]:
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
    return _dotted(node, names) if node is not None else ""


def deployment_classes(source: str, filename: str) -> frozenset[str]:
    """Classes of a file that are decorated as deployments. Raises CodeError."""
    tree = _parse(source, filename)
    names = _imported_names(tree)
    classes = (node for node in _statements(tree.body) if isinstance(node, ast.ClassDef))
    return frozenset(node.name for node in classes if _decorator(node, names) is not None)


def read_imports(source: str, filename: str) -> Mapping[str, str]:
    """Local name → the dotted name it was imported from. Raises CodeError."""
    return _imported_names(_parse(source, filename), filename)


def _read_class(tree: ast.Module, module: str, class_name: str, filename: str) -> ClassFacts:
    classes = {node.name: node for node in _statements(tree.body) if isinstance(node, ast.ClassDef)}
    node = classes.get(class_name)
    if node is None:
        raise _no_such_class(class_name, classes, filename)
    names = _imported_names(tree)
    decorator = _decorator(node, names)
    if decorator is None:
        raise CodeError(
            f"class {class_name} is not a Ray Serve deployment",
            line=node.lineno,
            column=node.col_offset + 1,
            fix="put @serve.deployment(...) (in format 0.6.0: @bioengine.app(...)) above it",
        )
    named = any(isinstance(item, ast.Name) for keyword in _keywords(decorator) for item in ast.walk(keyword.value))
    options, unknown = _options(decorator, _constants(tree) if named else {})
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
    """What one replica reserves. memory in bytes; None where the code computes the number."""

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
        return float(value)

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
    ours = (item for item in node.decorator_list if _is_app(item, names) or _is(item, "deployment", _DEPLOYMENT, names))
    return next(ours, None)


def _is_app(decorator: ast.expr, names: Mapping[str, str]) -> bool:
    return _dotted(decorator, names) == _APP


@lru_cache(maxsize=8)  # the classes of one file are read one after the other, and the apps of one folder too
def _parse(source: str, filename: str) -> ast.Module:
    if len(source) > MAX_SOURCE_BYTES:
        raise CodeError(f"larger than {MAX_SOURCE_BYTES // 1024} KiB", fix="move data out of the code")
    try:
        return ast.parse(source, filename)
    except SyntaxError as error:
        # A position past the text is how CPython says "at the end".
        line = min(error.lineno or 0, source.count("\n") + 1)
        raise CodeError(f"Python cannot read it: {error.msg}", line=line, column=max(error.offset or 0, 0)) from None
    except ValueError as error:
        raise CodeError(f"Python cannot read it: {error}") from None
    except (RecursionError, MemoryError):
        raise CodeError(_TOO_DEEP) from None


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of the module's own level, also those under `if`, `try` and `with`."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from _statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            yield from _statements([*node.body, *handlers, *node.orelse, *node.finalbody])
        elif isinstance(node, ast.With):
            yield from _statements(node.body)


def _no_such_class(class_name: str, classes: Mapping[str, ast.ClassDef], filename: str) -> CodeError:
    near = difflib.get_close_matches(class_name, classes, n=1)
    fix = f'did you mean "{near[0]}"?' if near else _listing(sorted(classes), filename)
    return CodeError(f"no class {class_name} in {filename}", fix=fix)


def _listing(names: list[str], filename: str) -> str:
    return f"{filename} defines {', '.join(names[:8])}" if names else f"{filename} defines no class"


def _imported_names(tree: ast.Module, filename: str = "") -> dict[str, str]:
    """Local name → the dotted name it was imported from. What is relative (`from .a import A`) needs the filename."""
    names: dict[str, str] = {}
    package = filename.split("/")[:-1]
    for node in _statements(tree.body):
        if isinstance(node, ast.Import):
            for item in node.names:
                top = item.name.split(".")[0]
                names[item.asname or top] = item.name if item.asname else top
        elif isinstance(node, ast.ImportFrom) and node.level <= len(package) + 1:
            base = package[: len(package) + 1 - node.level] if node.level else []
            for item in node.names:
                names[item.asname or item.name] = ".".join([*base, *filter(None, [node.module]), item.name])
    return names


def _is(decorator: ast.expr, spelling: str, dotted: frozenset[str], names: Mapping[str, str]) -> bool:
    """True when the decorator is (a call of) one of the dotted names, however it was imported."""
    parts = _parts(decorator)
    if not parts:
        return False
    full, known = _dotted(decorator, names), parts[0] in names
    # A star import or a re-export hides where a name comes from; then its spelling has to do.
    return full in dotted or (not known and full.split(".")[-1] == spelling) or full.endswith(f".serve.{spelling}")


def _dotted(node: ast.expr, names: Mapping[str, str]) -> str:
    """The dotted name of (a call of) something, with what it was imported as put in; empty for anything else."""
    parts = _parts(node)
    return ".".join([names.get(parts[0], parts[0]), *parts[1:]]) if parts else ""


def _parts(node: ast.expr) -> list[str]:
    target = node.func if isinstance(node, ast.Call) else node
    parts: list[str] = []
    while isinstance(target, ast.Attribute):
        parts.insert(0, target.attr)
        target = target.value
    return [target.id, *parts] if isinstance(target, ast.Name) else []


# ── What it takes and offers ───────────────────────────────────────────────────────────────────────────────────────


def _lineage(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> tuple[list[ast.ClassDef], bool]:
    """The class and its bases of the same file, nearest first; True when some base is from elsewhere."""
    found, foreign, waiting = [node], False, list(node.bases)
    while waiting:
        base = waiting.pop(0)
        name = base.id if isinstance(base, ast.Name) else ""
        if name == "object":
            continue
        if name in classes and classes[name] not in found:
            found.append(classes[name])
            waiting.extend(classes[name].bases)
        elif name not in classes:
            foreign = True
    return found, foreign


def _init_parameters(
    node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]
) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    lineage, foreign = _lineage(node, classes)
    for item in lineage:
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
    lineage, foreign = _lineage(node, classes)
    found: dict[str, None] = {}
    for item in lineage:
        for statement in item.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and any(
                _is(decorator, "schema_method", _SCHEMA_METHOD, names) or _dotted(decorator, names) == _APP_METHOD
                for decorator in statement.decorator_list
            ):
                found[statement.name] = None
    return tuple(found), foreign


# ── What the decorator says ────────────────────────────────────────────────────────────────────────────────────────


class _Computed(Exception):
    """Only running the code would tell the value."""


def _options(decorator: ast.expr, constants: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    options: dict[str, Any] = {}
    unknown: list[str] = []
    for keyword in _keywords(decorator):
        if keyword.arg is None:
            unknown.append("**")
        else:
            _collect(keyword.arg, keyword.value, constants, options, unknown, keyword.arg)
    return options, tuple(unknown)


def _keywords(decorator: ast.expr) -> list[ast.keyword]:
    return decorator.keywords if isinstance(decorator, ast.Call) else []


def _collect(
    key: str, node: ast.expr, constants: Mapping[str, Any], into: dict[str, Any], unknown: list[str], dotted: str
) -> None:
    """Put the value of `node` under `key`; of a mapping, as much as is known."""
    if dotted.count(".") > _MAX_DEPTH:
        unknown.append(dotted)
    elif isinstance(node, ast.Dict) and all(isinstance(item, ast.Constant) for item in node.keys):
        into[key] = inner = dict[str, Any]()
        for name, value in zip(node.keys, node.values, strict=True):
            text = str(cast("ast.Constant", name).value)
            _collect(text, value, constants, inner, unknown, f"{dotted}.{text}")
    else:
        try:
            into[key] = _value(node, constants)
        except _Computed:
            unknown.append(dotted)


def _constants(tree: ast.Module) -> dict[str, Any]:
    """Names that the module sets exactly once, at its own level, to a value that needs no running."""
    stores = Counter(name for node in ast.walk(tree) if (name := _changed_name(node)))
    found: dict[str, Any] = {}
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        target = node.target if isinstance(node, ast.AnnAssign) else target
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(target, ast.Name) and value is not None and stores[target.id] == 1:
            try:
                found[target.id] = _value(value, found)
            except _Computed:
                continue
    return found


_MUTATORS = frozenset(
    ["append", "clear", "extend", "insert", "pop", "popitem", "remove", "reverse", "setdefault", "sort", "update"]
)


def _changed_name(node: ast.AST) -> str | None:
    """The name that this node sets or changes: `X = …`, `X[…] = …`, `X.append`."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return name
        case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
            return name
        case ast.Attribute(value=ast.Name(id=name), attr=method) if method in _MUTATORS:
            return name
        case _:
            return None


def _value(node: ast.expr, constants: Mapping[str, Any], depth: int = 0) -> Any:
    """The value of an expression of literals and constants. Raises _Computed."""
    if depth > _MAX_DEPTH:
        raise _Computed
    match node:
        case ast.Constant(value=value) if isinstance(value, str | int | float | None):
            return value
        case ast.Name(id=name) if name in constants:
            return constants[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return _bounded([_value(item, constants, depth + 1) for item in items])
        case ast.Dict(keys=keys, values=values):
            return {_key(key): _value(value, constants, depth + 1) for key, value in zip(keys, values, strict=True)}
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            number = _value(operand, constants, depth + 1)
            if not _is_number(number):
                raise _Computed
            return -number if isinstance(node.op, ast.USub) else number
        case ast.BinOp(left=left, op=op, right=right):
            return _combined(_value(left, constants, depth + 1), op, _value(right, constants, depth + 1))
        case _:
            raise _Computed


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise _Computed


def _combined(left: Any, op: ast.operator, right: Any) -> Any:
    if isinstance(op, ast.Add) and type(left) is type(right) and isinstance(left, str | list):
        return _bounded(left + right)  # pyright: ignore[reportUnknownVariableType]
    if not (_is_number(left) and _is_number(right)):
        raise _Computed
    try:
        match op:
            case ast.Add():
                return _bounded(left + right)
            case ast.Sub():
                return _bounded(left - right)
            case ast.Mult():
                return _bounded(left * right)
            case ast.FloorDiv():
                return _bounded(left // right)
            case ast.Div():
                return _bounded(left / right)
            case ast.Pow() if abs(right) <= _MAX_BITS:
                # Both sides are bounded already, so the power is at most _MAX_BITS² bits long before it is measured.
                return _bounded(left**right)
            case _:
                raise _Computed
    except ArithmeticError:
        raise _Computed from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bounded(value: Any) -> Any:
    """The value, unless it is too large to be a deployment option, or no plain number."""
    too_large = False
    if isinstance(value, int):
        too_large = value.bit_length() > _MAX_BITS
    elif isinstance(value, float):
        too_large = not math.isfinite(value)
    elif isinstance(value, str | list):
        too_large = len(cast("Sequence[object]", value)) > _MAX_TEXT
    if too_large or isinstance(value, complex):
        raise _Computed
    return cast("Any", value)
