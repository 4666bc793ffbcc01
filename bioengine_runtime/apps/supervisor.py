"""The running apps: prepare, apply, remove, and the states they are in.

Nothing an app's author wrote is ever imported here. Everything that must survive this process lives in Ray.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bioengine_runtime.apps import marks, store
from bioengine_runtime.apps.builder import Blueprint, Part, blueprint, sent_again
from bioengine_runtime.apps.deploying import Deployer
from bioengine_runtime.apps.errors import AppError, BadApp
from bioengine_runtime.apps.fitting import asked_by, crowded, impossible
from bioengine_runtime.apps.fresh import Fresh
from bioengine_runtime.apps.prepare import ArtifactFiles, ArtifactReader, Builders, Places, Ready, ReadyClass, prepare
from bioengine_runtime.apps.probing import check_probe
from bioengine_runtime.apps.record import AppRecord, Running, read_records
from bioengine_runtime.apps.redeploying import FIRST_PAUSE_S
from bioengine_runtime.apps.requirements import Wanted, doubts, total, wanted
from bioengine_runtime.apps.rollout import Facts, check, failed_and_stays, next_record
from bioengine_runtime.apps.room import nodes_now, present_of
from bioengine_runtime.apps.secrets import Secrets, complete, first_end, sealed_for
from bioengine_runtime.apps.sharing import Shared
from bioengine_runtime.apps.states import States
from bioengine_runtime.apps.watcher import Watcher
from bioengine_runtime.contract.app import AppSpec, for_class
from bioengine_runtime.contract.status import AppState, Prepared, Provenance
from bioengine_runtime.serve_thread import in_serve_thread

__all__ = ["ArtifactFiles", "ArtifactReader", "Supervisor", "WorkerEnvironment"]

READY_FOR_S = 300.0
"""A prepared app is taken as prepared for so long; nodes may have joined since."""
FETCHED_FOR_S = 60.0
"""Long enough for all apps of one folder to be prepared from one fetch."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerEnvironment:
    """What every app of this worker is given. `apps_dir` is a path on every node."""

    apps_dir: str
    seal_key_file: str
    server_url: str
    workspace: str
    worker_service_id: str
    grows: bool = False
    """Nodes may join when an app needs them, so what fits on none of today's is no reason to refuse it."""

    def variables(self, spec: AppSpec) -> dict[str, str]:
        """The environment variables that apps are promised, but for those only a replica can know."""
        return {
            "HYPHA_SERVER_URL": self.server_url,
            "HYPHA_WORKSPACE": self.workspace,
            "HYPHA_ARTIFACT_ID": spec.artifact_id,
            "HYPHA_ARTIFACT_VERSION": spec.version,
            "BIOENGINE_ARTIFACT_ID": spec.artifact_id,
            "BIOENGINE_ARTIFACT_VERSION": spec.version,
            "BIOENGINE_WORKER_SERVICE_ID": self.worker_service_id,
        }

    def places(self) -> Places:
        return Places(code=f"{self.apps_dir}/.cache/code", layers=f"{self.apps_dir}/.cache/layers")


class Supervisor:
    """Start it, and it looks after the apps until it is stopped; stopping it touches no app."""

    def __init__(
        self,
        *,
        reader: ArtifactReader,
        environment: WorkerEnvironment,
        on_change: Callable[[], Awaitable[None]] | None = None,
        redeploy_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._reader = reader
        self._environment = environment
        self._look = Shared(read_records)
        self._nodes = Shared(lambda: asyncio.to_thread(nodes_now))
        self._deployer = Deployer(self._look)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._fetched: Fresh[ArtifactFiles] = Fresh(FETCHED_FOR_S)
        self._prepared: Fresh[Ready] = Fresh(READY_FOR_S, keeps_failures=True)
        self._states = States()
        self._builders = Builders()
        self._watcher = Watcher(
            worker=environment.worker_service_id,
            deployer=self._deployer,
            look=self._look,
            lock=self._locks.__getitem__,
            on_change=on_change,
            places=environment.places(),
            redeploy_pause_s=redeploy_pause_s,
        )
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Have Serve running and go on with what earlier workers began. Ray must be connected."""
        await self._deployer.start_serve()
        self._watching = asyncio.create_task(self._watcher.run(), name="apps-watcher")

    async def stop(self) -> None:
        """Every app runs on."""
        await self._prepared.stop()
        await self._fetched.stop()
        if self._watching:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def prepare(self, spec: AppSpec, wait_s: float = 20.0) -> Prepared:
        """Build what the app needs, everywhere it can run. Asking again joins the same build, also one that has failed
        while nobody waited for it; who asks after having heard of that has it built anew."""
        started = time.monotonic()
        try:
            ready = await asyncio.wait_for(self._prepare(spec), wait_s)
            running = (await self._look()).get(spec.app_id)
            kept = running.record.secret_fingerprints if running and running.record else {}
            warnings = await self._fit(spec, kept, ready, running)
        except TimeoutError:
            return Prepared(done=False, message="still building", seconds=time.monotonic() - started)
        except AppError as error:
            return Prepared(ok=False, message=str(error), seconds=time.monotonic() - started)
        return Prepared(nodes=ready.nodes, message="; ".join(warnings), seconds=round(ready.seconds, 3))

    async def apply(
        self,
        spec: AppSpec,
        secrets: Secrets,
        fingerprints: Mapping[str, str],
        provenance: Provenance,
        expected: str | None,
    ) -> bool:
        """Run this; returns once Ray has accepted it, False when it runs already. `expected`: "" for none.

        What failed and stays for want of another version is tried again: its replicas that are healthy are kept."""
        asked_at = time.time()
        if await self._is_so(await self._running(spec.app_id), spec, fingerprints, provenance, expected):
            return False
        ready = await self._prepare(spec)
        async with self._locks[spec.app_id]:
            running = await self._running(spec.app_id)  # begun after we hold the lock, so it knows all we did
            if await self._is_so(running, spec, fingerprints, provenance, expected):
                return False
            await self._deploy(spec, secrets, fingerprints, provenance, ready, running, asked_at)
        self._watcher.wake()
        return True

    async def remove(self, app_id: str, *, owner: str, expected: str | None = None) -> None:
        """Stop it; one that is gone already is success."""
        async with self._locks[app_id]:
            running = await self._running(app_id)
            if running is None:
                return
            check(app_id, running, owner=owner, expected=expected, worker=self._worker)
            await self._deployer.delete(app_id)
            await asyncio.to_thread(marks.forget, app_id, *marks.OF_APP)
            log.info("app=%s removed owner=%s", app_id, owner)
        self._watcher.wake()

    async def states(self, running: Mapping[str, Running] | None = None) -> list[AppState]:
        """Every app in Serve, or of these; what this worker does not look after has no `spec`."""
        return await self._states.of(await self._look() if running is None else running, self._worker)

    async def running(self) -> dict[str, Running]:
        """Every application in Serve, those of other workers too."""
        return await self._look()

    def forget(self, artifact_id: str) -> None:
        """What was fetched of this artifact, or built from it, may be of a version that is no more."""
        for kept in (self._fetched, self._prepared):
            kept.forget(lambda key: isinstance(key, tuple) and key[0] == artifact_id)

    @property
    def _worker(self) -> str:
        return self._environment.worker_service_id

    async def _running(self, app_id: str) -> Running | None:
        """The app, unless it is about to be gone."""
        running = (await self._look()).get(app_id)
        return running if running and running.status != "DELETING" else None

    async def _is_so(
        self,
        running: Running | None,
        spec: AppSpec,
        fingerprints: Mapping[str, str],
        by: Provenance,
        expected: str | None,
    ) -> bool:
        """Whether exactly this runs, and has not failed. Raises Refused when this caller may not change what runs."""
        record = running.record if running else None
        so = record is not None and record.runs(spec.digest(), fingerprints)
        now = None if so else expected
        check(spec.app_id, running, owner=by.owner, expected=now, worker=self._worker, adopts=by.adopts)
        if running is None or record is None or not so or record.provenance.owner != by.owner:
            return False
        return not await self._stays(running)

    async def _stays(self, running: Running) -> bool:
        rejected = await asyncio.to_thread(marks.read_rejection, running.app_id)
        good = await asyncio.to_thread(marks.read_good, running.app_id)
        return failed_and_stays(running, rejected, good and good.release)

    async def _prepare(self, spec: AppSpec) -> Ready:
        """What the build of this app gives: the one that runs, the one that is fresh, or a new one. It goes on when who
        asked does not wait for it."""
        same_for_all = spec.model_copy(update={"app_id": ""})  # apps that differ in name alone need one build
        key = spec.artifact_id, same_for_all.code_digest()
        try:
            return await asyncio.shield(self._prepared.get(key, lambda: self._build(spec)))
        except Exception:  # it is heard of now, whatever it is
            self._prepared.forget(lambda one: one == key)
            raise

    async def _build(self, spec: AppSpec) -> Ready:
        place = spec.artifact_id, spec.version
        artifact = await asyncio.shield(self._fetched.get(place, lambda: self._fetch(*place)))
        variables = self._environment.variables(spec)
        return await prepare(spec, artifact, variables, self._environment.places(), self._builders)

    async def _fetch(self, artifact_id: str, version: str) -> ArtifactFiles:
        return await self._reader.fetch(artifact_id, version)

    async def _deploy(
        self,
        spec: AppSpec,
        secrets: Secrets,
        fingerprints: Mapping[str, str],
        provenance: Provenance,
        ready: Ready,
        running: Running | None,
        asked_at: float,
    ) -> None:
        warnings = await self._fit(spec, fingerprints, ready, running)
        app_id = spec.app_id
        current = running.record if running else None
        if current is None:  # of an app of this name that was removed by somebody who died doing it
            await asyncio.to_thread(marks.forget, app_id, *marks.OF_APP)
        good = await asyncio.to_thread(marks.read_good, app_id)
        kept = await asyncio.to_thread(store.get, store.BLUEPRINT, current.blueprint) if current else None
        before = Blueprint.from_bytes(kept) if kept else None
        names, key_file = [one.name for one in ready.classes], self._environment.seal_key_file
        values = await asyncio.to_thread(complete, spec, secrets, before, names, key_file)
        facts = self._facts(spec, ready, warnings, values)
        same = current is not None and current.runs(spec.digest(), fingerprints)
        again = running is not None and same and await self._stays(running)
        record = next_record(
            spec, fingerprints, provenance, facts, running, good and good.release, time.time(), asked_at, again=again
        )
        plan = await in_serve_thread(lambda: self._draw(record, values, ready))
        await asyncio.to_thread(store.put, store.BLUEPRINT, record.blueprint, plan.to_bytes())
        if current and (again or current.release() != record.release()):
            await asyncio.to_thread(marks.forget, app_id, store.GATE)  # it may have been at its gate before, and failed
        if again:  # before it is sent, so that what is judged anew is never called rejected and good at once
            await asyncio.to_thread(marks.forget, app_id, store.REJECTED)
        messages = sent_again(plan.deployments, record.blueprint) if again else plan.deployments
        await self._deployer.deploy(app_id, record.blueprint, messages)
        await asyncio.to_thread(marks.forget, app_id, store.REJECTED, store.TRIES)
        log.info("app=%s digest=%s accepted commit=%s", app_id, record.digest[:12], provenance.commit)

    async def _fit(
        self, spec: AppSpec, fingerprints: Mapping[str, str], ready: Ready, running: Running | None
    ) -> list[str]:
        """What should be known before this is deployed. Raises BadApp when it never could run here, or be probed."""
        check_probe(spec.rollout.probe, spec.app_id, ready.classes[0].description["methods"])
        nodes = await self._nodes()
        asked = [asked_by(one) for one in _wanted(spec, fingerprints, ready)]
        warnings = doubts(spec, ready.classes[0].name, ready.classes[0].description["options"])
        if problem := impossible(asked, nodes):
            if not self._environment.grows:
                raise BadApp(f"{spec.app_id}: {problem}")
            return [*warnings, f"waits for nodes to join: {problem}"]
        current = running.record if running else None
        keeps = (
            current is not None
            and current.code_digest == spec.code_digest()
            and current.secret_fingerprints == dict(fingerprints)
        )
        present = present_of(running) if running else []
        if short := crowded(asked, nodes, present, keeps=keeps, surge=spec.rollout.surge):
            warnings.append(short)
        return warnings

    def _facts(self, spec: AppSpec, ready: Ready, warnings: Sequence[str], values: Secrets) -> Facts:
        asked = _wanted(spec, {}, ready)
        return Facts(
            name=ready.manifest.name,
            description=ready.manifest.description,
            entry=ready.classes[0].name,
            methods=tuple(ready.classes[0].description["methods"]),
            frontend_entry=ready.manifest.frontend_entry,
            package=ready.package,
            worker=self._worker,
            resources=total([one.actor_options for one in asked]),
            capacity=asked[0].options["max_ongoing_requests"],
            warnings=tuple(warnings),
            layers=tuple({Path(one.layer).name for one in ready.classes if one.layer}),
            token_expires_at=first_end(values),
        )

    def _draw(self, record: AppRecord, values: Secrets, ready: Ready) -> Blueprint:
        spec = record.spec
        asked = _wanted(spec, record.secret_fingerprints, ready)
        parts = [self._part(spec, *both, values) for both in zip(ready.classes, asked, strict=True)]
        common = {
            "package": ready.package,
            "cache": self._environment.places().code,
            "home": f"{self._environment.apps_dir}/{spec.app_id}",
            "environment": self._environment.variables(spec),
            "seal_key_file": self._environment.seal_key_file,
        }
        return blueprint(record, parts, common)

    def _part(self, spec: AppSpec, one: ReadyClass, asked: Wanted, values: Secrets) -> Part:
        return Part(
            wanted=asked,
            module=one.module,
            kwargs=for_class(spec.kwargs, one.name),
            handles=dict(one.handles),
            layer=one.layer,
            sealed=sealed_for(spec.app_id, one.name, values.get(one.name, {}), self._environment.seal_key_file),
            multiplexed=one.description["multiplexed"],
        )


def _wanted(spec: AppSpec, fingerprints: Mapping[str, str], ready: Ready) -> list[Wanted]:
    return [
        wanted(spec, one.name, one.description["options"], fingerprints=fingerprints, entry=one is ready.classes[0])
        for one in ready.classes
    ]
