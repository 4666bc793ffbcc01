"""The worker process: joins a Ray cluster and a Hypha workspace, keeps the apps and the gateway running, and answers.

It owns nothing that serves: apps and gateway live in Ray, so this process may be killed and started again at any time.
It never stops a Ray or a Serve, and its service is registered last, when everything behind it is ready.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray

from bioengine_runtime.apps.supervisor import Supervisor, WorkerEnvironment
from bioengine_runtime.artifacts import HyphaArtifacts
from bioengine_runtime.contract.status import WorkerMode
from bioengine_runtime.desk import Desk
from bioengine_runtime.gateway.deploy import GatewaySettings, ensure_gateway, refresh_gateway
from bioengine_runtime.hypha_session import HyphaAddress, HyphaSession
from bioengine_runtime.nodes import nodes
from bioengine_runtime.operations import Operations, WorkerFacts
from bioengine_runtime.pace import PER_SECOND
from bioengine_runtime.sealing import ensure_key
from bioengine_runtime.service import WorkerService

log = logging.getLogger("bioengine_runtime.worker")

LOG_FORMAT = "time=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s"
STOP_WITHIN_S = 15.0
LOOK_AFTER_GATEWAY_S = 30.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How this worker was started. Tokens are paths to files that only we may read."""

    server_url: str
    workspace: str
    token_file: Path
    client_id: str
    service_id: str
    ray_address: str
    mode: WorkerMode
    home: Path
    log_file: Path | None = None
    admin_users: tuple[str, ...] = ()
    ray_auth_token_file: Path | None = None
    message_rate: float = PER_SECOND

    @property
    def gateway_client_id(self) -> str:
        return f"{self.client_id}-gateway"


class Worker:
    """Holds the parts between start and stop."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self._started_at = time.time()
        self._session = HyphaSession(
            HyphaAddress(
                settings.server_url,
                settings.workspace,
                settings.token_file,
                settings.client_id,
                settings.message_rate,
            )
        )
        self._admins: tuple[str, ...] = settings.admin_users
        self._refreshing: asyncio.Task[None] | None = None
        self._supervisor: Supervisor | None = None

    async def start(self) -> None:
        """Everything behind the service first, the service last."""
        self._session.start()
        server = await self._session.connected()
        self._admins = tuple(dict.fromkeys([*owner_names(server.config.user), *self.settings.admin_users]))
        artifacts = HyphaArtifacts(self._session)
        key_file = self.settings.home.absolute() / "seal.key"
        key = ensure_key(key_file)
        supervisor = self._supervisor = Supervisor(
            reader=artifacts,
            environment=WorkerEnvironment(
                apps_dir=str(self.settings.home.absolute() / "apps"),
                seal_key_file=str(key_file),
                server_url=self.settings.server_url,
                workspace=self._session.workspace,
                worker_service_id=self._service_id,
            ),
            on_change=self._apps_changed,
        )
        await supervisor.start()
        await self._ensure_gateway()
        operations = Operations(
            apps=supervisor, facts=self._facts, nodes=nodes, service_ids=partial(refresh_gateway, self._service_id, 5.0)
        )
        desk = Desk(
            operations=operations,
            logs=supervisor,
            store=artifacts,
            facts=self._facts,
            nodes=nodes,
            admins=lambda: self._admins,
            key=key,
        )
        service = WorkerService(reconciler=operations, people=desk, admins=lambda: self._admins)
        description = f"Manages BioEngine apps ({self.settings.mode})"
        await self._session.put(service.registration(self.settings.service_id, "BioEngine Worker", description))
        log.info("event=ready service=%s", self._service_id)

    async def look_after_gateway(self) -> None:
        """Ask for the gateway again and again: Serve restarts its replica, this restores it if someone deleted it."""
        while True:
            await asyncio.sleep(LOOK_AFTER_GATEWAY_S)
            try:
                await self._ensure_gateway()
            except Exception as error:  # nothing that goes wrong here is a reason to take anything down
                log.warning("event=gateway_not_ensured error=%s", type(error).__name__)

    async def stop(self) -> None:
        """Out of sight first, then still; apps and gateway go on."""
        with suppress(Exception):
            await self._session.withdraw(self.settings.service_id)
        if self._supervisor is not None:
            await self._supervisor.stop()
        await self._session.stop()

    @property
    def _service_id(self) -> str:
        return self._session.service_id(self.settings.service_id)

    async def _ensure_gateway(self) -> None:
        settings = self.settings
        gateway = GatewaySettings(
            settings.server_url,
            self._session.workspace,
            settings.token_file.absolute(),
            settings.gateway_client_id,
            self._service_id,
            settings.message_rate,
        )
        await ensure_gateway(gateway, self._admins)

    async def _apps_changed(self) -> None:
        """The gateway looks by itself every few seconds; this only makes it sooner."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh_gateway())

    async def _refresh_gateway(self) -> None:
        with suppress(Exception):
            await refresh_gateway(self._service_id, 5.0)

    def _facts(self) -> WorkerFacts:
        return WorkerFacts(
            service_id=self._service_id,
            workspace=self._session.workspace,
            client_id=self.settings.client_id,
            mode=self.settings.mode,
            public_url=self._session.public_url,
            ray_address=self.settings.ray_address,
            started_at=self._started_at,
        )


def owner_names(user: Any) -> list[str]:
    """The token owner's id and e-mail; an anonymous owner is nobody."""
    if not user or user.get("is_anonymous"):
        return []
    return [name for name in (user.get("id"), user.get("email")) if isinstance(name, str) and name]


async def run(settings: WorkerSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    worker = Worker(settings)
    starting = asyncio.create_task(worker.start())
    told = asyncio.create_task(stopping.wait())
    await asyncio.wait({starting, told}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if not stopping.is_set():
            starting.result()
            looking = asyncio.create_task(worker.look_after_gateway())
            await told
            looking.cancel()
    finally:
        log.info("event=stopping")
        _leave_anyway_after(STOP_WITHIN_S)
        starting.cancel()
        await worker.stop()


def join_ray(settings: WorkerSettings) -> None:
    """Become a driver of the cluster, which somebody else started and will stop."""
    if settings.ray_auth_token_file is not None:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(settings.ray_auth_token_file)
    ray.init(
        address=settings.ray_address,
        namespace="bioengine",
        log_to_driver=False,
        logging_level=logging.WARNING,
        configure_logging=False,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    settings = read_settings(arguments)
    settings.home.mkdir(parents=True, exist_ok=True)
    set_up_logging(settings.log_file)
    log.info("event=starting client=%s ray=%s mode=%s", settings.client_id, settings.ray_address, settings.mode)
    try:
        join_ray(settings)
        asyncio.run(run(settings))
    except Exception:
        log.exception("event=failed")
        return 1
    finally:
        ray.shutdown()
    log.info("event=stopped")
    return 0


def read_settings(arguments: Sequence[str] | None = None) -> WorkerSettings:
    parser = ArgumentParser(prog="python -m bioengine_runtime.worker", description=__doc__)
    parser.add_argument("--server-url", required=True)
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--token-file", required=True, type=Path, help="0600 file with the worker's Hypha token")
    parser.add_argument("--client-id", required=True, help="the same at every start, so that the service id stays")
    parser.add_argument("--service-id", default="bioengine-worker")
    parser.add_argument("--ray-address", required=True, help="host:port of the Ray head")
    parser.add_argument(
        "--mode", choices=["single-machine", "external-cluster", "slurm"], default="single-machine", help="who owns Ray"
    )
    parser.add_argument("--home", required=True, type=Path, help="folder for apps and keys")
    parser.add_argument("--log-file", type=Path, help="left out: standard error")
    parser.add_argument("--admin-users", nargs="*", default=(), help="ids or e-mails, besides the token's owner")
    parser.add_argument("--ray-auth-token-file", type=Path, help="0600 file with the Ray cluster's token")
    parser.add_argument(
        "--message-rate",
        type=float,
        default=PER_SECOND,
        help="messages per second to Hypha at most, a tenth below its limit per client (default: %(default)g)",
    )
    given = vars(parser.parse_args(arguments))
    return WorkerSettings(**{**given, "admin_users": tuple(given["admin_users"])})


def set_up_logging(file: Path | None) -> None:
    handler = logging.FileHandler(file) if file is not None else logging.StreamHandler(sys.stderr)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "websocket-client", "RPC", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _leave_anyway_after(seconds: float) -> None:
    """A part that hangs must not keep the process: what serves lives elsewhere."""
    timer = threading.Timer(seconds, os._exit, args=(0,))
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    sys.exit(main())
