"""One client of a Hypha server that stays the same client: same id, same services, through restarts of either side.

hypha-rpc reconnects by itself after a short loss and keeps calls in flight. This adds what it lacks: a connection it
has given up (or that stays away) is built anew, an id the server still believes taken is asked for again, and services
the server has lost are put back. The token is read from its file at every attempt and never kept.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypha_rpc import connect_to_server

from bioengine_runtime.pace import PER_SECOND, Pace
from bioengine_runtime.signs_of_life import SignsOfLife
from bioengine_runtime.true_sender import believe_hypha_alone

believe_hypha_alone()

log = logging.getLogger(__name__)

PROBE_EVERY_S = 3.0
PROBE_TIMEOUT_S = 10.0
PING_TIMEOUT_S = 4.0
GIVE_UP_AFTER_S = 25.0
"""How long hypha-rpc may try to come back by itself; its own waits grow to a minute."""
VERIFY_EVERY_S = 30.0
CONNECT_TIMEOUT_S = 30.0
LONGEST_WAIT_S = 5.0
"""Between two attempts to connect; there is no last one."""
TAKEN = "already exists and is active"
NOT_THERE = "Service not found"


@dataclass(frozen=True, slots=True)
class HyphaAddress:
    """Where to connect and as whom; the token stays in its file."""

    server_url: str
    workspace: str | None
    token_file: Path
    client_id: str
    message_rate: float = PER_SECOND
    """Messages per second that we send at most; a tenth below what the server takes."""


class HyphaSession:
    """Keeps one connection and the services that should be on it."""

    def __init__(self, address: HyphaAddress) -> None:
        self.address = address
        self.connections = 0
        self._services: dict[str, Mapping[str, Any]] = {}
        self._server: Any = None
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    def start(self) -> None:
        self._task = asyncio.create_task(self._stay_connected(), name="hypha-session")

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Disconnect; the server forgets the services with the client."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._up.clear()
        await self._drop_connection(timeout_s)

    async def connected(self) -> Any:
        """The workspace's manager, waiting for a connection if there is none."""
        await self._up.wait()
        return self._server

    @property
    def is_connected(self) -> bool:
        return self._up.is_set()

    @property
    def has_died(self) -> bool:
        """The session ended though nobody stopped it, which only a fault of ours can cause."""
        return self._task is not None and self._task.done() and not self._task.cancelled()

    @property
    def workspace(self) -> str:
        return self._server.config.workspace if self._server is not None else self.address.workspace or ""

    @property
    def public_url(self) -> str:
        """The server's address as browsers should use it."""
        told = self._server.config.get("public_base_url") if self._server is not None else None
        return told or self.address.server_url

    def service_id(self, service: str) -> str:
        """The full id under which a service of this client is found, on any connection."""
        return f"{self.workspace}/{self.address.client_id}:{service}"

    async def ping(self, client: str) -> None:
        """Ask a client for a sign of life. Raises what Hypha says of one that has gone."""
        server = await self.connected()
        await server.rpc.ping(client, timeout=PING_TIMEOUT_S)

    async def put(self, service: Mapping[str, Any]) -> None:
        """Offer a service, replacing the one of the same id in one step: calls and held handles never see it missing.

        Raises what the server has against it; then what was offered before still is. Without a connection it is offered
        with the next one. One flaw is the server's: it deletes its entry and writes it again, so a look-up within that
        millisecond finds nothing.
        """
        async with self._changing:
            if self.is_connected:
                await self._register(service)
            self._services[service["id"]] = service

    async def withdraw(self, service_id: str) -> None:
        """Offer it no longer. Raises when the server could not be told; then it is still offered.

        A service whose `put` has failed can be withdrawn too: the server may have taken it without our knowing.
        """
        async with self._changing:
            if self.is_connected:
                await self._bounded(self._unregister(service_id))
            self._services.pop(service_id, None)

    def services(self) -> tuple[str, ...]:
        return tuple(self._services)

    async def _stay_connected(self) -> None:
        while True:
            await self._connect()
            await self._watch()
            self._up.clear()
            await self._drop_connection(PROBE_TIMEOUT_S)

    async def _connect(self) -> None:
        """Try until it works. Nothing that goes wrong here is final: servers restart and token files are rewritten."""
        wait_s = 0.25
        while True:
            try:
                self._server = await self._open()
                async with self._changing:
                    await self._register_each(self._services.values())
                    self._up.set()
            except Exception as error:  # the edge of our process: whatever it is, we go on trying
                taken = TAKEN in str(error)
                log.warning("event=hypha_connect_failed taken=%s error=%s", taken, _short(error))
                await self._drop_connection(PROBE_TIMEOUT_S)
                # Not all at the same moment: a server that comes back has many clients.
                await asyncio.sleep(random.uniform(0.5, 1.0) * wait_s)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            else:
                self.connections += 1
                log.info("event=hypha_connected client=%s workspace=%s", self.address.client_id, self.workspace)
                return

    async def _open(self) -> Any:
        address = self.address
        config: dict[str, Any] = {
            "server_url": address.server_url,
            "token": (await asyncio.to_thread(address.token_file.read_text)).strip(),
            "client_id": address.client_id,
            "logger": None,  # its log lines quote whole messages, and messages may carry secrets
        }
        if address.workspace:
            config["workspace"] = address.workspace
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            server = await connect_to_server(config)
        _send_with_care(server.rpc, address.message_rate)
        return server

    async def _watch(self) -> None:
        """Returns when the connection is beyond hope."""
        last_answer = time.monotonic()
        last_verified = -math.inf  # soon after connecting: one of the services may have failed then
        while time.monotonic() - last_answer < GIVE_UP_AFTER_S:
            await asyncio.sleep(PROBE_EVERY_S)
            try:
                await self._probe()
                if time.monotonic() - last_verified > VERIFY_EVERY_S:
                    await self._put_back_what_is_lost()
                    last_verified = time.monotonic()
                last_answer = time.monotonic()
            except Exception as error:  # any failed probe is the same news
                log.warning("event=hypha_probe_failed error=%s", _short(error))
                if "Connection is closed" in str(error):
                    return

    async def _put_back_what_is_lost(self) -> None:
        prefix = self.service_id("")
        listed = await self._bounded(self._server.list_services({"workspace": self.workspace}))
        known = {_local_id(one["id"]) for one in listed if one["id"].startswith(prefix)}
        async with self._changing:
            lost = [service for service_id, service in self._services.items() if service_id not in known]
            if lost:
                log.warning("event=services_were_lost services=%s", [service["id"] for service in lost])
            await self._register_each(lost)

    async def _register_each(self, services: Iterable[Mapping[str, Any]]) -> None:
        """What the server has against one service keeps neither the others nor the connection from anybody.

        Raises when the server answers nothing at all. What failed is tried again with what was lost.
        """
        for service in services:
            try:
                await self._register(service)
            except Exception as error:  # refused, or not answered in time
                log.warning("event=service_not_offered service=%s error=%s", service["id"], _short(error))
                await self._probe()

    async def _register(self, service: Mapping[str, Any]) -> None:
        """All or nothing: with what the server has refused hypha-rpc would never come back from a short loss."""
        rpc, service_id = self._server.rpc, service["id"]
        try:
            await self._bounded(rpc.register_service(dict(service), {"overwrite": True}))
        except BaseException:
            before = self._services.get(service_id)
            await _forget(rpc, service_id)
            if before is not None and before is not service:
                rpc.add_service(dict(before), overwrite=True)
            raise

    async def _unregister(self, service_id: str) -> None:
        """By its full id: hypha-rpc sends the short one, which may be another client's service just as well."""
        rpc = self._server.rpc
        manager = await rpc.get_manager_service({"case_conversion": "snake"})
        try:
            await manager.unregister_service(self.service_id(service_id))
        except Exception as error:  # hypha-rpc raises every answer as one kind
            if NOT_THERE not in str(error):
                raise
        await _forget(rpc, service_id)

    async def _probe(self) -> None:
        await self._bounded(self._server.echo("alive"))

    async def _drop_connection(self, timeout_s: float) -> None:
        server, self._server = self._server, None
        if server is not None:
            with suppress(Exception):  # it may be half dead; all that matters is that it ends
                async with asyncio.timeout(timeout_s):
                    await server.disconnect()

    async def _bounded(self, question: Awaitable[Any]) -> Any:
        # Not wait_for: on Python 3.11 it may lose the cancellation of `stop` when an answer comes at the same moment.
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            return await question


def _send_with_care(rpc: Any, message_rate: float) -> None:
    """No needless messages, and none too fast. All go through one function; hypha-rpc offers no other place for it."""
    pace, signs, send = Pace(message_rate), SignsOfLife(), rpc._emit_message

    async def send_with_care(message: bytes) -> None:
        if not await signs.needless(message):
            await pace()
            await send(message)

    rpc._emit_message = send_with_care


async def _forget(rpc: Any, service_id: str) -> None:
    """On our side alone."""
    with suppress(Exception):  # hypha-rpc does not know it, which is just as well
        await rpc.unregister_service(service_id, notify=False)


def _local_id(full: str) -> str:
    return full.split(":", 1)[1].split("@", 1)[0]


def _short(error: BaseException) -> str:
    """The last line: hypha-rpc puts the server's whole traceback before it."""
    lines = str(error).split("\n")
    text = next((line.strip() for line in reversed(lines) if line.strip()), type(error).__name__)
    return repr(text[:200])
