"""What the pass needs of the outside, as protocols. Adapters implement them; fakes pass the same contract tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.base import SecretRef
from bioengine_runtime.contract.cluster import ClusterSpec
from bioengine_runtime.contract.status import Prepared, Provenance, WorkerState
from reconciler.errors import ReconcilerError, Remedy
from reconciler.planning.conditions import Condition
from reconciler.planning.live import LiveArtifact
from reconciler.planning.memory import Entry, Holder, Remembered
from reconciler.planning.people import UNANCHORED, Anchor, Person
from reconciler.planning.source import SourceTree
from reconciler.planning.steps import UploadArtifact

Progress = Callable[[str], None]
"""Told a short text while something long is going on."""


@dataclass(frozen=True, slots=True)
class SecretValues:
    """Values of one app's secrets, class or * → NAME → value, with their fingerprints. Never shown."""

    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, "Mapping[str, str]"], repr=False)
    fingerprints: Mapping[str, str] = field(default_factory=dict[str, str])


class SecretUnavailable(Exception):
    """A secret reference that cannot be read here; the message names the reference, never a value."""


class Source(Protocol):
    async def fetch(self) -> SourceTree:
        """The newest commit of what is followed. Raises SourceUnusable or Unreachable."""
        ...


class Artifacts(Protocol):
    async def workspace(self) -> str:
        """The workspace whose applications these are. Raises Unreachable."""
        ...

    async def list(self) -> Mapping[str, LiveArtifact]:
        """Every artifact of the applications collection by artifact id, in one paged question. Raises Unreachable."""
        ...

    async def upload(
        self, upload: UploadArtifact, manifest: Mapping[str, Any], read: Callable[[str], bytes], progress: Progress
    ) -> None:
        """Store the folder as one new version, verify it, and leave every other version as it is. Safe to repeat after
        a crash at any point; an existing version of the same tree is success. Raises StepFailed or Unreachable."""
        ...


class Runtime(Protocol):
    async def observe(self) -> WorkerState:
        """What runs. Raises Unreachable."""
        ...

    async def prepare(self, spec: AppSpec) -> Prepared:
        """Build the environment on every node that can host the app, or join who builds it already; returns when it is
        done, or not done after some seconds: it goes on, and can be asked for again. Raises Unreachable."""
        ...

    async def apply(
        self, spec: AppSpec, secrets: SecretValues, provenance: Provenance, *, expected: str | None
    ) -> None:
        """Ask the runtime to run this spec; returns when it has accepted. `expected` is the digest that must run now
        ("" none); None does not check. Raises StepFailed when refused."""
        ...

    async def remove(self, app_id: str, *, owner: str, expected: str | None) -> None:
        """Stop the app; one that is already gone is success. Raises StepFailed when it is not ours."""
        ...

    async def scale(self, minimum: int, maximum: int) -> None:
        """Set the bounds of the SLURM workers."""
        ...


@dataclass(frozen=True, slots=True)
class Said:
    """What one pass has to say to whoever asks: its report, its plan as a document, and each app's story by its id."""

    report: Mapping[str, Any]
    plan: Mapping[str, Any] = field(default_factory=dict[str, Any])
    explain: Callable[[str], Mapping[str, Any]] = field(default=lambda _: {})


class Reports(Protocol):
    async def publish(self, said: Said) -> None:
        """Show what the newest pass said to whoever asks the status service. Raises Unreachable."""
        ...


class Memory(Protocol):
    async def read(self) -> Remembered:
        """What is remembered; nothing, when nothing was ever written. Raises Unreachable, also for what is spoiled."""
        ...

    async def write(self, remembered: Remembered) -> None:
        """Replace it. Only the holder of the lease does so. Raises Unreachable."""
        ...

    async def start_anew(self) -> None:
        """Remember nothing, whoever wrote what is there; a person said so. Raises Unreachable."""
        ...

    async def append(self, entries: Sequence[Entry]) -> None:
        """Add to the history; what cannot be sent now goes with the next, and a trouble that stands is said once.
        Raises Unreachable."""
        ...

    async def history(self, limit: int, app_id: str = "") -> Sequence[Entry]:
        """The newest entries, newest first. Raises Unreachable."""
        ...


class Secrets(Protocol):
    def resolve(self, app_id: str, table: Mapping[str, Mapping[str, SecretRef]]) -> SecretValues:
        """Read the values. Raises SecretUnavailable, naming all that cannot be read."""
        ...

    def fingerprints(self, app_id: str, table: Mapping[str, Mapping[str, SecretRef]]) -> Mapping[str, str | None]:
        """Class/NAME → keyed hash of the value; None where it cannot be read here. Never raises."""
        ...

    def masked(self, text: str) -> str:
        """The text without any value that was read; a second defence, for texts that others wrote."""
        ...


class Lease(Protocol):
    """The right to write, of one reconciler at a time."""

    async def hold(self, memory: Memory) -> Holder:
        """Take it, or keep it. Raises HeldElsewhere, naming who has it, or Unreachable."""
        ...

    async def still(self, memory: Memory) -> Remembered:
        """Before each write; what is remembered then. Raises LeaseLost when somebody else has it by now."""
        ...

    async def let_go(self, memory: Memory) -> None:
        """Leave it to the next one."""
        ...


class StepFailed(Exception):
    """One step could not be done; it stops only the steps that need it."""


class OrderRefused(ReconcilerError):
    """The reconciler that keeps this cluster does not do it; says why."""

    remedy = Remedy.OPERATOR


class Running(Protocol):
    """The reconciler that keeps this cluster, as its status service shows it, and who we are to it."""

    async def order(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """Give it an order. Raises Unreachable when it does not answer, OrderRefused when it does not do it."""
        ...

    async def answers(self) -> bool:
        """Whether there is one that answers."""
        ...

    async def me(self) -> Person:
        """Who we are. Raises Unreachable."""
        ...


@dataclass(frozen=True, slots=True)
class Hypha:
    """What is reached through one Hypha server and workspace."""

    artifacts: Artifacts
    runtime: Runtime
    reports: Reports | None = None
    memory: Memory | None = None
    running: Running | None = None


@dataclass(slots=True)
class Told:
    """What was reported last, and where: the conditions' times go on from there, and a trouble is told there too."""

    said: Said | None = None
    conditions: tuple[Condition, ...] = ()
    reports: Reports | None = None


@dataclass(frozen=True, slots=True)
class World:
    """Everything outside, in one hand. Where Hypha is, git says: so `hypha` is a function of the desired cluster."""

    source: Source
    hypha: Callable[[ClusterSpec], Hypha]
    secrets: Secrets
    told: Told = field(default_factory=Told)
    lease: Lease | None = None
    at: Callable[[str], Source] | None = None
    """The same repository at another commit; None: it has no other."""
    anchor: Anchor = UNANCHORED
