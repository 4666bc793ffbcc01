"""DesiredState: what one commit asks for, parsed and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.cluster import ClusterSpec, SelfHeal, Suspension
from bioengine_runtime.contract.code import ClassFacts
from bioengine_runtime.contract.manifest import AppManifest
from bioengine_runtime.contract.status import Provenance
from reconciler.planning.problems import Location, Problem
from reconciler.planning.source import Folder, Revision
from reconciler.planning.steps import SecretTable


@dataclass(frozen=True, slots=True)
class AppCode:
    """One app folder that can be deployed: its files, its manifest, and what its code says of itself."""

    folder: Folder
    manifest: AppManifest
    classes: tuple[ClassFacts, ...]


@dataclass(frozen=True, slots=True)
class DesiredApp:
    """One instance. `code` is None for an instance of an artifact that this repository does not hold."""

    spec: AppSpec
    secrets: SecretTable
    provenance: Provenance
    code: AppCode | None
    where: Location
    depends_on: tuple[str, ...] = ()
    suspend: bool | str | Suspension = False
    adopt: bool = False
    self_heal: SelfHeal | None = None
    ignore: tuple[str, ...] = ()

    @property
    def app_id(self) -> str:
        return self.spec.app_id


@dataclass(frozen=True, slots=True)
class DesiredState:
    """Everything asked for. `broken` maps the id of an app whose declaration is invalid to its problems: such an app
    is neither changed nor removed. `unused` are app folders that no instance names."""

    revision: Revision
    cluster: ClusterSpec
    apps: Mapping[str, DesiredApp]
    broken: Mapping[str, tuple[Problem, ...]]
    unused: tuple[str, ...] = ()
    changed: Mapping[str, tuple[str, str]] | None = None
    """Folder (or `cluster.yaml`) → the commit (id, subject) that last touched it, when known."""
    rewritten: bool = False
    """The commit seen before is not part of this one's history: somebody pushed by force."""
    strangers: tuple[str, ...] = ()
    """Whom cluster.yaml gives a right, `mallory (policy.pruners)`, who has none by what is said outside of it."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Each once, also when several apps use the broken folder."""
        each = {
            (problem.where, problem.pointer, problem.message): problem
            for problems in self.broken.values()
            for problem in problems
        }
        return tuple(each.values())
