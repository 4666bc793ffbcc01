"""Values between a shell and a service: arguments typed by what the method wants, results that people can read."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from bioengine_runtime.command.show import clean

SHOWN_WHOLE = 64
"""Arrays with more elements than this are summed up for people; programs get every element."""

Schema = Mapping[str, Any]


def typed(text: str, schema: Schema | None) -> Any:
    """The value of `--arg K=V`: a text where the method wants one, else true, false, a number, JSON, or a text."""
    kinds = kinds_of(schema or {})
    if "string" in kinds:
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if "null" in kinds and text.lower() in ("null", "none"):
        return None
    if re.fullmatch(r"[-+]?\d+", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text):
        return float(text)
    if kinds & {"array", "object"}:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def kinds_of(schema: Schema) -> set[str]:
    """The JSON types that a schema allows; none named means any."""
    kind = schema.get("type")
    found = {kind} if isinstance(kind, str) else set(kind or ())
    return found.union(*(kinds_of(one) for one in schema.get("anyOf", ())))


def jsonable(value: Any, *, whole: bool) -> Any:
    """The value as JSON knows it: arrays as lists, bytes as base64, numbers that are none as null.

    With `whole=False`, long arrays and bytes become a sentence about them.
    """
    if isinstance(value, Mapping):
        return {str(key): jsonable(item, whole=whole) for key, item in dict.items(dict(value))}
    if isinstance(value, list | tuple | set):
        return [jsonable(item, whole=whole) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        content = bytes(value)
        return base64.b64encode(content).decode() if whole else f"<{len(content)} bytes>"
    if hasattr(value, "tolist") and hasattr(value, "shape"):
        return jsonable(value.tolist(), whole=whole) if whole or value.size <= SHOWN_WHOLE else array_in_words(value)
    if hasattr(value, "item") and hasattr(value, "dtype"):
        return jsonable(value.item(), whole=whole)
    if isinstance(value, float) and not math.isfinite(value):
        return None if whole else str(value)
    return value


def array_in_words(array: Any) -> str:
    """`<array 512×512 uint16, 0 … 431, mean 17.2>`"""
    shape = "×".join(str(length) for length in array.shape) or "scalar"
    numbers = ""
    if array.size and array.dtype.kind in "iufb":
        numbers = f", {array.min()} … {array.max()}, mean {float(array.mean()):.4g}"
    return f"<array {shape} {array.dtype}{numbers}>"


def readable(value: Any) -> str:
    """A result for a person at a terminal: texts line by line, arrays in words, the rest as JSON."""
    if value is None:
        return "none"
    shown = jsonable(value, whole=False)
    text = shown if isinstance(shown, str) else json.dumps(shown, indent=2, ensure_ascii=False, default=str)
    return "\n".join(clean(line) for line in text.splitlines())


def signature(name: str, schema: Schema | None) -> str:
    """`segment(image: list, diameter: float = 30.0)` out of a method's schema."""
    if not schema:
        return f"{name}(…)"
    parameters = schema.get("parameters") or {}
    required = set(parameters.get("required") or ())
    words = [_parameter(key, one, key in required) for key, one in (parameters.get("properties") or {}).items()]
    return f"{name}({', '.join(words)})"


def _parameter(name: str, schema: Schema, required: bool) -> str:
    kind = _kind(schema)
    said = f"{name}: {kind}" if kind else name
    if required:
        return said
    return f"{said} = {schema['default']!r}" if "default" in schema else f"{said} = …"


def _kind(schema: Schema) -> str:
    """The type in Python's words."""
    if "enum" in schema:
        return " | ".join(repr(one) for one in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(filter(None, map(_kind, schema["anyOf"]))))
    kind = schema.get("type")
    if kind == "array" and (inner := _kind(schema.get("items") or {})):
        return f"list[{inner}]"
    return _PYTHON.get(kind, "") if isinstance(kind, str) else ""


_PYTHON = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
    "object": "dict",
    "null": "None",
}


def key_and_value(text: str) -> tuple[str, str] | None:
    """`K=V` taken apart; None when it is not that."""
    match = re.fullmatch(r"([A-Za-z_]\w*)=(.*)", text, re.DOTALL)
    return (match[1], match[2]) if match else None
