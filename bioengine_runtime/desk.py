"""What people ask of a worker: their wishes are made total here, and the answers put into the shape they know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import ray

from bioengine_runtime.access import EVERYBODY, Caller, is_admin, owns, users_of
from bioengine_runtime.apps.errors import UnknownApp
from bioengine_runtime.apps.prepare import ArtifactFiles
from bioengine_runtime.apps.record import Running, read_records
from bioengine_runtime.contract.base import ENTIRE
from bioengine_runtime.contract.status import AppState, NodeState, Provenance
from bioengine_runtime.door import Invalid
from bioengine_runtime.nodes import cluster_summary
from bioengine_runtime.operations import BIOENGINE_VERSION, Operations, WorkerFacts
from bioengine_runtime.status_view import app_status, not_running
from bioengine_runtime.wishes import readable_id, resolve


class Store(Protocol):
    """Where app folders are kept."""

    async def fetch(self, artifact_id: str, version: str) -> ArtifactFiles: ...
    async def newest(self, artifact_id: str) -> str: ...
    async def upload(self, items: Sequence[Mapping[str, Any]], created_by: str) -> str: ...


class Logs(Protocol):
    async def logs(self, app_id: str, tail: int, previous: int) -> dict[str, Any]: ...


class Desk:
    """Everything the methods for people do."""

    def __init__(
        self,
        *,
        operations: Operations,
        logs: Logs,
        store: Store,
        facts: Callable[[], WorkerFacts],
        nodes: Callable[[], list[NodeState]],
        admins: Callable[[], Sequence[str]],
        key: bytes,
    ) -> None:
        self._operations = operations
        self._logs = logs
        self._store = store
        self._facts = facts
        self._nodes = nodes
        self._admins = admins
        self._key = key

    async def upload(self, caller: Caller, files: list[dict[str, Any]], workspace: str | None) -> str:
        if workspace not in (None, self._facts().workspace):
            raise Invalid(f"workspace: this worker uploads to {self._facts().workspace} only")
        return await self._store.upload(files, caller.user_id or "")

    async def deploy(self, caller: Caller, wish: dict[str, Any]) -> str:
        states = await self._by_id()
        artifact_id = self._artifact_id(wish["artifact_id"])
        version = wish.get("version") or await self._store.newest(artifact_id)
        app_id = wish.get("application_id") or readable_id(states)
        artifact = await self._store.fetch(artifact_id, version)
        wanted = resolve(
            wish,
            app_id=app_id,
            artifact_id=artifact_id,
            version=version,
            default_users=artifact.manifest.authorized_users or [],
            running=states.get(app_id),
            key=self._key,
        )
        before = states[app_id].provenance if app_id in states else None
        # An update by hand does not change whose app it is: its owner sees, and may undo, what was done to it.
        owner = before.owner if before else caller.owner()
        provenance = Provenance(owner=owner, source=artifact_id, commit=version)
        await self._operations.apply(wanted.spec, wanted.secrets, wanted.fingerprints, provenance, None)
        return app_id

    async def stop(self, caller: Caller, app_id: str) -> None:  # noqa: ARG002
        state = (await self._by_id()).get(app_id)
        if state is None:
            raise UnknownApp(f"{app_id} is not currently deployed")
        owner = state.provenance.owner if state.provenance else ""
        await self._operations.remove(app_id, owner=owner, expected=None)

    async def app_status(
        self, caller: Caller, app_ids: list[str] | None, logs_tail: int, previous: int
    ) -> dict[str, Any]:
        states, running = await self._by_id(), await read_records()
        answer: dict[str, Any] = {}
        for app_id in app_ids if app_ids is not None else states:
            state = states.get(app_id)
            if state is None:
                answer[app_id] = not_running(app_id)
            else:
                answer[app_id] = await self._status_of(caller, state, running.get(app_id), logs_tail, previous)
        return answer

    async def status(self, caller: Caller) -> dict[str, Any]:
        facts, admin = self._facts(), is_admin(caller, self._admins())
        return {
            "service_start_time": facts.started_at,
            "service_uptime": time.time() - facts.started_at,
            "bioengine_version": BIOENGINE_VERSION,
            "ray_version": ray.__version__,
            "worker_mode": facts.mode,
            "workspace": facts.workspace,
            "client_id": facts.client_id,
            "ray_cluster": {
                "head_address": facts.ray_address if admin else None,
                "start_time": "N/A",
                "mode": facts.mode,
                **cluster_summary(await asyncio.to_thread(self._nodes), addresses=admin),
            },
            "admin_users": list(self._admins()) if admin else [],
            "geo_location": dict.fromkeys(
                ("region", "country_name", "country_code", "latitude", "longitude", "timezone")
            ),
            "is_ready": True,
        }

    async def _status_of(
        self, caller: Caller, state: AppState, running: Running | None, logs_tail: int, previous: int
    ) -> dict[str, Any]:
        insider = self._is_insider(caller, state)
        logs = await self._logs.logs(state.app_id, logs_tail, previous) if insider else {}
        return app_status(state, running, logs, insider=insider)

    def _is_insider(self, caller: Caller, state: AppState) -> bool:
        """Admins, the deployer, and those the app names; an app open to everybody names nobody."""
        owner = state.provenance.owner if state.provenance else None
        if is_admin(caller, self._admins()) or owns(caller, owner):
            return True
        named = set(users_of(ENTIRE, state.spec.authorized_users if state.spec else None)) - {EVERYBODY}
        return not caller.names().isdisjoint(named)

    async def _by_id(self) -> dict[str, AppState]:
        """The apps of this worker; what else runs in Serve is not its to tell."""
        return {state.app_id: state for state in await self._operations.states() if state.spec is not None}

    def _artifact_id(self, text: str) -> str:
        return text if "/" in text else f"{self._facts().workspace}/{text}"
