"""What the reconciler asks of a worker, put together from the parts that do it: supervisor, gateway, nodes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol
from urllib.parse import urlencode

import ray

from bioengine_runtime.apps.errors import Refused
from bioengine_runtime.apps.record import Running
from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.base import OF_HYPHA
from bioengine_runtime.contract.status import AppState, NodeState, Prepared, Provenance, WorkerMode, WorkerState
from bioengine_runtime.gateway.names import RTC_SUFFIX, is_gateway, rtc_name

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
    async def states(self, running: Mapping[str, Running]) -> list[AppState]: ...
    async def running(self) -> Mapping[str, Running]: ...
    def forget(self, artifact_id: str) -> None: ...


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
    startup_failures: Mapping[str, str] = field(default_factory=dict[str, str])
    """Startup application → why it could not be deployed."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at once: the apps, with where they are reached, and everything that is in Ray Serve."""

    states: list[AppState]
    running: Mapping[str, Running]


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
        nodes, look = await asyncio.gather(asyncio.to_thread(self._nodes), self.look())
        return WorkerState(
            service_id=facts.service_id,
            workspace=facts.workspace,
            mode=facts.mode,
            bioengine_version=BIOENGINE_VERSION,
            ray_version=ray.__version__,
            nodes=nodes,
            apps=look.states,
            token_expires_at=facts.token_expires_at,
        )

    async def look(self) -> Look:
        """All that there is to see of the apps, in one question to Ray Serve and one to the gateway."""
        running, service_ids = await asyncio.gather(self._apps.running(), self._offered())
        states = [
            state.model_copy(
                update={
                    "service_id": service_ids.get(state.app_id),
                    "static_site_url": self._page(running.get(state.app_id), service_ids),
                }
            )
            for state in await self._apps.states(running)
            if not is_gateway(state.app_id)
        ]
        return Look(states, running)

    async def running(self) -> Mapping[str, Running]:
        """Everything in Ray Serve, as the supervisor sees it: apps of other workers and the gateways, too."""
        return await self._apps.running()

    def forget(self, artifact_id: str) -> None:
        """Versions of this artifact were deleted."""
        self._apps.forget(artifact_id)

    def rtc_service_id(self, app_id: str) -> str | None:
        """Where an app takes WebRTC connections, as of the last look at the apps."""
        return self._service_ids.get(rtc_name(app_id))

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
        if reason := reserved(spec.app_id, self._facts().service_id):
            raise Refused(f"{spec.app_id} {reason}; give the app another id")
        return await self._apps.apply(spec, secrets, fingerprints, provenance, expected)

    async def remove(self, app_id: str, *, owner: str, expected: str | None) -> None:
        await self._apps.remove(app_id, owner=owner, expected=expected)

    async def _offered(self) -> Mapping[str, str]:
        try:
            self._service_ids = await self._ask_gateway()
        except Exception as error:  # no answer is no news: what was offered a moment ago still is
            log.warning("event=gateway_silent error=%s", type(error).__name__)
        return self._service_ids

    def _page(self, running: Running | None, service_ids: Mapping[str, str]) -> str | None:
        record = running.record if running else None
        if record is None or not record.frontend_entry or record.spec.app_id not in service_ids:
            return None
        facts, app_id = self._facts(), record.spec.app_id
        workspace, alias = record.spec.artifact_id.split("/", 1)
        query = {"server": facts.public_url, "ws_service_id": service_ids[app_id]}
        if rtc := service_ids.get(rtc_name(app_id)):
            query["webrtc_service_id"] = rtc
        return f"{facts.public_url}/{workspace}/view/{alias}/?{urlencode(query)}"


def reserved(app_id: str, worker_service_id: str) -> str | None:
    """Why an app cannot have this id although it is written like one: somebody would be found by two services."""
    if app_id == worker_service_id.rsplit(":", 1)[-1]:
        return "is the name of the worker's own service"
    if app_id in OF_HYPHA:
        return "is the name of a service that every client of Hypha has"
    if app_id.endswith(RTC_SUFFIX):
        return f"ends with {RTC_SUFFIX}, as the WebRTC services of apps do"
    if is_gateway(app_id):
        return "is the name of a gateway"
    return None
