"""What the reconciler asks of a worker, put together from the parts that do it: supervisor, gateway, nodes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol
from urllib.parse import urlencode

import ray

from bioengine_runtime.apps.record import Running, read_records
from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.status import AppState, NodeState, Prepared, Provenance, WorkerMode, WorkerState
from bioengine_runtime.gateway.names import is_gateway

log = logging.getLogger(__name__)

BIOENGINE_VERSION = version("bioengine-gitops")
SecretTable = Mapping[str, Mapping[str, str]]


class Apps(Protocol):
    """The supervisor, as far as we need it."""

    async def prepare(self, spec: AppSpec, wait_s: float) -> Prepared: ...
    async def apply(
        self,
        spec: AppSpec,
        secrets: SecretTable,
        fingerprints: Mapping[str, str],
        provenance: Provenance,
        expected: str | None,
    ) -> bool: ...
    async def remove(self, app_id: str, *, owner: str, expected: str | None) -> None: ...
    async def states(self) -> list[AppState]: ...


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """The worker itself: where it is, since when, and what it has. Times in seconds since the epoch."""

    service_id: str
    workspace: str
    client_id: str
    mode: WorkerMode
    public_url: str
    ray_address: str
    started_at: float
    token_expires_at: float | None = None
    """When the worker's own Hypha token ends; None: never, or not known."""
    ray_started_at: float | None = None
    ray_reachable: bool = True
    geo: Mapping[str, Any] | None = None


class Operations:
    """Everything the reconciler's five methods do."""

    def __init__(
        self,
        *,
        apps: Apps,
        facts: Callable[[], WorkerFacts],
        nodes: Callable[[], list[NodeState]],
        service_ids: Callable[[], Awaitable[Mapping[str, str]]],
    ) -> None:
        self._apps = apps
        self._facts = facts
        self._nodes = nodes
        self._ask_gateway = service_ids
        self._service_ids: Mapping[str, str] = {}

    async def observe(self) -> WorkerState:
        facts = self._facts()
        nodes, apps = await asyncio.gather(asyncio.to_thread(self._nodes), self.states())
        return WorkerState(
            service_id=facts.service_id,
            workspace=facts.workspace,
            mode=facts.mode,
            bioengine_version=BIOENGINE_VERSION,
            ray_version=ray.__version__,
            nodes=nodes,
            apps=apps,
        )

    async def states(self) -> list[AppState]:
        """The apps, with where they are reached."""
        states, service_ids, running = await asyncio.gather(self._apps.states(), self._offered(), read_records())
        return [
            state.model_copy(
                update={
                    "service_id": service_ids.get(state.app_id),
                    "static_site_url": self._page(running.get(state.app_id), service_ids.get(state.app_id)),
                }
            )
            for state in states
            if not is_gateway(state.app_id)
        ]

    async def prepare(self, spec: AppSpec, wait_s: float) -> Prepared:
        return await self._apps.prepare(spec, wait_s)

    async def apply(
        self,
        spec: AppSpec,
        secrets: SecretTable,
        fingerprints: Mapping[str, str],
        provenance: Provenance,
        expected: str | None,
    ) -> bool:
        return await self._apps.apply(spec, secrets, fingerprints, provenance, expected)

    async def remove(self, app_id: str, *, owner: str, expected: str | None) -> None:
        await self._apps.remove(app_id, owner=owner, expected=expected)

    async def _offered(self) -> Mapping[str, str]:
        try:
            self._service_ids = await self._ask_gateway()
        except Exception as error:  # no answer is no news: what was offered a moment ago still is
            log.warning("event=gateway_silent error=%s", type(error).__name__)
        return self._service_ids

    def _page(self, running: Running | None, service_id: str | None) -> str | None:
        record = running.record if running else None
        if record is None or not record.frontend_entry or service_id is None:
            return None
        facts = self._facts()
        workspace, alias = record.spec.artifact_id.split("/", 1)
        query = urlencode({"server": facts.public_url, "ws_service_id": service_id})
        return f"{facts.public_url}/{workspace}/view/{alias}/?{query}"
