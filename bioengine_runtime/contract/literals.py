"""Values of expressions that need no running: literals, and names that a module sets once to such.

Law: computing is bounded. What is too large (`9**9**9`), too deep, or would have to be run, is not known.
"""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

_MAX_TEXT = 64 * 1024
_MAX_BITS = 256
_MAX_DEPTH = 50


class _Computed(Exception):
    """Only running the code would tell the value."""


def keyword_values(decorator: ast.expr, constants: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a decorator is called with, and the dotted names of what is computed; `**` for a whole mapping that is."""
    options: dict[str, Any] = {}
    unknown: list[str] = []
    for keyword in keywords(decorator):
        if keyword.arg is None:
            unknown.append("**")
        else:
            _collect(keyword.arg, keyword.value, constants, options, unknown, keyword.arg)
    return options, tuple(unknown)


def keywords(decorator: ast.expr) -> list[ast.keyword]:
    """Empty when it is not called at all."""
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


def constants_of(tree: ast.Module) -> dict[str, Any]:
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
