"""The published JSON Schemas, generated from the models: editors complete and check what git may say.

Law: a document that we accept is valid by its schema. (The schema cannot see everything that we refuse.)
"""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic import BaseModel

from bioengine_runtime.contract.cluster import ClusterSpec
from bioengine_runtime.contract.manifest import AppManifest
from reconciler.schema_layers import with_layers

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]

_MODELS: dict[str, tuple[type[BaseModel], str, str]] = {
    "cluster": (ClusterSpec, "cluster.yaml", "What one BioEngine cluster should run."),
    "manifest": (AppManifest, "manifest.yaml", "A BioEngine app, format 0.5.0 or 0.6.0: what its author says."),
}


def published() -> dict[str, Schema]:
    """File name → schema."""
    return {f"{name}.schema.json": _schema(name, *about) for name, about in _MODELS.items()}


def text(schema: Schema) -> str:
    """The schema as it stands in its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _schema(name: str, model: type[BaseModel], title: str, description: str) -> Schema:
    schema = cast("Schema", _closed(model.model_json_schema(mode="validation")))
    _require_discriminators(schema)
    if model is ClusterSpec:
        schema = with_layers(schema)
    head = {"$schema": DIALECT, "$id": f"urn:bioengine:schema:{name}", "title": title, "description": description}
    return {**head, **{key: value for key, value in schema.items() if key not in head}}


def _closed(node: object) -> object:
    """The same schema, in which keys that match no pattern are refused, and no name is repeated as a title."""
    if isinstance(node, list):
        return [_closed(item) for item in cast("list[object]", node)]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(value) for key, value in cast("dict[str, object]", node).items()}
    if "patternProperties" in closed:
        closed.setdefault("additionalProperties", False)
    if isinstance(closed.get("title"), str) and "properties" not in closed:
        del closed["title"]
    return closed


def _require_discriminators(schema: Schema) -> None:
    """The field that tells the alternatives of a union apart must be written, also where the model has a default."""
    for field in cast("dict[str, Schema]", schema.get("properties", {})).values():
        tag = cast("Schema", field.get("discriminator", {}))
        for reference in cast("dict[str, str]", tag.get("mapping", {})).values():
            target = cast("Schema", schema["$defs"][reference.rsplit("/", 1)[1]])
            required = cast("list[str]", target.setdefault("required", []))
            if tag["propertyName"] not in required:
                required.insert(0, tag["propertyName"])


def write(folder: str = "schemas") -> None:
    """Write the files anew: `python -m reconciler.schemas`."""
    from pathlib import Path

    for name, schema in published().items():
        (Path(folder) / name).write_text(text(schema), encoding="utf-8")


if __name__ == "__main__":
    write()
