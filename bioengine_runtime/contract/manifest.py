"""AppManifest: what an app's author says in `manifest.yaml` (BioEngine app formats 0.5.0 and 0.6.0)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, ValidationInfo, field_validator, model_validator
from pydantic.config import JsonDict

from bioengine_runtime.contract.base import AppId, Open

DeploymentRef = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*:[A-Za-z_][A-Za-z0-9_]*$")]
EntryRef = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$")
]
AuthorizedUsers = list[str] | dict[str, list[str]]
ManifestVersion = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.\-_]{0,63}$")]

BY_TYPE_HINT = "0.6.0"
"""The format whose composition is said by the code, in the annotations of `__init__`."""

_ONE_FORMAT: JsonDict = {
    "if": {"required": ["format_version"], "properties": {"format_version": {"const": BY_TYPE_HINT}}},
    "then": {"required": ["entry"], "properties": {"deployments": {"maxItems": 0}, "entry": {"type": "string"}}},
    "else": {"required": ["deployments"], "properties": {"deployments": {"minItems": 1}, "entry": {"type": "null"}}},
}
"""What the validators below check, for the published schema."""


_NOT_HERE = {
    "deployments": "not in format_version 0.6.0; remove it: `entry` is enough, and the classes that its __init__ takes"
    " are deployed with it",
    "entry": "only in format_version 0.6.0; write `format_version: 0.6.0` and remove `deployments`, if there is one, or"
    " write `deployments: [file:Class]` instead",
}


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """One deployment class: its module, and which other classes of the app `__init__` takes handles of."""

    module: str
    class_name: str
    handles: tuple[tuple[str, str], ...] = ()
    """(parameter, class) in the order of the parameters."""

    @property
    def file(self) -> str:
        """Path of the module in the app folder."""
        return f"{self.module.replace('.', '/')}.py"

    @classmethod
    def of(cls, ref: str, handles: tuple[tuple[str, str], ...] = ()) -> EntryPoint:
        """From `module:Class`."""
        module, class_name = ref.split(":")
        return cls(module, class_name, handles)


class AppManifest(Open):
    """The fields that change behaviour; everything else (covers, tags, authors …) is kept as it came."""

    model_config = ConfigDict(frozen=True, extra="allow", json_schema_extra=_ONE_FORMAT)

    id: AppId = Field(description="Alias of the artifact in Hypha.")
    name: str = Field(min_length=1, description="Name shown to people.")
    id_emoji: str = Field(description="Emoji shown beside the name.")
    description: str = Field(description="What the app does.")
    type: Literal["ray-serve"] = Field(description="Always ray-serve.")
    version: ManifestVersion = Field(default="0.0.0", description="Version of the app, as a string.")
    format_version: Literal["0.5.0", "0.6.0"] = Field(
        default="0.5.0", description="Format of this file: 0.5.0 has `deployments`, 0.6.0 has `entry`."
    )
    deployments: list[DeploymentRef] = Field(
        default_factory=list[str],
        description="Format 0.5.0: file:Class, without .py; the first is the entry, the rest are handed to it.",
    )
    entry: EntryRef | None = Field(
        default=None, description="Format 0.6.0: module:Class of the entry; its annotations name the rest."
    )
    authorized_users: AuthorizedUsers | None = Field(
        default=None,
        description="User ids or e-mails that may call the app; '*' is everybody; a mapping sets it per method.",
    )
    frontend_entry: str | None = Field(default=None, description="Path of an index.html to serve as the app's page.")

    @field_validator("deployments", "entry")
    @classmethod
    def _of_this_format(cls, value: list[str] | str | None, info: ValidationInfo) -> list[str] | str | None:
        version = info.data.get("format_version")  # not there when it is wrong itself
        if value and version is not None and (info.field_name == "entry") != (version == BY_TYPE_HINT):
            raise ValueError(_NOT_HERE[str(info.field_name)])
        return value

    @model_validator(mode="after")
    def _has_what_its_format_needs(self) -> AppManifest:
        if self.format_version == BY_TYPE_HINT and self.entry is None:
            raise ValueError("format_version 0.6.0 needs `entry: module:Class`; add it, or say format_version 0.5.0")
        if self.format_version != BY_TYPE_HINT and not self.deployments:
            raise ValueError("`deployments: [file:Class]` is missing; or is it format_version 0.6.0, with `entry`?")
        return self

    @field_validator("deployments")
    @classmethod
    def _parameter_names_are_unique(cls, deployments: list[str]) -> list[str]:
        modules = [ref.split(":")[0] for ref in deployments[1:]]
        twice = sorted({module for module in modules if modules.count(module) > 1})
        if twice:
            why = f"the entry takes its handles by file name, and {twice[0]} is named twice"
            raise ValueError(f"{why}; put each class into a file of its own")
        classes = [ref.split(":")[1] for ref in deployments]
        twice = sorted({name for name in classes if classes.count(name) > 1})
        if twice:
            raise ValueError(f"class {twice[0]} is named twice; deployments of one app need different class names")
        return deployments

    def entry_points(self) -> tuple[EntryPoint, ...]:
        """The deployments that the manifest names, the entry first. Of format 0.6.0 that is the entry alone:
        `composition.deployments` finds the others in the code."""
        if self.entry is not None:
            return (EntryPoint.of(self.entry),)
        entry, *others = (EntryPoint.of(ref) for ref in self.deployments)
        handles = tuple((other.module, other.class_name) for other in others)
        return (EntryPoint(entry.module, entry.class_name, handles), *others)
