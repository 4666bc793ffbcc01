"""`variables: {NAME: text}`, used as `${NAME}` in texts. Strict, and no templates: what is not defined is a mistake.

Law: keys, secret references and whatever stands behind `$${` are never expanded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from bioengine_runtime.contract.limits import MAX_YAML_BYTES, MAX_YAML_DEPTH
from reconciler.planning.explain import did_you_mean
from reconciler.planning.overlay import EXTENDS, is_secret
from reconciler.planning.yaml_text import Document, Fault, Path

VARIABLES = "variables"
_USE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def with_variables(document: Document) -> Document:
    """The document with every variable replaced by its text, or with what is wrong about them."""
    whole: object = document.value
    if not isinstance(whole, dict) or not any("${" in text or "\\" in text for text in document.texts()):
        return document
    content = cast("dict[str, Any]", whole)
    given = content.get(VARIABLES)
    one = _Expansion(document, cast("dict[str, Any]", given) if isinstance(given, dict) else {})
    for name in one.given:
        one.text_of(name, ())
    value = {key: item if key in (EXTENDS, VARIABLES) else one.value(item, (key,)) for key, item in content.items()}
    return replace(document, value=value, faults=(*document.faults, *one.faults))


def escaped(value: Any) -> Any:
    """The value as it must be written to be read as it is: nothing in it begins a variable."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in cast("dict[str, Any]", value).items()}
    return [escaped(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value


@dataclass(slots=True)
class _Expansion:
    document: Document
    given: Mapping[str, Any]
    faults: list[Fault] = field(default_factory=list[Fault])
    known: dict[str, str] = field(default_factory=dict[str, str])
    added: int = 0

    def value(self, item: Any, path: Path) -> Any:
        if isinstance(item, str):
            return self._expanded(item, path, ()) if "${" in item else item
        if isinstance(item, dict):
            if is_secret(path):
                return cast("dict[str, Any]", item)
            return {key: self.value(inner, (*path, key)) for key, inner in cast("dict[str, Any]", item).items()}
        if isinstance(item, list):
            return [self.value(inner, (*path, number)) for number, inner in enumerate(cast("list[Any]", item))]
        return item

    def text_of(self, name: str, trail: tuple[str, ...]) -> str:
        """The text of a variable; `trail` are those that are being worked out because they need it."""
        if name not in self.known:
            text = self.given[name]
            path = (VARIABLES, name)
            self.known[name] = self._expanded(text, path, (*trail, name)) if isinstance(text, str) else ""
        return self.known[name]

    def _expanded(self, text: str, path: Path, trail: tuple[str, ...]) -> str:
        return _USE.sub(lambda found: self._use(found, path, trail), text)

    def _use(self, found: re.Match[str], path: Path, trail: tuple[str, ...]) -> str:
        whole, name = found[0], found[1]
        if whole == "$${":
            return "${"
        if name is None or not _NAME.fullmatch(name):
            self._fault(path, "${ begins a variable, and no ${NAME} follows", "write $${ for the two characters")
        elif name not in self.given:
            fix = did_you_mean(name, self.given) or f"define it: variables: {{{name}: …}}; or write $${{{name}}}"
            self._fault(path, f"the variable {name} is not defined", fix)
        elif name in trail:
            circle = " → ".join([*trail[trail.index(name) :], name])
            self._fault(path, f"variables go round in a circle: {circle}", "write one of them out")
        elif self.added > MAX_YAML_BYTES:
            self._fault(path, f"variables make this larger than {MAX_YAML_BYTES // 1024} KiB", "shorten them")
        elif len(trail) > MAX_YAML_DEPTH:
            message = f"variables refer to each other more than {MAX_YAML_DEPTH} deep"
            self._fault(path, message, "write some of them out")
        else:
            text = self.text_of(name, trail)
            self.added += len(text)
            return text
        return whole

    def _fault(self, path: Path, message: str, fix: str) -> None:
        if all(fault.message != message or fault.path != path for fault in self.faults):
            self.faults.append(Fault(*self.document.place(path), message, fix, path))
