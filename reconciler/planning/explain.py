"""Mistakes in words: where they are, what is wrong, and the way out ("did you mean `replicas`?").

Law: an explanation never shows the value of a field that could hold a secret.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from reconciler.planning.problems import Location, Problem
from reconciler.planning.yaml_text import MAX_FAULTS, Document, Fault, Path

Model = TypeVar("Model", bound=BaseModel)
Schema = Mapping[str, Any]


def parse(model: type[Model], document: Document, *, may_show: bool = True) -> tuple[Model | None, list[Fault]]:
    """The document as a model, or everything that is wrong with it. Types are strict: "1" is not 1."""
    faults = list(document.faults)
    if document.value is None:
        needed = ", ".join(f"`{name}:`" for name in _schema_of(model).get("required", ()))
        return None, faults or [Fault(0, 0, 0, "the file is empty", f"it needs at least {needed}")]
    if not isinstance(cast("object", document.value), dict):
        return None, [*faults, Fault(1, 1, 1, "expected a mapping", "write `key: value` lines")]
    try:
        parsed = model.model_validate_json(json.dumps(document.value), strict=True)
    except ValidationError as error:
        told = {fault.path for fault in faults}
        found = _Explainer(model, document, may_show).faults(error)
        return None, [*faults, *(fault for fault in found if fault.path not in told)][:MAX_FAULTS]
    return (None if faults else parsed), faults


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question with the nearest known word, else the list of them, else nothing."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known here: {', '.join(names[:20])}" if names else ""


# ── Problems ───────────────────────────────────────────────────────────────────────────────────────────────────────


def problem(path: str, document: Document, fault: Fault, app_id: str | None = None) -> Problem:
    """One fault of a file as a problem."""
    return Problem(
        where=Location(path, fault.line, fault.column),
        message=fault.message,
        fix=fault.fix,
        excerpt=excerpt(document.text, fault.line, fault.column, fault.width, hidden=may_be_secret(fault.path)),
        pointer=pointer(fault.path),
        app_id=app_id,
    )


def problem_at(
    path: str,
    document: Document,
    at: Path,
    message: str,
    fix: str = "",
    *,
    key: bool = False,
    app_id: str | None = None,
) -> Problem:
    """A problem with the value at `at`, or with its key."""
    line, column, width = document.place(at, key=key)
    return problem(path, document, Fault(line, column, width, message, fix, at), app_id)


def pointer(path: Path) -> str:
    """RFC 6901.

    >>> pointer(("apps", "demo", "env", "a/b", 0))
    '/apps/demo/env/a~1b/0'
    """
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def excerpt(text: str, line: int, column: int, width: int = 1, *, hidden: bool = False) -> str:
    """The line with its number and carets below the place; "" when there is none to show.

    Without secrets, and without characters that a terminal would obey.
    """
    lines = text.split("\n", line)[:line] if line else []
    if not lines or len(lines) < line:
        return ""
    start = max(0, column - 60) if column > _LONGEST else 0
    whole = _anonymous(_without_secret(lines[-1].rstrip("\r"), hidden=hidden))
    shown = "".join(c if c.isprintable() else " " for c in whole[start : start + _LONGEST])
    indent = max(column - 1 - start, 0)
    carets = "^" * max(1, min(width, len(shown) - indent))
    return f"{line} | {shown}\n{' ' * len(str(line))} | {' ' * indent}{carets}"


_LONGEST = 110
_SECRET_NAME = re.compile(r"^_|^age$|tok|secr|passw|pwd|cred|api_?key|private_?key", re.IGNORECASE)
_SECRET_LINE = re.compile(r"""(^|[\s{,"'-])(?P<name>[A-Za-z_][\w-]*)["']?\s*:(?P<rest>\s+[^\s{].*)$""")


def may_be_secret(path: Path) -> bool:
    return any(isinstance(part, str) and _SECRET_NAME.search(part) for part in path)


def _without_secret(line: str, *, hidden: bool) -> str:
    if hidden and ":" not in line:
        return "*****"
    for match in re.finditer(_SECRET_LINE, line):
        if hidden or _SECRET_NAME.search(match["name"]):
            return line[: match.start("rest")] + " *****"
    return line


def _anonymous(text: str) -> str:
    """Addresses without who goes there, and their password."""
    return re.sub(r"://[^/\s@]*@", "://*****@", text)


# ── From pydantic's errors ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Error:
    """One error of pydantic, its place told as a path of the document. `branch` is the alternative of a union that it
    is about, and `root` the path of the value which that union describes."""

    kind: str
    path: Path
    name: str
    at_key: bool
    context: Mapping[str, Any]
    text: str
    branch: str = ""
    root: Path = ()


@dataclass(frozen=True, slots=True)
class _Explainer:
    model: type[BaseModel]
    document: Document
    may_show: bool

    def faults(self, error: ValidationError) -> list[Fault]:
        errors = [_placed(details, self.document.value) for details in error.errors(include_url=False)]
        chosen = [item for group in _by_union(errors) for item in self._one_story(group)]
        return [self._fault(item) for item in _without_consequences(chosen)]

    def _one_story(self, group: list[_Error]) -> list[_Error]:
        """Of the errors of a union's alternatives, those of the alternative that the author seems to have meant."""
        branches: dict[str, list[_Error]] = {}
        for item in group:
            branches.setdefault(item.branch, []).append(item)
        if len(branches) == 1:
            return group
        meant = [items for items in branches.values() if not any(_is_wrong_kind(item) for item in items)]
        if not meant:
            return [group[0]]
        return min(
            meant, key=lambda items: (sum(item.kind in ("missing", "extra_forbidden") for item in items), len(items))
        )

    def _fault(self, item: _Error) -> Fault:
        message, fix, at = self._told(item)
        key = item.at_key or item.kind in ("extra_forbidden", "missing", "union_tag_not_found")
        return Fault(*self.document.place(at, key=key), message, fix, at)

    def _told(self, item: _Error) -> tuple[str, str, Path]:
        """(message, fix, path of the place to point at)"""
        label = _label(item.path)
        context = item.context
        match item.kind:
            case "extra_forbidden":
                word, known = str(item.path[-1]), self._fields(item.path[:-1])
                begun = [name for name in self._value(item.path[:-1]) if name in known and name != word]
                if word in known and begun:  # a field of another alternative
                    return f'"{word}" does not go with "{begun[0]}"', "keep one of them", item.path
                return f'unknown field "{word}"', did_you_mean(word, known), item.path
            case "missing":
                return f'{label or "the file"} lacks "{item.name}"', self._adding(item), item.path
            case "union_tag_not_found":
                word = str(context.get("discriminator", "")).strip("'")
                return f'{label} lacks "{word}"', f"add `{word}:`; {self._choices(item.path, word)}", item.path
            case "union_tag_invalid":
                word = str(context["discriminator"]).strip("'")
                known = [choice.strip(" '") for choice in str(context["expected_tags"]).split(",")]
                return f'"{context["tag"]}" is not a {word}', _one_of(str(context["tag"]), known), (*item.path, word)
            case "literal_error":
                known = [choice.strip(" '") for choice in re.split(r",| or ", str(context["expected"]))]
                return f"{label} is {self._shown(item)}", _one_of(str(self._value(item.path)), known), item.path
            case "string_pattern_mismatch":
                what = PATTERNS.get(str(context["pattern"]), f"must match {context['pattern']}")
                shown = self._shown(item)
                return (
                    f"{shown} is not a valid name" if item.at_key else f"{label}: {shown} is not valid",
                    what,
                    item.path,
                )
            case "greater_than_equal":
                bound = _number(context["ge"])
                return f"{label} must be at least {bound}", f"give {bound} or more", item.path
            case "greater_than":
                bound = _number(context["gt"])
                return f"{label} must be above {bound}", f"give more than {bound}", item.path
            case "less_than_equal":
                bound = _number(context["le"])
                return f"{label} must be at most {bound}", f"give {bound} or less", item.path
            case "string_too_short" | "too_short":
                return f"{label} must not be empty", "give it a value, or remove the line", item.path
            case "timezone_aware":
                return f"{label}: {self._shown(item)} does not say in which time zone", _MOMENT, item.path
            case "datetime_parsing" | "datetime_from_date_parsing" | "datetime_object_invalid":
                return f"{label}: {self._shown(item)} is no moment", _MOMENT, item.path
            case "value_error":
                message, _, fix = str(context["error"]).partition("; ")
                return f"{label}: {message}" if label else message, fix, item.path
            case kind if kind.endswith("_type") or kind == "int_from_float":
                path = item.root if item.branch and _is_wrong_kind(item) else item.path
                return (
                    f"{_label(path)}: expected {self._expected(path)}, got {self._shown(item)}",
                    self._mending(path),
                    path,
                )
            case _:
                return f"{label}: {item.text}", f"write {self._expected(item.path)}", item.path

    def _shown(self, item: _Error) -> str:
        if item.at_key:
            return f'"{item.path[-1]}"'
        value = self._value(item.path)
        if isinstance(value, dict | list):
            return "a mapping" if isinstance(value, dict) else "a list"
        if value is None:
            return "nothing"
        if may_be_secret(item.path) or not self.may_show:
            return "a text" if isinstance(value, str) else "something else"
        return json.dumps(value if not isinstance(value, str) else _anonymous(value)[:80], ensure_ascii=False)

    def _value(self, path: Path) -> Any:
        value = self.document.value
        for part in path:
            value = value[part]
        return value

    def _mending(self, path: Path) -> str:
        value = self._value(path)
        written = self.document.written(path)
        kinds = {cast("str", schema.get("type", "")) for schema in _schemas(self.model, self.document.value, path)}
        if value is None:
            return "give it a value, or remove the line"
        if may_be_secret(path) and "object" in kinds and not isinstance(value, dict | list):
            return "never write a secret into git; name where it is read from: {env: NAME} or {file: PATH}"
        if "string" in kinds and isinstance(value, bool | int | float) and written is not None:
            return f'quote it: "{written}"'
        if isinstance(value, str) and "array" in kinds and "string" not in kinds:
            return f"write a list: [{json.dumps(value, ensure_ascii=False)}]"
        if isinstance(value, str) and kinds & {"integer", "number", "boolean"} and _QUOTED.fullmatch(value):
            return "remove the quotes"
        return f"write {self._expected(path)}"

    def _expected(self, path: Path) -> str:
        words = dict.fromkeys(_describe(schema) for schema in _schemas(self.model, self.document.value, path))
        return " or ".join(word for word in words if word) or "something else"

    def _fields(self, path: Path) -> list[str]:
        found: dict[str, None] = {}
        for schema in _schemas(self.model, self.document.value, path):
            found.update(dict.fromkeys(schema.get("properties", {})))
        return list(found)

    def _adding(self, item: _Error) -> str:
        for schema in _schemas(self.model, self.document.value, item.path):
            field = schema.get("properties", {}).get(item.name)
            if field and field.get("description"):
                return f"add `{item.name}:` ({field['description'].rstrip('.')})"
        return f"add `{item.name}:`"

    def _choices(self, path: Path, word: str) -> str:
        schemas = _schemas(self.model, self.document.value, path)
        known = [str(schema.get("properties", {}).get(word, {}).get("const", "")) for schema in schemas]
        return "one of " + ", ".join(filter(None, known))


def _one_of(word: str, known: Sequence[str]) -> str:
    if len(known) == 1:
        return f"must be {known[0]}"
    near = difflib.get_close_matches(word, known, n=1)
    return f'did you mean "{near[0]}"?' if near else f"one of {', '.join(known)}"


def _number(value: float) -> str:
    return f"{value:g}"


_QUOTED = re.compile(r"[-+.\d]+|true|false")
_MOMENT = 'write it with its offset from UTC, like "2026-12-04T18:00:00Z"'
_ID_RULE = "lower-case letters, digits and hyphens, a letter first, at most 63"
PATTERNS = {
    r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$": (
        "write module:Class, the module dotted as in an import"
    ),
    r"^[a-z][a-z0-9-]{0,62}$": _ID_RULE,
    r"^[A-Za-z_][A-Za-z0-9_]*$": "letters, digits and underscores, no digit first",
    r"^apps/[A-Za-z0-9][A-Za-z0-9._-]*$": (
        "name a folder directly below apps/, of letters a-z, digits, dots, hyphens and underscores, like apps/my-app"
    ),
    r"^(/([^~/]|~[01])*)+$": "write the path of a field, like /env/Main/LEVEL",
    r"^([01]\d|2[0-3]):[0-5]\d$": 'write hours:minutes in quotes, from "00:00" to "23:59"',
    r"^[^/\\]+$": "name a file in this folder, such as base.yaml",
    r"^[^/\s]+/[^/\s]+$": "write workspace/alias",
    r"^[A-Za-z_][A-Za-z0-9_]*:[A-Za-z_][A-Za-z0-9_]*$": "write file:Class, the file without .py",
    r"^(embedded|https?://[^\s@]+)$": "write `embedded`, or a URL without credentials",
    r"^(100|[1-9]?\d)%$": "write a whole number of apps, or a share like 10%",
    r"^(\d+-)?\d{1,2}(:\d{2}){0,2}$": 'write hours:minutes:seconds in quotes, like "4:00:00"',
    r"^[0-9A-Za-z][0-9A-Za-z.\-_]{0,63}$": "letters, digits, dots, hyphens and underscores, at most 64",
}


_DISCRIMINATOR = "mode"
"""pydantic puts the chosen alternative's name into the path, where a field of that name would be."""


def _placed(details: ErrorDetails, document: Any) -> _Error:
    """An error with pydantic's own path sorted into: steps in the document, and alternatives of unions."""
    value, path, branch, root, name, at_key = document, list[str | int](), "", (), "", False
    for part in details["loc"]:
        if part == "[key]":
            at_key = True
        elif isinstance(value, dict) and part in value and cast("dict[str, Any]", value).get(_DISCRIMINATOR) != part:
            path.append(part)
            value = cast("dict[str | int, Any]", value)[part]
        elif isinstance(value, list) and isinstance(part, int):
            path.append(part)
            value = cast("list[Any]", value)[part]
        elif details["type"] == "missing" and part == details["loc"][-1]:
            name = str(part)
        elif not branch:
            branch, root = str(part), tuple(path)
    context = details.get("ctx", {})
    return _Error(details["type"], tuple(path), name, at_key, context, details["msg"], branch, root)


def _by_union(errors: Sequence[_Error]) -> Iterator[list[_Error]]:
    """Errors about one union together; every other error by itself."""
    groups: dict[object, list[_Error]] = {}
    for number, item in enumerate(errors):
        groups.setdefault(item.root if item.branch else number, []).append(item)
    yield from groups.values()


def _is_wrong_kind(item: _Error) -> bool:
    return item.path == item.root and item.kind.endswith("_type")


def _without_consequences(errors: Sequence[_Error]) -> Iterator[_Error]:
    """A misspelt field is also a missing one; only the spelling is worth telling."""
    unknown: dict[Path, list[str]] = {}
    for item in errors:
        if item.kind == "extra_forbidden":
            unknown.setdefault(item.path[:-1], []).append(str(item.path[-1]))
    for item in errors:
        if not (item.kind == "missing" and difflib.get_close_matches(item.name, unknown.get(item.path, ()), n=1)):
            yield item


def _label(path: Path) -> str:
    """The end of a path, as people say it."""
    words = [str(part) for part in path if isinstance(part, str)]
    return words[-1] if words else ""


# ── What the schema says ───────────────────────────────────────────────────────────────────────────────────────────


@cache
def _schema_of(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _schemas(model: type[BaseModel], document: Any, path: Path) -> list[Schema]:
    """All alternatives that the schema allows at a path of the document."""
    whole = _schema_of(model)
    found, value = _alternatives(whole, whole, document), document
    for part in path:
        value = value[part]
        inner = [schema for parent in found for schema in _below(parent, part)]
        found = [schema for item in inner for schema in _alternatives(whole, item, value)]
    return found


def _alternatives(whole: Schema, schema: Schema, value: Any) -> list[Schema]:
    if "$ref" in schema:
        return _alternatives(whole, whole["$defs"][str(schema["$ref"]).rsplit("/", 1)[1]], value)
    options = cast("list[Schema]", schema.get("anyOf") or (schema.get("oneOf") if "properties" not in schema else None))
    if not options:
        return [schema]
    resolved = [item for option in options for item in _alternatives(whole, option, value)]
    tag = cast("dict[str, str]", schema.get("discriminator", {})).get("propertyName")
    if tag and isinstance(value, dict):
        chosen = cast("dict[str, Any]", value).get(tag)
        matching = [item for item in resolved if item.get("properties", {}).get(tag, {}).get("const") == chosen]
        return matching or resolved
    return resolved


def _below(schema: Schema, part: str | int) -> Iterator[Schema]:
    if isinstance(part, int):
        inner = schema.get("items")
        if isinstance(inner, dict):
            yield cast("Schema", inner)
        return
    if part in schema.get("properties", {}):
        yield schema["properties"][part]
        return
    yield from schema.get("patternProperties", {}).values()
    if isinstance(schema.get("additionalProperties"), dict):
        yield schema["additionalProperties"]


def _describe(schema: Schema) -> str:
    if schema.get("title") == "SecretFromEnv":
        return "{env: NAME}"
    if schema.get("title") == "SecretFromFile":
        return "{file: PATH}"
    if schema.get("title") == "SecretFromAge":
        return "{age: ENCRYPTED}"
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    kind = schema.get("type")
    if kind == "array":
        items = cast("Schema", schema.get("items", {}))
        return "a list of texts" if items.get("type") == "string" else "a list"
    return _KINDS.get(str(kind), "")


_KINDS = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a mapping",
}
