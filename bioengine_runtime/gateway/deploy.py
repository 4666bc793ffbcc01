"""Keeps the gateway running: a worker restart finds it as it is, only a new release or new settings replace it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import serve

import bioengine_runtime
from bioengine_runtime.gateway.names import GATEWAY_DEPLOYMENT, gateway_app
from bioengine_runtime.gateway.replica import Gateway
from bioengine_runtime.pace import PER_SECOND
from bioengine_runtime.serve_thread import in_serve_thread

PARTS = (
    *("gateway/*.py", "apps/calling.py", "apps/record.py", "apps/store.py", "contract/*.py"),
    *("rpc/access.py", "rpc/callers.py", "rpc/door.py", "hypha_session.py", "pace.py", "signs_of_life.py"),
)
"""The files whose change makes a new release of the gateway."""
ENVIRONMENT = {"RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1)}
"""Answers may be as large as gRPC can have them; Serve's default is 4 MB."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """How the gateway reaches Hypha. The token is a path to a file that only its owner may read."""

    server_url: str
    workspace: str
    token_file: Path
    client_id: str
    worker_service_id: str
    message_rate: float = PER_SECOND

    def arguments(self) -> tuple[str | float, ...]:
        """What the replica is made with."""
        return (
            self.server_url,
            self.workspace,
            str(self.token_file),
            self.client_id,
            self.worker_service_id,
            self.message_rate,
        )


async def ensure_gateway(settings: GatewaySettings, admins: Sequence[str]) -> None:
    """Ask Serve to run the gateway; one that already runs this release with these settings keeps its process."""

    def ask() -> None:
        application = _deployment(settings, admins).bind(*settings.arguments())
        target = serve.RunTarget(application, name=gateway_app(settings.worker_service_id), route_prefix=None)
        serve.run_many([target], wait_for_ingress_deployment_creation=True, wait_for_applications_running=False)

    await in_serve_thread(ask)


async def refresh_gateway(worker_service_id: str, timeout_s: float = 10.0) -> dict[str, str]:
    """Have the gateway look now; app id → full Hypha service id. Raises TimeoutError when it does not answer."""

    def ask() -> Any:
        handle: Any = serve.get_deployment_handle(GATEWAY_DEPLOYMENT, app_name=gateway_app(worker_service_id))
        return handle.refresh.remote()

    async with asyncio.timeout(timeout_s):
        return await (await in_serve_thread(ask))


def _deployment(settings: GatewaySettings, admins: Sequence[str]) -> serve.Deployment:
    settled = serve.deployment(
        name=GATEWAY_DEPLOYMENT,
        num_replicas=1,
        max_ongoing_requests=100,
        # The new one starts while the old one still answers, and then asks it for the connection (lease.py).
        max_surge_percent=100,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=20,
        health_check_period_s=5,
        user_config={"admins": sorted(set(admins))},
        ray_actor_options={
            "num_cpus": 0,
            "resources": {"node:__internal_head__": 0.001},
            "runtime_env": {"env_vars": ENVIRONMENT},
        },
    )
    # Serve keeps the replica of an equal version. Naming one is no longer public in 2.60; Serve itself does it so.
    return settled(Gateway).options(version=release(settings), _internal=True)


def release(settings: GatewaySettings) -> str:
    """Digest of the gateway's code and settings; admins are not in it, they change without a restart."""
    package = Path(bioengine_runtime.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for part in PARTS for path in package.glob(part)):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(json.dumps(settings.arguments()).encode())
    return digest.hexdigest()[:32]
