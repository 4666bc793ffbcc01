"""From what is wanted to what Serve's controller is sent: one serialized message per deployment of an app.

The messages are kept as a blueprint, so that the last good version can be sent again exactly as it was: same bytes,
same deployment versions, hence no replica of it restarts.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray import serve
from ray.serve._private.config import DeploymentConfig
from ray.serve._private.deploy_utils import get_deploy_args
from ray.serve.deployment import Deployment
from ray.serve.generated import serve_pb2
from ray.serve.handle import DeploymentHandle

from bioengine_runtime.apps.lifecycle import USER_PART, ManagedDeployment
from bioengine_runtime.apps.record import RECORD_KEY, AppRecord
from bioengine_runtime.apps.requirements import Wanted

MARK_KEY = "sent_again"


@dataclass(frozen=True, slots=True)
class Part:
    """One deployment: what it asks for, and what its replica is given."""

    wanted: Wanted
    module: str
    kwargs: Mapping[str, Any]
    handles: Mapping[str, str]
    layer: str | None
    sealed: str | None
    multiplexed: bool


@dataclass(frozen=True, slots=True)
class Blueprint:
    """One version of an app, as sent to Serve. `sealed` is kept so that an update can inherit secrets."""

    deployments: tuple[bytes, ...]
    sealed: Mapping[str, str]

    def to_bytes(self) -> bytes:
        deployments = [base64.b64encode(one).decode() for one in self.deployments]
        return json.dumps({"deployments": deployments, "sealed": dict(self.sealed)}).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Blueprint:
        kept = json.loads(content)
        return cls(tuple(base64.b64decode(one) for one in kept["deployments"]), kept["sealed"])


def blueprint(record: AppRecord, parts: Sequence[Part], common: Mapping[str, Any]) -> Blueprint:
    """`parts` begins with the entry. `common` is what every replica of the app is given alike."""
    sealed = {part.wanted.name: part.sealed for part in parts if part.sealed}
    return Blueprint(
        deployments=tuple(_message(record, part, common, entry=part is parts[0]) for part in parts), sealed=sealed
    )


def sent_again(deployments: Sequence[bytes], mark: str) -> tuple[bytes, ...]:
    """The same versions with another mark, which makes Serve begin anew with what it has given up.

    Serve ignores a message that equals the last one. The mark is for nobody: a running replica is left as it is."""
    return tuple(_saying(one, {MARK_KEY: mark}) for one in deployments)


def recorded_as(kept: Blueprint, record: AppRecord) -> Blueprint:
    """The same processes with this record of them."""
    said = {RECORD_KEY: record.model_dump(mode="json")}
    entry, *others = kept.deployments
    return replace(kept, deployments=(_saying(entry, said), *others))


def _saying(message: bytes, more: Mapping[str, Any]) -> bytes:
    """The message with this in its user_config, whose change restarts no replica."""
    args = serve_pb2.DeploymentArgs.FromString(message)  # pyright: ignore[reportAttributeAccessIssue]
    config = DeploymentConfig.from_proto_bytes(args.deployment_config)
    config.user_config = {**(config.user_config or {}), **more}
    args.deployment_config = config.to_proto_bytes()
    return args.SerializeToString()


def _message(record: AppRecord, part: Part, common: Mapping[str, Any], *, entry: bool) -> bytes:
    deployment = _deployment(record, part, common, entry=entry)
    args = get_deploy_args(
        deployment.name,
        replica_config=deployment._replica_config,
        ingress=entry,
        deployment_config=deployment._deployment_config,
        version=part.wanted.release,
        route_prefix=None,
    )
    return serve_pb2.DeploymentArgs(  # pyright: ignore[reportAttributeAccessIssue]
        deployment_name=args["deployment_name"],
        deployment_config=args["deployment_config_proto_bytes"],
        replica_config=args["replica_config_proto_bytes"],
        deployer_job_id=args["deployer_job_id"],
        ingress=entry,
        uses_multiplexing=part.multiplexed,
    ).SerializeToString()


def _deployment(record: AppRecord, part: Part, common: Mapping[str, Any], *, entry: bool) -> Deployment:
    config: dict[str, Any] = {}
    if part.wanted.user_config is not None:
        config[USER_PART] = part.wanted.user_config
    if entry:
        config[RECORD_KEY] = record.model_dump(mode="json")
    app_id, name = record.spec.app_id, part.wanted.name
    given = {
        **common,
        "app_id": app_id,
        "deployment": name,
        "layer": part.layer,
        "requirements": list(part.wanted.requirements),
        "module": part.module,
        "kwargs": dict(part.kwargs),
        "handles": {parameter: DeploymentHandle(other, app_name=app_id) for parameter, other in part.handles.items()},
        "sealed": part.sealed,
        "code_digest": record.code_digest,
        "start_timeout_s": record.spec.rollout.health_timeout_s,
        "test": record.spec.rollout.test,
        "debug": record.spec.debug,
        "given": sorted((part.wanted.actor_options.get("runtime_env") or {}).get("env_vars") or ()),
    }
    options = {key: value for key, value in part.wanted.options.items() if value is not None}
    decorated = serve.deployment(
        name=name, user_config=config or None, ray_actor_options=_actor_options(part), **options
    )(ManagedDeployment)
    return decorated.options(_init_kwargs=given)


def _actor_options(part: Part) -> dict[str, Any]:
    options = dict(part.wanted.actor_options)
    if part.layer:
        runtime_env = dict(options.get("runtime_env") or {})
        variables = dict(runtime_env.get("env_vars") or {})
        before = variables.get("PYTHONPATH")
        variables["PYTHONPATH"] = f"{part.layer}:{before}" if before else part.layer
        options["runtime_env"] = {**runtime_env, "env_vars": variables}
    return options
