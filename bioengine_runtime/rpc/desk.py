"""What people ask of a worker: their wishes are made total here, and the answers put into the shape they know."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from bioengine_runtime.apps.errors import Refused, UnknownApp
from bioengine_runtime.apps.fresh import Fresh
from bioengine_runtime.apps.record import Running
from bioengine_runtime.contract.base import ENTIRE
from bioengine_runtime.contract.manifest import AppManifest
from bioengine_runtime.contract.status import PERSON, AppState, NodeState, Provenance
from bioengine_runtime.rpc.access import Caller, is_admin, owns, users_of
from bioengine_runtime.rpc.door import Invalid
from bioengine_runtime.rpc.operations import Look, Operations, WorkerFacts
from bioengine_runtime.rpc.status_view import app_status, not_running, unread, worker_status
from bioengine_runtime.rpc.wishes import readable_id, resolve
from bioengine_runtime.worker.pending import NOTHING, Pending

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.3
NODES_WITHIN_S = 10.0
STRANGERS_SEE_S = 1.0
"""How old what strangers are told may be."""


class Store(Protocol):
    """Where app folders are kept."""

    async def manifest(self, artifact_id: str, version: str) -> AppManifest: ...
    async def version(self, artifact_id: str, wanted: str | None) -> str: ...
    async def record(self, artifact_id: str) -> dict[str, Any]: ...
    async def all(self) -> dict[str, dict[str, Any]]: ...
    async def delete(self, artifact_id: str) -> None: ...
    async def delete_version(self, artifact_id: str, version: str) -> None: ...
    async def upload(self, items: Sequence[Mapping[str, Any]], created_by: str) -> str: ...
    async def upload_as(
        self, caller: Caller, items: Sequence[Mapping[str, Any]], *, workspace: str, token: str
    ) -> str: ...


Logs = Callable[[Collection[Running], int, int], Awaitable[Mapping[str, dict[str, Any]]]]
"""Of these apps, how many last lines, of how many replicas before."""


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
        pending: Callable[[], Pending],
        admins: Callable[[], Sequence[str]],
        key: bytes,
    ) -> None:
        self._operations = operations
        self._logs = logs
        self._store = store
        self._facts = facts
        self._nodes = nodes
        self._pending = pending
        self._admins = admins
        self._key = key
        self._looks: Fresh[Look] = Fresh(STRANGERS_SEE_S)
        self._clusters: Fresh[tuple[list[NodeState], Pending]] = Fresh(STRANGERS_SEE_S)

    async def upload(
        self, caller: Caller, files: list[dict[str, Any]], workspace: str | None, hypha_token: str | None
    ) -> str:
        own = self._facts().workspace
        if hypha_token and workspace:
            return await self._store.upload_as(caller, files, workspace=workspace, token=hypha_token)
        if hypha_token:
            raise Invalid("workspace: say into which one, when you upload with a hypha_token of your own")
        if workspace not in (None, own):
            raise Invalid(
                f"hypha_token: needed for the workspace {workspace}; without one this worker uploads to {own}"
            )
        return await self._store.upload(files, caller.user_id or "")

    async def all_apps(self) -> dict[str, Any]:
        return await self._store.all()

    async def app_record(self, artifact_id: str) -> dict[str, Any]:
        return await self._store.record(self._artifact_id(artifact_id))

    async def delete(self, caller: Caller, artifact_id: str) -> None:
        full_id = self._artifact_id(artifact_id)
        await self._store.delete(full_id)
        self._operations.forget(full_id)
        log.info("event=app_deleted artifact=%s by=%s", full_id, caller.name())

    async def delete_version(self, caller: Caller, artifact_id: str, version: str) -> None:
        """Raises Refused naming the apps, of any worker on this Ray, that run from it or may go back to it."""
        full_id = self._artifact_id(artifact_id)
        users = [app_id for app_id, one in (await self._operations.running()).items() if _needs(one, full_id, version)]
        if users:
            raise Refused(
                f"{full_id} {version} is what {', '.join(sorted(users))} runs, or may go back to; stop it first"
            )
        await self._store.delete_version(full_id, version)
        self._operations.forget(full_id)
        log.info("event=version_deleted artifact=%s version=%s by=%s", full_id, version, caller.name())

    async def deploy(self, caller: Caller, wish: dict[str, Any]) -> str:
        artifact_id = self._artifact_id(wish["artifact_id"])
        version = await self._store.version(artifact_id, wish.get("version"))
        app_id = wish.get("application_id") or readable_id(await self._by_id())
        running = await self._running(app_id)
        while True:
            try:
                changed = await self._apply(caller, wish, app_id, artifact_id, version, running)
                break
            except Refused:
                before, running = running, await self._running(app_id)
                if _digest(before) == _digest(running):
                    raise  # else somebody came in between, and what is left out is taken from what they made of it
        what = "deployed" if changed else "unchanged"
        log.info("event=%s app=%s artifact=%s version=%s by=%s", what, app_id, artifact_id, version, caller.name())
        return app_id

    async def _apply(
        self,
        caller: Caller,
        wish: Mapping[str, Any],
        app_id: str,
        artifact_id: str,
        version: str,
        running: AppState | None,
    ) -> bool:
        """Whether it changed anything. Raises Refused, too, when it is not this that runs any more."""
        before = running.provenance if running else None
        by_manifest = "authorized_users" not in wish and (before is None or before.users_from_manifest)
        manifest = await self._store.manifest(artifact_id, version) if by_manifest else None
        wanted = resolve(
            wish,
            app_id=app_id,
            artifact_id=artifact_id,
            version=version,
            manifest_users=(manifest.authorized_users or []) if manifest else None,
            running=running,
            key=self._key,
        )
        if before is None or before.owner.startswith(PERSON):
            provenance = Provenance(
                owner=before.owner if before else caller.owner(),
                source=artifact_id,
                commit=version,
                by=caller.name(),
                users_from_manifest=by_manifest,
            )
        else:
            # What was deployed from git stays its owner's, and says from which commit: the owner sees that somebody
            # changed it since, and may undo it.
            provenance = before.model_copy(update={"by": caller.name()})
        return await self._operations.apply(
            wanted.spec, wanted.secrets, wanted.fingerprints, provenance, _digest(running)
        )

    async def stop(self, caller: Caller, app_id: str) -> None:
        state = (await self._by_id()).get(app_id)
        if state is None:
            raise UnknownApp(f"{app_id} is not currently deployed")
        await self._stop(caller, state)

    async def stop_all(self, caller: Caller, timeout_s: float) -> None:
        """Stop them side by side and wait until they are gone. Raises TimeoutError naming those that are not."""
        apps = await self._by_id()
        await asyncio.gather(*(self._stop(caller, state) for state in apps.values()))
        deadline = time.monotonic() + timeout_s
        while left := sorted(apps.keys() & (await self._by_id()).keys()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{', '.join(left)}: told to stop, and not gone within {timeout_s:g} s")
            await asyncio.sleep(LOOK_EVERY_S)

    async def app_status(
        self, caller: Caller, app_ids: list[str] | None, logs_tail: int, previous: int
    ) -> dict[str, Any]:
        seen = await self._seen_by(caller)
        states, running = _by_id(seen), seen.running
        asked = list(dict.fromkeys(app_ids)) if app_ids is not None else list(states)

        insider = {app_id for app_id in asked if app_id in states and self._is_insider(caller, states[app_id])}
        logs = await self._logs_of(
            [running[one] for one in asked if one in insider and one in running], logs_tail, previous
        )
        return {
            app_id: app_status(
                states[app_id],
                running.get(app_id),
                logs.get(app_id, {}),
                rtc_service_id=self._operations.rtc_service_id(app_id),
                worker_started_at=self._facts().started_at,
                insider=app_id in insider,
            )
            if app_id in states
            else not_running(app_id)
            for app_id in asked
        }

    async def status(self, caller: Caller) -> dict[str, Any]:
        """Also while Ray is away: then without nodes, and not ready."""
        facts, nodes, waiting = self._facts(), None, NOTHING
        insider = is_admin(caller, self._admins())
        if facts.ray_reachable:
            try:
                look = self._cluster() if insider else asyncio.shield(self._clusters.get("", self._cluster))
                nodes, waiting = await look
            except Exception as error:  # whatever keeps Ray from answering, we can still say that it does not
                log.warning("event=ray_silent error=%s", type(error).__name__)
        return worker_status(facts, nodes, waiting, self._admins(), time.time(), insider=insider)

    async def _stop(self, caller: Caller, state: AppState) -> None:
        """An admin may stop any app of this worker; whose it is only matters to reconcilers."""
        owner = state.provenance.owner if state.provenance else ""
        await self._operations.remove(state.app_id, owner=owner, expected=None)
        log.info("event=stopped app=%s by=%s", state.app_id, caller.name())

    async def _logs_of(self, apps: Collection[Running], tail: int, previous: int) -> Mapping[str, dict[str, Any]]:
        """Logs are extra: what keeps them away must not keep the status."""
        if not tail:
            return {}
        try:
            return await self._logs(apps, tail, previous)
        except Exception as error:
            log.warning("event=logs_unread error=%s", type(error).__name__)
            reason = f"the logs could not be read: {type(error).__name__}"
            return {one.app_id: unread(one.deployments, reason) for one in apps}

    def _is_insider(self, caller: Caller, state: AppState) -> bool:
        """Admins, the deployer, and those whom the app names for all of it; one open to everybody names nobody."""
        owner = state.provenance.owner if state.provenance else None
        if is_admin(caller, self._admins()) or owns(caller, owner):
            return True
        named = users_of(ENTIRE, state.spec.authorized_users if state.spec else None)
        return not caller.anonymous and not caller.names().isdisjoint(named)

    async def _by_id(self) -> dict[str, AppState]:
        """The apps of this worker; what else runs in Serve is not its to tell."""
        return _by_id(await self._operations.look())

    async def _running(self, app_id: str) -> AppState | None:
        """The app, unless it is about to be gone."""
        state = (await self._by_id()).get(app_id)
        return state if state and state.status != "DELETING" else None

    async def _seen_by(self, caller: Caller) -> Look:
        """Anybody may ask how apps are, as often as they like: strangers are told what was so a moment ago."""
        if is_admin(caller, self._admins()):
            return await self._operations.look()
        return await asyncio.shield(self._looks.get("", self._operations.look))

    async def _cluster(self) -> tuple[list[NodeState], Pending]:
        look = asyncio.gather(asyncio.to_thread(self._nodes), asyncio.to_thread(self._pending))
        return await asyncio.wait_for(look, NODES_WITHIN_S)

    def _artifact_id(self, text: str) -> str:
        return text if "/" in text else f"{self._facts().workspace}/{text}"


def _by_id(look: Look) -> dict[str, AppState]:
    return {state.app_id: state for state in look.states if state.spec is not None}


def _digest(running: AppState | None) -> str:
    """As `expected` has it: "" for none."""
    return (running.digest or "") if running else ""


def _needs(running: Running, artifact_id: str, version: str) -> bool:
    records = (running.record, running.record.previous) if running.record else ()
    return any((one.spec.artifact_id, one.spec.version) == (artifact_id, version) for one in records if one)
