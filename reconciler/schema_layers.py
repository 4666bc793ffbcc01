"""The schema of cluster.yaml as people write it: over another file that it extends, and with variables in its texts.

Law: what is merged and expanded before the models see it is not held against the file that says it.
"""

from __future__ import annotations

from typing import Any, cast

from reconciler.planning.overlay import EXTENDS

Schema = dict[str, Any]

_ABOUT = ("description", "default", "title")
_REFERENCE = "#/$defs/"
_WHOLE, _VARIABLE, _OVER = "Cluster", "Variable", "Over"


def with_layers(schema: Schema) -> Schema:
    """The model's own schema, loosened by what stands in other files and in variables."""
    definitions = cast("dict[str, Schema]", schema["$defs"])
    whole = {key: value for key, value in schema.items() if key != "$defs"}
    strict = {_WHOLE: whole, **definitions}
    texts = {name: node if name.startswith("SecretFrom") else _expanded(node) for name, node in strict.items()}
    texts[_WHOLE]["properties"][EXTENDS] = whole["properties"][EXTENDS]
    over = _Over(texts)
    then = over.reference(_WHOLE)
    variable = {"description": "A text with a variable in it.", "pattern": r"\$\{", "type": "string"}
    return {
        "if": {"properties": {EXTENDS: {"type": "string"}}, "required": [EXTENDS]},
        "then": then,
        "else": {"$ref": _REFERENCE + _WHOLE},
        "type": "object",
        "$defs": {_VARIABLE: variable, **texts, **over.made},
    }


def _expanded(node: Any) -> Any:
    """The same, in which a text that must be of a kind may also have a variable in it."""
    if isinstance(node, list):
        return [_expanded(item) for item in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    found: Schema = {key: _expanded(value) for key, value in cast("Schema", node).items()}
    if "discriminator" in found:  # what names the alternative may be a variable: then more than one fits
        found["anyOf"] = found.pop("oneOf")
    about = {key: found.pop(key) for key in _ABOUT if key in found}
    if found.get("type") == "string" and len(found) > 1:
        found = {"anyOf": [found, {"$ref": _REFERENCE + _VARIABLE}]}
    return {**about, **found}


class _Over:
    """Schemas of what is laid over something: nothing is required, and null removes. `made`: those with a name."""

    def __init__(self, definitions: dict[str, Schema]) -> None:
        self._definitions = definitions
        self.made: dict[str, Schema] = {}

    def reference(self, name: str) -> Schema:
        if name.startswith("SecretFrom") or "properties" not in self._definitions.get(name, {}):
            return {"$ref": _REFERENCE + name}
        if _OVER + name not in self.made:
            self.made[_OVER + name] = {}  # in work
            self.made[_OVER + name] = self._laid(self._definitions[name])
        return {"$ref": _REFERENCE + _OVER + name}

    def _laid(self, node: Schema) -> Schema:
        if "$ref" in node:
            return {**node, **self.reference(str(node["$ref"]).removeprefix(_REFERENCE))}
        if "anyOf" in node:
            about = {key: node[key] for key in _ABOUT if key in node}
            return {**about, "anyOf": [self._laid(one) for one in node["anyOf"]]}
        found = {key: value for key, value in node.items() if key not in ("required", "not", "oneOf")}
        for key in ("properties", "patternProperties"):
            if key in found:
                found[key] = {name: self._or_null(value) for name, value in found[key].items()}
        if isinstance(found.get("additionalProperties"), dict):
            found["additionalProperties"] = self._or_null(found["additionalProperties"])
        return found

    def _or_null(self, node: Schema) -> Schema:
        laid = self._laid(node)
        about = {key: laid.pop(key) for key in _ABOUT if key in laid}
        options = cast("list[Schema]", laid["anyOf"]) if set(laid) == {"anyOf"} else [laid]
        if not laid or {"type": "null"} in options:
            return {**about, **laid}
        return {**about, "anyOf": [*options, {"type": "null"}]}
