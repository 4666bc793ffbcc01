"""`ignore`: parts of an app's spec that may differ in the running app, named by JSON pointer (RFC 6901).

A pointer names one place, and is no pattern: `*` within one is the key `*`. So code, users or the age of a token are
never left out by accident, and no text from a repository is run as an expression.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from jsonpointer import JsonPointer

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.base import ENTIRE

_LEFT_OUT = {"ignored": True}
_NOTHING: dict[str, Any] = {}
_ABSENT = object()


def fields_left(before: AppSpec, after: AppSpec, ignore: Iterable[str]) -> frozenset[str]:
    """Names of the fields that differ also when nothing is said at the ignored places."""
    old, new = _without(before, ignore), _without(after, ignore)
    return frozenset(name for name in AppSpec.model_fields if old[name] != new[name])


def accepted(before: AppSpec, after: AppSpec, ignore: Iterable[str]) -> tuple[str, ...]:
    """The pointers at which the two do differ."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    pointers = {text: JsonPointer(text) for text in ignore}
    return tuple(
        sorted(text for text, one in pointers.items() if one.resolve(old, _ABSENT) != one.resolve(new, _ABSENT))
    )


@dataclass(frozen=True, slots=True)
class Astray:
    """Where a pointer leaves every spec that an app can have: its `depth`th part, and the names that there are."""

    depth: int
    part: str
    known: tuple[str, ...]


def astray(pointer: str, classes: Collection[str] = ()) -> Astray | None:
    """None when some spec has such a place. `classes`: of the app's code; none when they are not known."""
    kinds = _kinds(_schema())
    parts: tuple[str, ...] = tuple(JsonPointer(pointer).parts)
    for depth, part in enumerate(parts):
        known = [name for kind in kinds for name in kind.get("properties", ())]
        if depth == 1 and parts[0] in _BY_CLASS and classes:
            known = [*classes, ENTIRE]
        kinds = [inner for kind in kinds for inner in _within(kind, part)]
        if not kinds or (known and part not in known):
            return Astray(depth, part, tuple(known))
    return None


_BY_CLASS = frozenset({"kwargs", "env", "secrets", "replicas", "autoscaling"})
"""Fields of AppSpec whose first keys are the classes of an app's code."""
Schema = Mapping[str, Any]


@cache
def _schema() -> Schema:
    return AppSpec.model_json_schema()


def _kinds(schema: Schema) -> list[Schema]:
    """Without references and alternatives."""
    if reference := schema.get("$ref"):
        return _kinds(_schema()["$defs"][reference.rpartition("/")[2]])
    alternatives: Sequence[Schema] = schema.get("anyOf", (schema,))
    return [schema] if alternatives == (schema,) else [kind for one in alternatives for kind in _kinds(one)]


def _within(kind: Schema, part: str) -> Iterator[Schema]:
    """What may stand at this key or number; nothing when there is none in a value of this kind."""
    if "type" not in kind:  # any JSON
        yield {}
    elif kind["type"] == "array" and part.isdecimal():
        yield from _kinds(kind["items"])
    elif kind["type"] == "object":
        yield from (one for value in _values(kind, part) for one in _kinds(value))


def _values(table: Schema, key: str) -> Iterator[Schema]:
    properties, patterns = table.get("properties", {}), table.get("patternProperties", {})
    if key in properties:
        yield properties[key]
        return
    yield from (value for pattern, value in patterns.items() if re.search(pattern, key))
    others = table.get("additionalProperties", not patterns)
    if others is not False:
        yield {} if others is True else others


def _without(spec: AppSpec, ignore: Iterable[str]) -> dict[str, Any]:
    document: dict[str, Any] = spec.model_dump(mode="json")
    for text in ignore:
        field, *rest = JsonPointer(text).parts
        if field in document:
            document[field] = _leave_out(document[field], rest)
    return document


def _leave_out(value: Any, path: Sequence[str]) -> Any:
    """The value without what is at the path. A table that has nothing else is as good as none, since the other side may
    not have it; in a list the place is kept, for what comes after it keeps its own."""
    if not path:
        return _LEFT_OUT
    first, *rest = path
    if isinstance(value, dict):
        table = cast("dict[str, Any]", value)
        others = {key: entry for key, entry in table.items() if key != first}
        inner: Any = _leave_out(table[first], rest) if first in table else _LEFT_OUT
        return others if inner in (_NOTHING, _LEFT_OUT) else {**others, first: inner}
    if isinstance(value, list):
        entries = cast("list[Any]", value)
        return [_leave_out(entry, rest) if str(at) == first else entry for at, entry in enumerate(entries)]
    return value
