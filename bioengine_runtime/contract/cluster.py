"""ClusterSpec: `cluster.yaml`, the one file that says what a cluster should run."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints, field_validator, model_validator
from pydantic.config import JsonDict

from bioengine_runtime.contract.app import Autoscaling, IceServer, Rollout
from bioengine_runtime.contract.base import APP_ID_PATTERN, AppId, Closed, EnvName, JsonValue, SecretRef
from bioengine_runtime.contract.manifest import AuthorizedUsers

EMBEDDED = "embedded"


class HyphaSpec(Closed):
    """Which Hypha server, workspace and worker this cluster is reached through."""

    server_url: str = Field(
        default=EMBEDDED, pattern=r"^(embedded|https?://[^\s@]+)$", description="URL of the server, or `embedded`."
    )
    workspace: str | None = Field(default=None, description="Workspace; left out: the one the token belongs to.")
    status: str = Field(
        default="reconcile-status", pattern=APP_ID_PATTERN, description="Service id under which reports are published."
    )
    worker: str = Field(
        default="bioengine-worker",
        min_length=1,
        description="Service id of the worker. The full id, workspace/client:service, pins it: for "
        "when several run, or others may register services there, since steps carry secrets.",
    )
    token: SecretRef | None = Field(default=None, description="Where the reconciler's own token is read from.")


class SingleMachine(Closed):
    """One machine: the worker starts a Ray head on it."""

    mode: Literal["single-machine"] = "single-machine"
    num_cpus: int | None = Field(default=None, ge=1, description="CPUs Ray may use; left out: all.")
    num_gpus: int | None = Field(default=None, ge=0, description="GPUs Ray may use; left out: all.")


class ExternalCluster(Closed):
    """A Ray cluster that somebody else runs."""

    mode: Literal["external-cluster"]
    address: str = Field(min_length=1, description="Address of its head: host:port.")


class WorkerBounds(Closed):
    """How many SLURM jobs may run; the number between belongs to the runtime's scaler."""

    min: int = Field(default=0, ge=0, description="Jobs kept also when idle.")
    max: int = Field(default=4, ge=0, description="Jobs at most.")

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> WorkerBounds:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}; lower the one or raise the other")
        return self


class Slurm(Closed):
    """An HPC cluster: a Ray head on the login node, workers as SLURM jobs."""

    mode: Literal["slurm"]
    workers: WorkerBounds = WorkerBounds()
    partition: str | None = Field(default=None, description="SLURM partition; left out: the default one.")
    account: str | None = Field(default=None, description="SLURM account to charge; left out: the default one.")
    image: str | None = Field(default=None, description="Container image of a worker (Apptainer).")
    cpus: int = Field(default=8, ge=1, description="CPUs of one worker.")
    gpus: int = Field(default=1, ge=0, description="GPUs of one worker.")
    memory_gb_per_cpu: float = Field(default=16.0, gt=0, description="Memory of one worker, per CPU.")
    time_limit: str = Field(
        default="4:00:00",
        pattern=r"^(\d+-)?\d{1,2}(:\d{2}){0,2}$",
        description="How long one job may run: [days-]hours:minutes:seconds, in quotes.",
    )
    extra_args: list[str] = Field(default_factory=list, description="Further #SBATCH arguments.")


Compute = Annotated[SingleMachine | ExternalCluster | Slurm, Field(discriminator="mode")]
EnvValue = str | SecretRef
SourcePath = Annotated[str, StringConstraints(pattern=r"^apps/[A-Za-z0-9][A-Za-z0-9._-]*$")]
RemovalBudget = Annotated[int, Field(ge=0)] | Annotated[str, StringConstraints(pattern=r"^(100|[1-9]?\d)%$")]


Replicas = Annotated[int, Field(json_schema_extra={"minimum": 1})]  # the validator below says it in better words

_ONE_ORIGIN: JsonDict = {
    "oneOf": [
        {
            "required": ["source"],
            "properties": {"source": {"type": "string"}, "artifact": {"type": "null"}, "version": {"type": "null"}},
        },
        {
            "required": ["artifact", "version"],
            "properties": {"source": {"type": "null"}, "artifact": {"type": "string"}, "version": {"type": "string"}},
        },
    ],
    "not": {
        "required": ["replicas", "autoscaling"],
        "properties": {"replicas": {"not": {"type": "null"}}, "autoscaling": {"not": {"type": "null"}}},
    },
}
"""What `_one_origin` checks, for the published schema."""


SelfHeal = bool | Literal["detect-only"]
"""Whether drift is undone (true), reported and left (detect-only), or taken as meant (false)."""
JsonPointer = Annotated[str, StringConstraints(pattern=r"^(/([^~/]|~[01])*)+$")]
"""RFC 6901, from the root of an app's spec: `/max_ongoing_requests`, `/env/*/MODE`."""


class Suspension(Closed):
    """Change nothing about an app, for a reason, and not for ever."""

    reason: str = Field(min_length=1, description="Why; shown wherever the app is shown.")
    owner: str | None = Field(default=None, description="Who to ask about it.")
    until: AwareDatetime | None = Field(
        default=None, description="ISO 8601 with its offset from UTC; from then on it is no more. Left out: no end."
    )


Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
TimeOfDay = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


class Window(Closed):
    """When changes may be made. It opens on each of `days`; an end at or before the start is on the next day."""

    days: list[Day] = Field(
        default=["mon", "tue", "wed", "thu", "fri", "sat", "sun"], min_length=1, description="Left out: every day."
    )
    start: TimeOfDay = Field(description="HH:MM, in quotes.")
    end: TimeOfDay = Field(description="HH:MM, in quotes.")
    timezone: str = Field(default="UTC", description="IANA name, such as Europe/Stockholm.")

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError(f"there is no time zone {name}; give an IANA name such as Europe/Stockholm")
        return name


class AppInstance(Closed):
    """One app: which code, and how it should run. The key in `apps:` is its app id."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_ONE_ORIGIN)

    source: SourcePath | None = Field(default=None, description="Folder of this repository.")
    artifact: str | None = Field(
        default=None, pattern=r"^[^/\s]+/[^/\s]+$", description="workspace/alias of an artifact."
    )
    version: str | None = Field(default=None, min_length=1, description="Version of `artifact`.")
    kwargs: dict[str, dict[str, JsonValue]] = Field(default_factory=dict, description="class → __init__ parameters")
    env: dict[str, dict[EnvName, EnvValue]] = Field(
        default_factory=dict, description="class or * → variables; a value may be a secret reference"
    )
    hypha_token: SecretRef | None = Field(default=None, description="Token the app itself uses, as HYPHA_TOKEN.")
    authorized_users: AuthorizedUsers | None = Field(default=None, description="Overrides the manifest's.")
    disable_gpu: bool = Field(default=False, description="Run on CPUs even if the code asks for a GPU.")
    max_ongoing_requests: int | None = Field(
        default=None,
        ge=1,
        description="Requests in flight per replica of the entry; left out: what the code says, or 10.",
    )
    max_queued_requests: int | None = Field(
        default=None,
        ge=1,
        description="Requests that may wait when every replica is busy, more are refused at once; left out: what the"
        " code says, or 100.",
    )
    replicas: Replicas | dict[str, Replicas] | None = Field(
        default=None, description="Number of replicas, for all or per class."
    )
    autoscaling: Autoscaling | dict[str, Autoscaling] | None = None
    rollout: Rollout = Rollout()
    auto_redeploy: bool = Field(
        default=False, description="Let the worker deploy the app again when it fails, a few times, ever more slowly."
    )
    debug: bool = Field(default=False, description="Log the app's calls and debug messages.")
    ice_servers: list[IceServer] = Field(
        default_factory=list[IceServer], description="STUN and TURN servers for WebRTC; left out: none are needed."
    )
    depends_on: list[AppId] = Field(default_factory=list, description="Apps that must be up first.")
    adopt: bool = Field(
        default=False, description="Take over an app of this id that a person deployed; never another reconciler's."
    )
    suspend: bool | str | Suspension = Field(
        default=False, description="Change nothing about this app; a text says why, a mapping also who and until when."
    )
    self_heal: SelfHeal | None = Field(default=None, description="Overrides policy.self_heal for this app.")
    ignore: list[JsonPointer] = Field(
        default_factory=list, description="What may differ in the running app: JSON pointers into its spec."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> AppInstance:
        if (self.source is None) == (self.artifact is None):
            raise ValueError("give either `source: apps/<folder>` or `artifact: <workspace>/<alias>`; name one of them")
        if (self.artifact is None) != (self.version is None):
            raise ValueError("`artifact` and `version` go together; give both, or neither")
        if self.replicas is not None and self.autoscaling is not None:
            raise ValueError("give either `replicas` or `autoscaling`; remove one of them")
        return self

    @field_validator("replicas")
    @classmethod
    def _at_least_one(cls, replicas: int | dict[str, int] | None) -> int | dict[str, int] | None:
        numbers = replicas.values() if isinstance(replicas, dict) else [replicas or 1] if replicas != 0 else [0]
        if any(number < 1 for number in numbers):
            raise ValueError("must be at least 1; to stop an app remove it, to leave it alone set `suspend`")
        return replicas


class Policy(Closed):
    """What the reconciler may do by itself."""

    prune: bool = Field(default=False, description="Stop apps that we own and that this file no longer names.")
    self_heal: SelfHeal = Field(
        default=True,
        description="Undo changes made by hand; detect-only reports them; false takes them as meant.",
    )
    apply: Literal["auto", "manual"] = Field(
        default="auto", description="manual: the reconciler that runs by itself waits until somebody approves its plan."
    )
    approvers: list[str] = Field(
        default_factory=list,
        description="User ids or e-mail addresses who may approve, suspend, roll back and retry through Hypha."
        " --approvers, where it is given, replaces this.",
    )
    pruners: list[str] | None = Field(
        default=None,
        description="User ids or e-mail addresses whose tokens, or approvals of the plan, let apps be stopped that this"
        " file no longer names; left out: everybody's who may apply. --pruners, where it is given, replaces this.",
    )
    windows: list[Window] = Field(
        default_factory=list[Window], description="When changes may be made; left out: at any time."
    )
    plan_valid_s: float = Field(
        default=3600.0, gt=0, description="Seconds for which a saved plan, or an approval, is good."
    )
    drift_interval_s: float = Field(default=30.0, ge=1, description="Seconds between two looks at what runs.")
    interval_s: float = Field(default=60.0, ge=1, description="Seconds between two looks at the source.")
    removal_budget: RemovalBudget = Field(
        default="10%", description="Apps that one pass may stop: a number, or a share of those we own, rounded down."
    )
    parallel: int = Field(default=4, ge=1, le=32, description="Apps worked on at once.")
    default_authorized_users: AuthorizedUsers | None = Field(
        default=None,
        description="For apps whose manifest says nothing; without it only the deployer and admins may call.",
    )

    def removals_allowed(self, owned: int) -> int:
        """How many of `owned` apps one pass may stop."""
        if isinstance(self.removal_budget, int):
            return self.removal_budget
        return owned * int(self.removal_budget.rstrip("%")) // 100


class ClusterSpec(Closed):
    """The whole file."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")] = Field(
        description="Name of this cluster; apps deployed by it are owned by this name."
    )
    extends: str | None = Field(
        default=None,
        pattern=r"^[^/\\]+$",
        description="Another file of this folder, of which this one says what differs: mappings are merged, everything"
        " else replaces, null removes.",
    )
    variables: dict[EnvName, str] = Field(
        default_factory=dict, description="Texts by name; ${NAME} in a value stands for one, and $${ for itself."
    )
    hypha: HyphaSpec = HyphaSpec()
    compute: Compute = SingleMachine()
    apps: dict[AppId, AppInstance] = Field(default_factory=dict)
    policy: Policy = Policy()

    @field_validator("apps")
    @classmethod
    def _dependencies_exist(cls, apps: dict[str, AppInstance]) -> dict[str, AppInstance]:
        for app_id, instance in apps.items():
            for needed in instance.depends_on:
                if needed not in apps:
                    raise ValueError(f"{app_id} depends on {needed}, which this file does not name")
        cycle = _cycle({app_id: instance.depends_on for app_id, instance in apps.items()})
        if cycle:
            raise ValueError("depends_on goes round in a circle: " + " → ".join(cycle))
        return apps


def _cycle(graph: dict[str, list[str]]) -> list[str]:
    """One cycle of the graph (each needs the next), its first node repeated at the end; empty when there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def artifact_version(manifest_version: str, tree: str) -> str:
    """Name of the artifact version of one app folder: the author's version and the git tree, as `git describe` does.

    >>> artifact_version("1.2.0", "51ab07e0cafe" + "0" * 28)
    '1.2.0-g51ab07e0cafe'
    """
    return f"{manifest_version}-g{tree[:12]}"
