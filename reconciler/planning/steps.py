"""The verbs: a closed union of frozen values. What is not here, the reconciler cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.base import SecretRef
from bioengine_runtime.contract.status import Provenance
from reconciler.planning.live import Unseen
from reconciler.planning.problems import Problem
from reconciler.planning.source import Folder, Revision

SecretTable = dict[str, dict[str, SecretRef]]
"""class or * → NAME → where its value is read from when the step is carried out."""


@dataclass(frozen=True, slots=True)
class ScaleWorkers:
    """Set the bounds between which the runtime's scaler moves the SLURM workers."""

    min: int
    max: int


@dataclass(frozen=True, slots=True)
class UploadArtifact:
    """Store one app folder as a new, immutable version of its artifact."""

    artifact_id: str
    version: str
    folder: Folder
    commit: str
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class PrepareRuntimeEnv:
    """Build the environment of one app's code on every node that can host it, before anything running is touched."""

    spec: AppSpec


@dataclass(frozen=True, slots=True)
class DeployApp:
    """Start an app that does not run yet."""

    spec: AppSpec
    secrets: SecretTable
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class UpdateApp:
    """Bring a running app to a new spec under the same app id."""

    spec: AppSpec
    secrets: SecretTable
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class StopApp:
    """Stop an app that we own and that git no longer names."""

    app_id: str


Verb = ScaleWorkers | UploadArtifact | PrepareRuntimeEnv | DeployApp | UpdateApp | StopApp


class Reason(StrEnum):
    """Why a difference is not acted on, or a plan not carried out. Closed: a program may match on these."""

    APPROVAL_REQUIRED = "ApprovalRequired"
    ARTIFACT_CONFLICT = "ArtifactConflict"
    BACKING_OFF = "BackingOff"
    BAD_COMMIT = "BadCommit"
    CODE_MISMATCH = "CodeMismatch"
    DEPENDENCY_NOT_READY = "DependencyNotReady"
    DRIFT_ACCEPTED = "DriftAccepted"
    HISTORY_REWRITTEN = "HistoryRewritten"
    INSUFFICIENT_CAPACITY = "InsufficientCapacity"
    INVALID_DECLARATION = "InvalidDeclaration"
    LIVE_STATE_UNKNOWN = "LiveStateUnknown"
    NOT_TARGETED = "NotTargeted"
    OWNERSHIP_CONFLICT = "OwnershipConflict"
    PRUNE_BUDGET_EXCEEDED = "PruneBudgetExceeded"
    PRUNE_DISABLED = "PruneDisabled"
    PRUNE_NOT_PERMITTED = "PruneNotPermitted"
    ROLLED_BACK = "RolledBack"
    SELF_HEAL_DISABLED = "SelfHealDisabled"
    SOURCE_EMPTY = "SourceEmpty"
    SUSPENDED = "Suspended"
    UPDATING = "Updating"
    VERSION_UNKNOWN = "VersionUnknown"
    WINDOW_CLOSED = "WindowClosed"


class Impact(Enum):
    """What callers of an app notice."""

    NONE = "none"
    CREATE = "create"
    IN_PLACE = "in place"
    ROLLING_RESTART = "rolling restart"
    INTERRUPTION = "interruption"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Effect:
    """Prediction, in the user's terms. `interruption_s` None means: interrupted, for a time we cannot tell."""

    impact: Impact
    rebuilds_env: bool | None = False
    interruption_s: float | None = 0.0
    note: str = ""
    takes_s: float | None = None
    """How long the app usually takes to come up, learned from its earlier deployments; None: not known."""
    room: str = ""
    """What its replicas need, and where that is free; "" when either is not known."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs; before and after are texts fit to be shown, never secret values."""

    field: str
    before: str = ""
    after: str = ""

    @property
    def path(self) -> str:
        """Where in the app's spec it is, as a JSON pointer; "" for what is no part of the spec.

        >>> Change("env.*.MODE").path
        '/env/*/MODE'
        """
        parts = self.field.split(".", 2)
        if parts[0] not in AppSpec.model_fields:
            return ""
        return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


@dataclass(frozen=True, slots=True)
class Step:
    """One verb with its reasons. `address` is unique in a plan; `pre` is what must still be so when it is done."""

    address: str
    verb: Verb
    why: str
    app_id: str | None
    needs: tuple[str, ...] = ()
    pre: tuple[tuple[str, str], ...] = ()
    effect: Effect = Effect(Impact.NONE)
    changes: tuple[Change, ...] = ()
    drift: bool = False
    """It undoes something that no commit asked for."""


class Action(StrEnum):
    """What a held difference would have become; UNKNOWN when not even that can be told."""

    CREATE = "create"
    UPDATE = "update"
    STOP = "stop"
    SCALE = "scale"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Held:
    """A difference that is not acted on. `message` says the reason in a sentence, `fix` what to do about it."""

    app_id: str
    reason: Reason
    message: str
    fix: str = ""
    action: Action = Action.UNKNOWN
    changes: tuple[Change, ...] = ()
    drift: bool = False
    """No commit asked for the difference."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Why a reconciler that runs by itself may not carry out a plan now. Its steps are what they would be."""

    reason: Reason
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret of an app that needs somebody's eye: it ends at `ends` (seconds since the epoch), or, None, it could
    not be read here, so nobody knows. `name` is that of its variable, with its class where that is known."""

    app_id: str
    name: str
    ends: float | None = None


@dataclass(frozen=True, slots=True)
class Rest:
    """After `tries` failures of one content: not again before `until` (seconds since the epoch)."""

    tries: int
    until: float
    digest: str
    why: str


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What a person asks of one plan. `prune_confirmed`: exactly so many removals are meant, whatever the budget says;
    `force`: try again what was rejected, and do not wait for an update that is under way."""

    targets: frozenset[str] = frozenset()
    prune_confirmed: int = 0
    force: bool = False
    resting: Mapping[str, Rest] = field(default_factory=dict[str, Rest])
    """Apps that failed a moment ago; no part of what was asked for."""
    tried: frozenset[str] = frozenset()
    """Apps that `force` has tried already, so that it tries each of them once; no part of what was asked for."""
    again: frozenset[str] = frozenset()
    """Apps that somebody ordered to be tried again, whatever else there is to do; no part of what was asked for."""

    @property
    def typed(self) -> str:
        """As they stand behind a command.

        >>> PlanOptions(frozenset({"two", "one"}), prune_confirmed=1, force=True).typed
        ' --target one --target two --confirm-deletes 1 --force'
        """
        targets = "".join(f" --target {app_id}" for app_id in sorted(self.targets))
        confirmed = f" --confirm-deletes {self.prune_confirmed}" if self.prune_confirmed else ""
        return f"{targets}{confirmed}{' --force' if self.force else ''}"

    def insists_on(self, app_id: str) -> bool:
        """Whether this app is to be tried again, although it failed."""
        forced = self.force and app_id not in self.tried and (not self.targets or app_id in self.targets)
        return forced or app_id in self.again


@dataclass(frozen=True, slots=True)
class Plan:
    """Ordered steps, and what is held. `unchanged` and `unused` (folders no instance names) are for the reader.

    `id` names it to people: it stays the same as long as what is planned, and what it was planned from, stays."""

    cluster: str
    revision: Revision
    steps: tuple[Step, ...] = ()
    held: tuple[Held, ...] = ()
    problems: tuple[Problem, ...] = ()
    unchanged: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    unseen: tuple[Unseen, ...] = ()
    notes: tuple[str, ...] = ()
    live_digest: str = ""
    worker: str = ""
    scope: tuple[str, ...] = field(default=())
    options: PlanOptions = PlanOptions()
    id: str = ""
    gate: Gate | None = None
    valid_s: float = 0.0
    """How long it may be applied after it was saved."""
    accepted: tuple[str, ...] = ()
    """Differences that `ignore` says are none: `app: /pointer`."""
    credentials: tuple[Credential, ...] = ()
    orphans: tuple[str, ...] = ()
    """Apps that run here, and are neither ours nor named."""
    rolled_back: tuple[tuple[str, str], ...] = ()
    """(app id, by whom and why): apps that run as an older commit has them, until git asks for something else."""
    suspended: tuple[tuple[str, str], ...] = ()
    """(app id, by whom, why and until when): apps that stay as they are, also those that are as git wants them now."""
    since: Revision | None = None
    """Nobody was asked what runs: it is supposed to be what this commit says. Such a plan is only to be read."""

    @property
    def empty(self) -> bool:
        return not self.steps


class Result(StrEnum):
    """What became of a step. WAITING: it goes on over there, or needs one that does; a later pass asks again."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one step; `message` says why it failed, or which step it needed that is not done."""

    address: str
    result: Result
    message: str = ""
    seconds: float = 0.0
