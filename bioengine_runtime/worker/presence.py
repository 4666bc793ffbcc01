"""The worker as Hypha sees it: one client, its token, its admins, and the one service that people and reconcilers call.

The same service is there when the Ray head is away; then it is made of `NoApps`, and says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from bioengine_runtime.apps.logs import logs_of
from bioengine_runtime.contract.status import NodeState
from bioengine_runtime.hypha_session import HyphaAddress, HyphaSession
from bioengine_runtime.rpc.access import Caller
from bioengine_runtime.rpc.callers import Callers
from bioengine_runtime.rpc.desk import Desk
from bioengine_runtime.rpc.machine import Machine
from bioengine_runtime.rpc.operations import Apps, Operations, WorkerFacts
from bioengine_runtime.rpc.service import WorkerService
from bioengine_runtime.sealing import ensure_key
from bioengine_runtime.stored.artifacts import HyphaArtifacts
from bioengine_runtime.worker import geo
from bioengine_runtime.worker.pending import Pending
from bioengine_runtime.worker.ray_link import Head, RayAway
from bioengine_runtime.worker.settings import WorkerSettings
from bioengine_runtime.worker.tokens import TokenFile, TokenKeeper

log = logging.getLogger(__name__)


class NoApps:
    """The apps while no Ray head is there: nothing is known of them, and nothing can be done."""

    def __init__(self, address: str, reason: str) -> None:
        self._away = address, reason

    async def ask(self, *_: Any, **__: Any) -> Any:
        raise RayAway(*self._away)

    prepare = apply = remove = states = running = ask

    def forget(self, artifact_id: str) -> None:
        """There is nothing."""


class Presence:
    """Connect, register, withdraw, close. `head` is None while Ray is away."""

    def __init__(self, settings: WorkerSettings, head: Head | None) -> None:
        self.settings = settings
        self.admins: tuple[str, ...] = settings.admin_users
        self.owner = Caller(None, None, anonymous=True)
        self._head = head
        self._started_at = time.time()
        self._token_file = TokenFile(settings.home, settings.token)
        self.session = HyphaSession(
            HyphaAddress(
                settings.server_url,
                settings.workspace,
                self._token_file.path,
                settings.client_id,
                settings.message_rate,
            )
        )
        self._token = TokenKeeper(self._token_file, self.session)
        self._callers = Callers(self.session.ping)
        self._geo: Mapping[str, Any] | None = None
        self.startup_failures: Mapping[str, str] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self) -> None:
        """Returns once Hypha has us; who owns the token is an admin."""
        self.session.start()
        self._tasks.append(asyncio.create_task(self._token.run(), name="token"))
        self._tasks.append(asyncio.create_task(self._callers.watch(), name="callers"))
        if self.settings.geo_location:
            self._tasks.append(asyncio.create_task(self._locate(), name="geo"))
        server = await self.session.connected()
        self.owner = Caller.from_context(server.config)
        self.admins = tuple(dict.fromkeys([*names_of(self.owner), *self.settings.admin_users]))

    async def register(
        self,
        *,
        apps: Apps,
        nodes: Callable[[], list[NodeState]],
        pending: Callable[[], Pending],
        service_ids: Callable[[], Awaitable[Mapping[str, str]]],
        running: Callable[[], Awaitable[Collection[str]]],
        leave: Callable[[bool], Awaitable[None]],
        require_ray: Callable[[], None],
    ) -> Desk:
        """Offer the service, made of these; answers the desk, at which the worker may ask too."""
        operations = Operations(apps=apps, facts=self.facts, nodes=nodes, service_ids=service_ids)
        desk = Desk(
            operations=operations,
            logs=logs_of,
            store=self.artifacts(),
            facts=self.facts,
            nodes=nodes,
            pending=pending,
            admins=lambda: self.admins,
            key=ensure_key(self.key_file),
        )
        machine = Machine(
            apps_dir=self.settings.apps_dir,
            log_file=self.settings.log_file,
            running=running,
            leave=leave,
            require_ray=require_ray,
            grows=self.settings.grows,
        )
        service = WorkerService(
            reconciler=operations, people=desk, machine=machine, admins=lambda: self.admins, callers=self._callers
        )
        description = f"Manages BioEngine Apps and Datasets ({self.settings.mode})"
        await self.session.put(service.registration(self.settings.service_id, self.settings.worker_name, description))
        return desk

    async def withdraw(self) -> None:
        """Nobody finds us any more; whoever waits for an answer still gets it."""
        try:
            await self.session.withdraw(self.settings.service_id)
        except Exception as error:  # Hypha is away; it forgets the service with the connection
            log.warning("event=not_withdrawn error=%s", type(error).__name__)

    async def close(self) -> None:
        """Disconnect."""
        for task in self._tasks:
            task.cancel()
        await self.session.stop()

    def artifacts(self) -> HyphaArtifacts:
        return HyphaArtifacts(self.session)

    @property
    def key_file(self) -> Path:
        return self.settings.home.absolute() / "seal.key"

    @property
    def token_path(self) -> Path:
        """What the gateway reads, too."""
        return self._token_file.path

    @property
    def service_id(self) -> str:
        return self.session.service_id(self.settings.service_id)

    def facts(self) -> WorkerFacts:
        return WorkerFacts(
            service_id=self.service_id,
            workspace=self.session.workspace,
            client_id=self.settings.client_id,
            mode=self.settings.mode,
            public_url=self.session.public_url,
            ray_address=self.settings.ray_address,
            started_at=self._started_at,
            token_expires_at=self._token.expires_at,
            ray_started_at=self._head.started_at if self._head else None,
            ray_reachable=self._head is not None,
            geo=self._geo,
            startup_failures=self.startup_failures,
        )

    async def _locate(self) -> None:
        try:
            self._geo = await geo.locate()
        except Exception as error:  # nice to know, and nothing else
            log.warning("event=not_located error=%s", type(error).__name__)


def names_of(owner: Caller) -> list[str]:
    """By what the token's owner is an admin: id and e-mail, whichever there is; an anonymous owner is nobody."""
    return [] if owner.anonymous else [name for name in (owner.user_id, owner.email) if name]
