"""What the runtime reports: running apps that say themselves which digest, owner and commit they came from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.base import AppId, Closed

ServeStatus = Literal["NOT_STARTED", "DEPLOYING", "DEPLOY_FAILED", "RUNNING", "UNHEALTHY", "DELETING"]
WorkerMode = Literal["single-machine", "external-cluster", "slurm"]
Gate = Literal["start", "probe", "stable"]
Return = Literal["none", "under way", "done", "failed"]


PERSON = "user:"
"""Prefix of an owner that is a person; owners without it are reconcilers, and their names match no user."""


class Provenance(Closed):
    """Where a running app comes from: which reconciler, which commit, which folder."""

    owner: str = Field(description="Name of the cluster.yaml that deployed it.")
    source: str = Field(description="URL or path of the repository, without credentials.")
    commit: str = Field(description="Commit id; with `+worktree` when uncommitted files were deployed.")
    path: str | None = Field(default=None, description="Folder of the app in the repository.")
    tree: str | None = Field(default=None, description="Git tree id of that folder.")
    digest: str | None = Field(default=None, description="Of the spec that the owner asked for.")
    adopts: str | None = Field(default=None, description="Owner, a person, that the app was taken over from.")
    by: str | None = Field(default=None, description="Who did it by hand, id or e-mail; None: the owner itself.")
    users_from_manifest: bool = Field(
        default=False, description="Nobody but the manifest said who may call it, so that of the next version says it."
    )


class Rejection(Closed):
    """A version that was tried and is not good; it is not tried again while its digest stays the same."""

    digest: str
    secret_fingerprints: dict[str, str] = Field(
        default_factory=dict, description="Class/NAME → keyed hash of what it was tried with."
    )
    reason: str
    log_lines: list[str] = Field(default_factory=list)
    at: float = Field(description="Seconds since the epoch.")
    gate: Gate = Field(
        default="start",
        description="What it did not pass: it did not come up, answered its probe wrongly, or did not stay healthy.",
    )
    rollback: Return = Field(
        default="none",
        description="What became of the last good version; none: there is none, or the app is to stay as it is.",
    )


class ReplicaState(Closed):
    """One process of one deployment."""

    deployment: str
    replica_id: str
    state: str
    pid: int | None = None
    node_id: str | None = None
    started_at: float | None = None
    code_digest: str | None = Field(
        default=None, description="What the replica itself says it runs; None: it said nothing."
    )


class AppState(Closed):
    """One app as it runs, echoing what it was deployed from."""

    app_id: AppId
    status: ServeStatus
    message: str = ""
    spec: AppSpec | None = Field(default=None, description="None when the app was not deployed through this contract.")
    digest: str | None = None
    secret_fingerprints: dict[str, str] = Field(default_factory=dict, description="Class/NAME → keyed hash")
    provenance: Provenance | None = None
    rejected: Rejection | None = None
    updating: bool = Field(
        default=False, description="A new version is being brought up, or is up and not known to be good yet."
    )
    replicas: list[ReplicaState] = Field(default_factory=list[ReplicaState])
    service_id: str | None = Field(default=None, description="Full Hypha id, once the gateway has registered it.")
    methods: list[str] = Field(default_factory=list)
    static_site_url: str | None = None
    started_at: float | None = None
    last_updated_at: float | None = None
    last_deploy_s: float | None = Field(
        default=None, description="Seconds the newest good version took from the request until it was good."
    )
    token_expires_at: float | None = Field(
        default=None, description="When the app's own Hypha token ends, seconds since the epoch; None: never, or none."
    )


class NodeState(Closed):
    """One Ray node: what it has, and what is free now. memory in bytes."""

    node_id: str
    address: str
    head: bool
    total: dict[str, float] = Field(default_factory=dict, description="CPU, GPU, memory")
    free: dict[str, float] = Field(default_factory=dict, description="CPU, GPU, memory")


class WorkerState(Closed):
    """Everything the reconciler needs to see, in one answer."""

    service_id: str
    workspace: str
    mode: WorkerMode
    bioengine_version: str
    ray_version: str
    nodes: list[NodeState] = Field(default_factory=list[NodeState])
    apps: list[AppState] = Field(default_factory=list[AppState])
    workers: dict[str, int] | None = Field(default=None, description="SLURM bounds in force: min, max.")
    token_expires_at: float | None = Field(
        default=None, description="When the worker's own Hypha token ends, seconds since the epoch; None: never."
    )


class Prepared(Closed):
    """Result of building an app's environment: what was built where, or why it could not be."""

    done: bool = Field(default=True, description="False: still building; ask again.")
    ok: bool = True
    message: str = ""
    nodes: int = 0
    seconds: float = 0.0
