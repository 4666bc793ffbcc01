"""`ignore`: parts of an app's spec that may differ in the running app, named by JSON pointer (RFC 6901).

A pointer names one place, and is no pattern: `*` within one is the key `*`. So code, users or the age of a token are
never left out by accident, and no text from a repository is run as an expression.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from jsonpointer import JsonPointer

from bioengine_runtime.contract.app import AppSpec

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
