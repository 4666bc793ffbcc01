"""`extends: base.yaml`: one cluster.yaml that says only what differs from another.

Rules: mappings are merged key by key; everything else (lists, texts, numbers, secret references) replaces what the base
says; a written `null` removes it. Law: a mistake is told in the file and at the line where its value stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from reconciler.planning.explain import did_you_mean
from reconciler.planning.yaml_text import Document, Fault, Path, Place, read_yaml

EXTENDS = "extends"
MAX_BASES = 4


def _nothing(name: str) -> bytes:
    raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Beside:
    """The files in the folder of cluster.yaml: their blob ids by name, how to read one, and which are refused."""

    files: Mapping[str, str] = field(default_factory=dict[str, str])
    read: Callable[[str], bytes] = _nothing
    refused: Mapping[str, str] = field(default_factory=dict[str, str])


def read_layers(data: bytes, name: str, beside: Beside) -> Document:
    """The file of this name with all that it extends, as one document; a file that extends nothing is just itself."""
    layers, fault = _chain(read_yaml(data, name), beside)
    if len(layers) == 1 and fault is None:
        return layers[0]
    faults = [*(replace(one, file=layer.name) for layer in layers for one in layer.faults), *([fault] if fault else [])]
    for layer in layers:
        if not isinstance(layer.value, dict):
            empty = Fault(0, 0, 0, "expected a mapping", "write `key: value` lines", (), layer.name)
            return _Layered("", None, tuple(faults) or (empty,), name=name, layers=layers)
    *above, lowest = layers
    value, base = lowest.value, lowest.name
    for layer in reversed(above):
        value, base = _merged(value, layer.value, (), _Names(layer, base, faults)), layer.name
    return _Layered(layers[0].text, value, tuple(faults), name=name, layers=layers)


def names(data: bytes, name: str, beside: Beside) -> tuple[str, ...]:
    """The file of this name and all that it extends, as far as they are there."""
    if EXTENDS.encode() not in data:
        return (name,)
    return tuple(layer.name for layer in _chain(read_yaml(data, name), beside)[0])


def is_secret(path: Path) -> bool:
    """Whether this is where a secret reference may stand. It is one value: never merged, never expanded."""
    match path:
        case ("hypha", "token") | ("apps", _, "hypha_token") | ("apps", _, "env", _, _):
            return True
        case _:
            return False


@dataclass(frozen=True, slots=True)
class _Layered(Document):
    """Several texts as one document, the one that has the last word first."""

    layers: tuple[Document, ...] = ()

    def holding(self, path: Sequence[str | int], file: str = "") -> Document:
        named = next((layer for layer in self.layers if file and layer.name == file), None)
        return named or max(self.layers, key=lambda layer: layer.reach(path))  # of equals, the first

    def texts(self) -> tuple[str, ...]:
        return tuple(layer.text for layer in self.layers)

    def place(self, path: Sequence[str | int], *, key: bool = False) -> Place:
        return self.holding(path).place(path, key=key)

    def keys(self, path: Sequence[str | int]) -> dict[str, tuple[str, Place]]:
        return {key: place for layer in reversed(self.layers) for key, place in layer.keys(path).items()}

    def written(self, path: Sequence[str | int]) -> str | None:
        return self.holding(path).written(path)


# ── Which files ────────────────────────────────────────────────────────────────────────────────────────────────────


def _chain(first: Document, beside: Beside) -> tuple[tuple[Document, ...], Fault | None]:
    """The file, its base, the base's base …, and why the chain ends before its end."""
    layers = [first]
    while (base := _extended(layers[-1])) is not None:
        if trouble := _trouble(base, [layer.name for layer in layers], beside):
            place = layers[-1].place((EXTENDS,))
            return tuple(layers), Fault(*place, *trouble, (EXTENDS,), layers[-1].name)
        layers.append(read_yaml(beside.read(beside.files[base]), base))
    return tuple(layers), None


def _extended(document: Document) -> Any:
    content: object = document.value
    return cast("dict[str, Any]", content).get(EXTENDS) if isinstance(content, dict) else None


def _trouble(base: object, names: list[str], beside: Beside) -> tuple[str, str] | None:
    """(message, fix)"""
    if not isinstance(base, str):
        return "extends: expected the name of a file", "name a file in this folder, such as base.yaml"
    if "/" in base or "\\" in base or base in ("", ".", ".."):
        return "extends: a base lies in the same folder", "name it without a folder, such as base.yaml"
    if base in names:
        circle = [*names[names.index(base) :], base]
        return f"extends goes round in a circle: {' → '.join(circle)}", "remove one of these lines"
    if base in beside.refused:
        return f"{base}: {beside.refused[base]}", "commit a plain file"
    if base not in beside.files:
        known = [name for name in beside.files if name not in names]
        return f"no file {base} in the folder of {names[0]}", did_you_mean(base, known) or "commit it"
    if len(names) > MAX_BASES:
        return f"more than {MAX_BASES} bases: {' → '.join([*names, base])}", "put some of them together"
    return None


# ── One over the other ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Names:
    """What a mistake in the upper layer needs to be told."""

    upper: Document
    base: str
    faults: list[Fault]


def _merged(base: Any, over: Any, path: Path, names: _Names) -> Any:
    if not isinstance(base, dict) or not isinstance(over, dict) or is_secret(path):
        return cast("object", over)
    result = dict(cast("dict[str, Any]", base))
    for key, value in cast("dict[str, Any]", over).items():
        at = (*path, key)
        if key not in result:
            result[key] = value
        elif value is None:
            del result[key]
            if not names.upper.written(at):
                names.faults.append(_empty(at, names))
        else:
            result[key] = _merged(result[key], value, at, names)
    return result


def _empty(path: Path, names: _Names) -> Fault:
    """Nothing after a colon is more often forgotten than meant, and it would remove."""
    place = names.upper.place(path, key=True)
    fix = f"give it a value, or write null to remove what {names.base} says"
    return Fault(*place, f"{path[-1]} is empty", fix, path, names.upper.name)
