"""The worker process: joins a Ray cluster and a Hypha workspace, keeps the apps and the gateway running, and answers.

It owns nothing that serves: apps and gateway live in Ray, so this process may be killed and started again at any time,
and finds them as they are. It never starts or stops a Ray or a Serve. Its service is registered last, when everything
behind it is ready; without a Ray head it waits for one and says so (waiting.py), and a head that is lost makes it
start itself anew (ray_link.py).

Told to stop (SIGTERM, SIGINT, `stop_worker`), it withdraws its service, and disconnects within
`--graceful-shutdown-timeout`. In external-cluster mode its apps and their gateway go on, and calls with them; otherwise
they were this worker's alone, and are stopped before. `--apps-at-exit` says it differently: the embedded default keeps
them, because it ends the whole Ray when it ends, and otherwise only ever replaces the worker. Killed, or unable to
start, it stops nothing (serving.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray

from bioengine_runtime.apps.record import read_records
from bioengine_runtime.apps.supervisor import Supervisor, WorkerEnvironment
from bioengine_runtime.gateway.deploy import GatewaySettings, ensure_gateway, refresh_gateway
from bioengine_runtime.worker.leaving import stop_apps
from bioengine_runtime.worker.log_file import writer
from bioengine_runtime.worker.nodes import nodes
from bioengine_runtime.worker.pending import pending
from bioengine_runtime.worker.presence import Presence
from bioengine_runtime.worker.ray_link import Head, HeadWatch, join_ray, never_start_ray, start_anew
from bioengine_runtime.worker.serving import serve_until_told
from bioengine_runtime.worker.settings import WorkerSettings
from bioengine_runtime.worker.startup import deploy_all
from bioengine_runtime.worker.waiting import wait_for_head

log = logging.getLogger("bioengine_runtime.worker")

LOG_FORMAT = "time=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s"
LEAVE_WITHIN_S = 15.0
"""For all of leaving but stopping apps."""
ANSWER_WITHIN_S = 0.5
"""`stop_worker` is answered before the connection is closed."""
LOOK_AFTER_GATEWAY_S = 30.0


class Worker:
    """Holds the parts between start and stop."""

    def __init__(self, settings: WorkerSettings, head: Head, stopping: asyncio.Event) -> None:
        self.settings = settings
        self._stopping = stopping
        self._presence = Presence(settings, head)
        self._supervisor: Supervisor | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._deploying: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Everything behind the service first, the service last. The apps that we deploy ourselves follow beside it."""
        presence = self._presence
        await presence.connect()
        supervisor = self._supervisor = Supervisor(
            reader=presence.artifacts(),
            environment=WorkerEnvironment(
                apps_dir=str(self.settings.apps_dir),
                seal_key_file=str(presence.key_file),
                server_url=self.settings.server_url,
                workspace=presence.session.workspace,
                worker_service_id=presence.service_id,
                grows=self.settings.grows,
            ),
            on_change=self._apps_changed,
        )
        await supervisor.start()
        await self._ensure_gateway()
        desk = await presence.register(
            apps=supervisor,
            nodes=nodes,
            pending=pending,
            service_ids=partial(refresh_gateway, presence.service_id, 5.0),
            running=read_records,
            leave=self._told_to_leave,
            require_ray=lambda: None,
        )
        log.info("event=ready service=%s", presence.service_id)
        self._looking = asyncio.create_task(self._look_after_gateway())
        self._deploying = asyncio.create_task(self._deploy(partial(desk.deploy, presence.owner)))

    async def stop(self, *, told: bool) -> None:
        """Leave, and disconnect. Not `told` to stop, it touches no app."""
        await self._leave(told=told)
        await self._presence.close()

    async def _deploy(self, deploy: Callable[[dict[str, Any]], Awaitable[str]]) -> None:
        self._presence.startup_failures = await deploy_all(self.settings.startup_applications, deploy)

    async def _told_to_leave(self, blocking: bool) -> None:
        if blocking:
            await self._leave(told=True)
        asyncio.get_running_loop().call_later(ANSWER_WITHIN_S, self._stopping.set)

    async def _leave(self, *, told: bool) -> None:
        """Out of sight first, then still; done once, however many ask."""
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._withdraw_everything(told))
        await asyncio.shield(self._leaving)

    async def _withdraw_everything(self, told: bool) -> None:
        await self._presence.withdraw()
        for task in (self._looking, self._deploying):
            if task is not None:
                task.cancel()
        if self._supervisor is None:
            return
        if told and self.settings.stop_apps:
            within_s = self.settings.graceful_shutdown_timeout
            await stop_apps(self._supervisor, self._presence.service_id, within_s)
        await self._supervisor.stop()

    async def _look_after_gateway(self) -> None:
        """Ask for the gateway again and again: Serve restarts its replica, this restores it if someone deleted it."""
        while True:
            await asyncio.sleep(LOOK_AFTER_GATEWAY_S)
            try:
                await self._ensure_gateway()
            except Exception as error:  # nothing that goes wrong here is a reason to take anything down
                log.warning("event=gateway_not_ensured error=%s", type(error).__name__)

    async def _ensure_gateway(self) -> None:
        settings, presence = self.settings, self._presence
        gateway = GatewaySettings(
            settings.server_url,
            presence.session.workspace,
            presence.token_path,
            settings.gateway_client_id,
            presence.service_id,
            settings.message_rate,
        )
        await ensure_gateway(gateway, presence.admins)

    async def _apps_changed(self) -> None:
        """The gateway looks by itself every few seconds; this only makes it sooner."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh_gateway())

    async def _refresh_gateway(self) -> None:
        with suppress(Exception):
            await refresh_gateway(self._presence.service_id, 5.0)


async def run(settings: WorkerSettings) -> None:
    """Serve until told to stop, from the moment on that there is a Ray head."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    head = await wait_for_head(settings, stopping)
    if head is None:
        return
    await asyncio.to_thread(join_ray, settings.ray_address)
    watch = HeadWatch(settings.ray_address, head, _head_lost)
    watch.start()
    within_s = LEAVE_WITHIN_S + (settings.graceful_shutdown_timeout if settings.stop_apps else 0)

    def leaving() -> None:
        log.info("event=stopping")
        watch.stop()
        _leave_anyway_after(within_s)

    await serve_until_told(Worker(settings, head, stopping), stopping, leaving)


def _head_lost(reason: str) -> None:
    log.error("event=ray_lost reason=%r next=%r", reason, "starting anew, to wait for a Ray head")
    start_anew()


def main(settings: WorkerSettings) -> int:
    """Serve until told to stop; answers the exit code of the process."""
    settings.home.mkdir(parents=True, exist_ok=True)
    set_up_logging(settings.log_file, debug=settings.debug)
    log.info("event=starting client=%s ray=%s mode=%s", settings.client_id, settings.ray_address, settings.mode)
    never_start_ray(settings.ray_address)
    try:
        asyncio.run(run(settings))
    except Exception:
        log.exception("event=failed")
        return 1
    finally:
        ray.shutdown()
    log.info("event=stopped")
    return 0


def set_up_logging(file: Path | None, *, debug: bool) -> None:
    """Debugging is for our own lines: those of libraries quote messages, and messages may carry secrets."""
    handler = writer(file) if file is not None else logging.StreamHandler(sys.stderr)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, handlers=[handler], force=True)
    if debug:
        logging.getLogger("bioengine_runtime").setLevel(logging.DEBUG)
    for noisy in ("httpx", "httpcore", "websocket-client", "RPC", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _leave_anyway_after(seconds: float) -> None:
    """A part that hangs must not keep the process: what serves lives elsewhere."""
    timer = threading.Timer(seconds, os._exit, args=(1,))
    timer.daemon = True
    timer.start()
