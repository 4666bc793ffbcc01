"""The gateway's one process: follows what Serve runs and keeps Hypha true to it. Knows no app's code."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

from bioengine_runtime.apps.record import Running, read_records
from bioengine_runtime.gateway.calls import AppCalls
from bioengine_runtime.gateway.lease import Lease
from bioengine_runtime.gateway.names import gateway_app, rtc_name
from bioengine_runtime.gateway.offer import offer
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
        self._calls: dict[str, AppCalls] = {}
        self._admins: tuple[str, ...] = ()
        self._looking = asyncio.Lock()
        self._lease = Lease(gateway_app(worker_service_id))
        self._retired = False
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
        if self._life.done() and not self._retired:
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
        """Calls in flight may finish first, new ones are still answered; then the client id is free for the next."""
        if self._retired:
            return
        self._retired = True
        # Looked at once in a process's life; an event would cost every call. A call ends before its answer is sent.
        now = busy = time.monotonic()
        deadline = now + DRAIN_S
        while now - busy < QUIET_S and now < deadline:
            await asyncio.sleep(QUIET_S / 5)
            now = time.monotonic()
            busy = now if any(calls.in_flight for calls in self._calls.values()) else busy
        await asyncio.gather(*(calls.peers.close() for calls in self._calls.values() if calls.peers is not None))
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
            if gateway_app(self._worker) not in apps:
                return  # an answer without ourselves is no answer: nothing is withdrawn because of it
            for running in apps.values():
                await self._offer(running)
            for app_id in self._calls.keys() - apps.keys():
                await self._withdraw(app_id)
            for app_id, calls in self._calls.items():
                await self._follow_peers(calls, wanted=rtc_name(app_id) not in self._calls)

    async def _offer(self, running: Running) -> None:
        calls = self._calls.get(running.app_id)
        wanted = offer(running, worker=self._worker, offered=calls is not None)
        if wanted is None:
            await self._withdraw(running.app_id)
        elif calls is None:
            calls = AppCalls(wanted, lambda: self._admins, self._session.service_id, self._callers)
            await self._session.put(calls.service())
            self._calls[running.app_id] = calls
            log.info("event=app_offered app=%s methods=%d", running.app_id, len(wanted.methods))
        elif wanted != calls.offer:
            before = calls.offer
            calls.take_over(wanted)
            if not wanted.looks_like(before):
                await self._session.put(calls.service())
            if wanted.ice_servers != before.ice_servers:
                calls.takes_peers = False  # to be told to Hypha again
            log.info("event=app_changed app=%s told_hypha=%s", running.app_id, not wanted.looks_like(before))

    async def _follow_peers(self, calls: AppCalls, *, wanted: bool) -> None:
        """Take WebRTC connections and close those that have gone. An app of the same name as the service goes first."""
        if calls.peers is None:
            return
        if wanted and not calls.takes_peers:
            calls.takes_peers = True
            await self._session.put(calls.rtc_service())
        elif calls.takes_peers and not wanted:
            calls.takes_peers = False
        await calls.peers.sweep()

    async def _withdraw(self, app_id: str) -> None:
        if app_id in self._calls:
            await self._session.withdraw(app_id)
            calls = self._calls.pop(app_id)
            if calls.takes_peers and rtc_name(app_id) not in self._calls:
                await self._session.withdraw(rtc_name(app_id))
            if calls.peers is not None:
                await calls.peers.close()
            log.info("event=app_withdrawn app=%s", app_id)
