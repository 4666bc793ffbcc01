"""LiveState: what really runs, as far as we could see it. What we could not see is `unseen`, which is not absence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bioengine_runtime.contract.status import AppState, WorkerState
from reconciler.planning.memory import NOTHING, Remembered
from reconciler.planning.people import NOBODY, Person
from reconciler.planning.source import Revision


@dataclass(frozen=True, slots=True)
class ArtifactVersion:
    """One committed version; `tree` is the full git tree id its commit comment carries (None: not ours)."""

    name: str
    tree: str | None = None


@dataclass(frozen=True, slots=True)
class LiveArtifact:
    """One artifact of the applications collection."""

    artifact_id: str
    versions: tuple[ArtifactVersion, ...]
    staged: bool = False

    def version(self, name: str) -> ArtifactVersion | None:
        return next((version for version in self.versions if version.name == name), None)


@dataclass(frozen=True, slots=True)
class Unseen:
    """A question that got no answer. `what` is `apps`, `artifacts` or `memory`."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class LiveState:
    """One look, at `observed_at` (seconds since the epoch). What is None was not seen."""

    worker: WorkerState | None
    artifacts: Mapping[str, LiveArtifact] | None
    unseen: tuple[Unseen, ...] = ()
    remembered: Remembered | None = NOTHING
    observed_at: float = 0.0
    ourselves: Person = NOBODY
    """Who we are to Hypha; nobody, while it did not say so."""
    supposed: Revision | None = None
    """Nobody was asked: this is what would run if this commit had been carried out."""
    unknown: Mapping[str, str] = field(default_factory=dict[str, str])
    """App id → why nobody can tell what runs of this one, while the others were seen."""
    apps: Mapping[str, AppState] = field(init=False, repr=False, compare=False)
    """By app id; empty also when unseen."""

    @property
    def complete(self) -> bool:
        return not self.unseen

    def __post_init__(self) -> None:
        apps = {app.app_id: app for app in self.worker.apps} if self.worker else {}
        object.__setattr__(self, "apps", apps)
