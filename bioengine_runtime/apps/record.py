"""AppRecord: what a running app says of itself, kept by Ray Serve beside the app and written in the same step.

It lives in the `user_config` of the entry deployment. Serve stores it with the deployment (one write, so a crash leaves
either the old app with the old record or the new app with the new one), gives it back to any worker or gateway that
asks, and does not restart a replica when it changes.

Other workers, of other releases, keep theirs in the same place. Law: a record that cannot be read hides its own app and
no other.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import ray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from typing_extensions import TypedDict  # pydantic reads this one on Python 3.11

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.status import Provenance, ServeStatus

RECORD_KEY = "bioengine_record"
"""Key of the record in a deployment's user_config; what is beside it is the user's own part."""

READ_TIMEOUT_S = 30.0

log = logging.getLogger(__name__)


class Method(TypedDict):
    """One callable of the entry: its name and the schema that hypha-rpc shows to callers."""

    name: str
    schema: dict[str, Any]


class AppRecord(BaseModel):
    """One app as it was deployed. `previous` is the last version known to be good while this one comes up. What a later
    release has added is not read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    spec: AppSpec
    digest: str
    code_digest: str
    provenance: Provenance
    secret_fingerprints: dict[str, str] = Field(default_factory=dict, description="Class/NAME → keyed hash")
    name: str
    description: str = ""
    entry: str = Field(description="Class name of the entry, which is its deployment name too.")
    methods: list[Method] = Field(default_factory=list)
    frontend_entry: str | None = None
    started_at: float
    last_updated_at: float
    blueprint: str = Field(description="Key under which everything needed to deploy this version again is kept.")
    package: str = Field(default="", description="Digest of the code package.")
    worker: str = Field(default="", description="Service id of the worker that looks after the app.")
    resources: dict[str, float] = Field(
        default_factory=dict,
        description="num_cpus, num_gpus and memory (bytes) of one replica of every deployment, added up.",
    )
    capacity: int = Field(default=1, description="Requests that one replica of the entry works on at once.")
    warnings: list[str] = Field(default_factory=list, description="What its operator should know, in sentences.")
    asked_at: float | None = Field(default=None, description="When this release was asked for, before it was prepared.")
    sent_at: float | None = Field(default=None, description="When Ray Serve was first given this release.")
    layers: list[str] | None = Field(default=None, description="Names of its package layers; None: it does not say.")
    token_expires_at: float | None = Field(default=None, description="When the app's own Hypha token ends.")
    previous: AppRecord | None = None

    def runs(self, digest: str, fingerprints: Mapping[str, str]) -> bool:
        """Whether this is exactly what is asked for, the values of its secrets included."""
        return self.digest == digest and self.secret_fingerprints == dict(fingerprints)

    def release(self) -> str:
        """Identity of the processes: equal releases need no new replica."""
        secrets = "\n".join(f"{name}={print_}" for name, print_ in sorted(self.secret_fingerprints.items()))
        return hashlib.sha256(f"{self.code_digest}\n{secrets}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Replica:
    """One process, as Serve sees it."""

    deployment: str
    replica_id: str
    state: str
    pid: int | None
    node_id: str | None
    started_at: float | None
    worker_id: str | None


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """One deployment, as Serve sees it."""

    name: str
    status: str
    message: str
    target: int | None
    replicas: tuple[Replica, ...]
    dead: tuple[Replica, ...] = ()
    takes: Mapping[str, float] = field(default_factory=dict[str, float])
    """What one replica takes of its node, in Ray's names."""


@dataclass(frozen=True, slots=True)
class Running:
    """One Serve application. `record` is None when it was not deployed by us, or its record is `unreadable`."""

    app_id: str
    status: ServeStatus
    message: str
    record: AppRecord | None
    deployments: tuple[DeploymentState, ...]
    deployed_at: float
    unreadable: bool = False

    def failed(self) -> DeploymentState | None:
        """The deployment that could not start its replicas."""
        return next((one for one in self.deployments if one.status == "DEPLOY_FAILED"), None)


async def read_records() -> dict[str, Running]:
    """Every Serve application, with our record where it carries one; empty when Serve does not run. One remote call."""
    try:
        # In a thread: with a head that died it does not come back before Ray gives up.
        controller = await asyncio.to_thread(ray.get_actor, SERVE_CONTROLLER_NAME, SERVE_NAMESPACE)
    except ValueError:
        return {}
    answer = controller.get_serve_instance_details.remote()
    details = await asyncio.wait_for(asyncio.wrap_future(answer.future()), READ_TIMEOUT_S)
    return {app_id: running_of(app_id, app) for app_id, app in details["applications"].items()}


def all_readable(apps: Iterable[Running]) -> bool:
    """Whether what no record names is needed by nobody: a record that we cannot read may name anything."""
    return not any(one.unreadable for one in apps)


def running_of(app_id: str, app: Mapping[str, Any]) -> Running:
    """From what Serve's controller says of one application."""
    deployed_at = app.get("last_deployed_time_s") or 0.0
    kept = _kept(app)
    try:
        record = None if kept is None else AppRecord.model_validate(kept)
    except ValidationError:
        record = None
        _say_unreadable(app_id, deployed_at)
    return Running(
        app_id=app_id,
        status=cast(ServeStatus, app["status"]),
        message=app.get("message") or "",
        record=record,
        deployments=tuple(_deployment(name, one) for name, one in app["deployments"].items()),
        deployed_at=deployed_at,
        unreadable=kept is not None and record is None,
    )


def _kept(app: Mapping[str, Any]) -> Any:
    for deployment in app["deployments"].values():
        config = (deployment.get("deployment_config") or {}).get("user_config")
        if isinstance(config, dict) and RECORD_KEY in config:
            return config[RECORD_KEY]
    return None


@functools.cache
def _say_unreadable(app_id: str, deployed_at: float) -> None:  # noqa: ARG001 (once for each)
    """Nothing of what it says: it may carry values."""
    log.warning("app=%s carries a record that this release cannot read; it is taken for another's", app_id)


def _deployment(name: str, one: Mapping[str, Any]) -> DeploymentState:
    return DeploymentState(
        name=name,
        status=one["status"],
        message=one.get("message") or "",
        target=one.get("target_num_replicas"),
        replicas=tuple(_replica(name, replica) for replica in one.get("replicas") or ()),
        dead=tuple(_replica(name, replica) for replica in one.get("recent_dead_replicas") or ()),
        takes=one.get("required_resources") or {},
    )


def _replica(deployment: str, replica: Mapping[str, Any]) -> Replica:
    return Replica(
        deployment=deployment,
        replica_id=replica["replica_id"],
        state=replica["state"],
        pid=replica.get("pid"),
        node_id=replica.get("node_id"),
        started_at=replica.get("start_time_s"),
        worker_id=replica.get("worker_id"),
    )
