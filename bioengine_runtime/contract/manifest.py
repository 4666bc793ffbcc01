"""AppManifest: what an app's author says in `manifest.yaml` (BioEngine app format 0.5.0)."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, StringConstraints, field_validator

from bioengine_runtime.contract.base import AppId, Open

DeploymentRef = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*:[A-Za-z_][A-Za-z0-9_]*$")]
AuthorizedUsers = list[str] | dict[str, list[str]]
ManifestVersion = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.\-_]{0,63}$")]


class EntryPoint(NamedTuple):
    """One item of `deployments:`, taken apart: the Python file without its ending, and the class in it."""

    module: str
    class_name: str


class AppManifest(Open):
    """The fields that change behaviour; everything else (covers, tags, authors …) is kept as it came."""

    id: AppId = Field(description="Alias of the artifact in Hypha.")
    name: str = Field(min_length=1, description="Name shown to people.")
    id_emoji: str = Field(description="Emoji shown beside the name.")
    description: str = Field(description="What the app does.")
    type: Literal["ray-serve"] = Field(description="Always ray-serve.")
    version: ManifestVersion = Field(default="0.0.0", description="Version of the app, as a string.")
    format_version: Literal["0.5.0"] = Field(default="0.5.0", description="Format of this file.")
    deployments: list[DeploymentRef] = Field(
        min_length=1, description="file:Class, without .py; the first is the entry, the rest are handed to it."
    )
    authorized_users: AuthorizedUsers | None = Field(
        default=None,
        description="User ids or e-mails that may call the app; '*' is everybody; a mapping sets it per method.",
    )
    frontend_entry: str | None = Field(default=None, description="Path of an index.html to serve as the app's page.")

    @field_validator("deployments")
    @classmethod
    def _parameter_names_are_unique(cls, deployments: list[str]) -> list[str]:
        modules = [ref.split(":")[0] for ref in deployments[1:]]
        twice = sorted({module for module in modules if modules.count(module) > 1})
        if twice:
            raise ValueError(f"the entry takes its handles by file name, and {twice[0]} is named twice")
        classes = [ref.split(":")[1] for ref in deployments]
        twice = sorted({name for name in classes if classes.count(name) > 1})
        if twice:
            raise ValueError(f"class {twice[0]} is named twice; deployments of one app need different class names")
        return deployments

    def entry_points(self) -> tuple[EntryPoint, ...]:
        """The deployments in order, the entry first."""
        return tuple(EntryPoint(*ref.split(":")) for ref in self.deployments)
