"""The gateway's one process: follows what Serve runs and keeps Hypha true to it. Knows no app's code."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

from bioengine_runtime.apps.record import read_records
from bioengine_runtime.gateway.lease import Lease
from bioengine_runtime.gateway.names import gateway_app
from bioengine_runtime.gateway.services import Services
from bioengine_runtime.hypha_session import HyphaAddress, HyphaSession
from bioengine_runtime.rpc.callers import Callers

log = logging.getLogger("ray.serve")

LOOK_EVERY_S = 3.0
DRAIN_S = 10.0
"""Less than the next one waits (lease.py) and than Serve gives us (deploy.py)."""
QUIET_S = 0.025
"""Long enough for the answers of calls that have ended to be on their way."""


class Gateway:
    """Registers one Hypha service per app and carries its calls. `user_config` is `{"admins": [id or e-mail]}`."""

    async def __init__(
        self,
        server_url: str,
        workspace: str,
        token_file: str,
        client_id: str,
        worker_service_id: str,
        message_rate: float,
    ) -> None:
        self._worker = worker_service_id
        address = HyphaAddress(server_url, workspace, Path(token_file), client_id, message_rate)
        self._session = HyphaSession(address)
        self._callers = Callers(self._session.ping)
        self._services = Services(worker_service_id, self._session, lambda: self._admins, self._callers)
        self._admins: tuple[str, ...] = ()
        self._looking = asyncio.Lock()
        self._lease = Lease(gateway_app(worker_service_id))
        self._retiring: asyncio.Task[None] | None = None
        self._life = asyncio.create_task(self._live(), name="gateway-life")

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        self._admins = tuple(user_config.get("admins", ()))

    async def refresh(self) -> dict[str, str]:
        """Look at once; answers app id (and `{app id}-rtc`) → full Hypha service id of everything offered now."""
        await self._look()
        if not self._session.is_connected:
            return {}
        return {service: self._session.service_id(service) for service in self._session.services()}

    def check_health(self) -> None:
        if self._life.done() and self._retiring is None:
            raise RuntimeError("the gateway no longer follows the apps")
        if self._session.has_died:
            raise RuntimeError("the gateway's connection to Hypha has ended")

    async def __del__(self) -> None:
        """Serve calls this when the replica stops."""
        self._life.cancel()
        await self._retire()

    async def _live(self) -> None:
        """From having the connection to oneself until a newer gateway asks for it."""
        await self._lease.take()
        self._session.start()
        following = asyncio.create_task(self._follow(), name="gateway-follow")
        watching = asyncio.create_task(self._callers.watch(), name="gateway-callers")
        try:
            await self._until_replaced()
        finally:
            following.cancel()
            watching.cancel()
        await self._retire()

    async def _until_replaced(self) -> None:
        while True:
            try:
                return await self._lease.until_lost()
            except Exception as error:  # Ray does not answer: as long as nobody says otherwise, it is us
                log.warning("event=lease_unknown error=%s", type(error).__name__)
                await asyncio.sleep(1.0)

    async def _retire(self) -> None:
        """Once, however many ask, and to its end: Serve cancels one of those who wait for it."""
        if self._retiring is None:
            self._retiring = asyncio.create_task(self._hand_over(), name="gateway-retiring")
        await asyncio.shield(self._retiring)

    async def _hand_over(self) -> None:
        """Calls in flight may finish first, new ones are still answered; then the client id is free for the next."""
        # Looked at once in a process's life; an event would cost every call. A call ends before its answer is sent.
        now = busy = time.monotonic()
        deadline = now + DRAIN_S
        while now - busy < QUIET_S and now < deadline:
            await asyncio.sleep(QUIET_S / 5)
            now = time.monotonic()
            busy = now if self._services.in_flight else busy
        await self._services.close_peers()
        await self._session.stop()
        await self._lease.let_go()
        log.info("event=retired")

    async def _follow(self) -> None:
        while True:
            try:
                await self._look()
            except Exception as error:  # whatever it is, the services stay and the next look is soon
                log.warning("event=look_failed error=%s", type(error).__name__, exc_info=True)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        async with self._looking:
            apps = await read_records()
            if gateway_app(self._worker) in apps:  # an answer without ourselves is none: nothing is withdrawn then
                await self._services.follow(apps)
