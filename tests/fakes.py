"""Ports that remember, obey, and can be told to fail. They pass the same contract tests as the real ones."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bioengine_runtime.contract.app import AppSpec, fingerprint
from bioengine_runtime.contract.base import SecretFromEnv, SecretRef
from bioengine_runtime.contract.status import (
    AppState,
    Prepared,
    Provenance,
    Rejection,
    ReplicaState,
    WorkerMode,
    WorkerState,
)
from reconciler.errors import SourceUnusable, Unreachable
from reconciler.history import RECALLED, Outbox
from reconciler.planning.live import ArtifactVersion, LiveArtifact
from reconciler.planning.memory import NOTHING, Entry, Remembered
from reconciler.planning.source import Blob, Folder, Revision, SourceTree
from reconciler.planning.steps import UploadArtifact
from reconciler.ports import Hypha, Lease, Progress, Said, SecretUnavailable, SecretValues, StepFailed, Told, World

WORKSPACE = "ws"
URL = "/repositories/lab"


@dataclass(eq=False)
class Trouble:
    """What a fake was told to do wrong: the name of a method (or `method argument`) → the error it raises."""

    told: dict[str, Exception] = field(default_factory=dict[str, Exception])
    calls: list[str] = field(default_factory=list[str])

    def fail(self, what: str, error: Exception | None = None) -> None:
        self.told[what] = error or Unreachable(f"{what}: no answer", hint="Try again.")

    def heal(self) -> None:
        self.told.clear()

    def note(self, method: str, argument: str = "") -> None:
        call = f"{method} {argument}".strip()
        self.calls.append(call)
        for what in (call, method):
            if what in self.told:
                raise self.told[what]

    @property
    def writes(self) -> list[str]:
        """Calls that change something outside."""
        reading = ("list", "observe", "workspace", "fetch", "resolve", "publish", "read", "history")
        return [call for call in self.calls if call.split()[0] not in reading]


class FakeSource(Trouble):
    """A repository of text files; `commit` adds one with the files given (None removes)."""

    def __init__(self, files: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._files: dict[str, str] = {}
        self._blobs: dict[str, bytes] = {}
        self._commits = 0
        self._older: dict[str, FakeSource] = {}
        if files is not None:
            self.commit(files)

    def commit(self, files: Mapping[str, str | None], subject: str = "Change") -> str:
        for path, text in files.items():
            if text is None:
                self._files.pop(path, None)
            else:
                self._files[path] = text
        self._commits += 1
        self._subject = subject
        self._older[self.head] = self._frozen()
        return self.head

    def at(self, commit: str) -> FakeSource:
        """The same repository at an older commit."""
        return self._older[commit]

    def _frozen(self) -> FakeSource:
        then = FakeSource()
        then._files, then._blobs = dict(self._files), self._blobs
        then._commits, then._subject = self._commits, self._subject
        return then

    @property
    def head(self) -> str:
        return _oid(f"{self._commits} {sorted(self._files.items())}")

    async def fetch(self) -> SourceTree:
        self.note("fetch")
        if not self._files:
            raise SourceUnusable(f"{URL} is empty", hint="Commit something.")
        blobs = {path: self._blob(text) for path, text in self._files.items()}
        names = sorted({"/".join(path.split("/")[:2]) for path in blobs if path.startswith("apps/")})
        folders = {name: _folder(name, blobs) for name in names}
        return SourceTree(
            revision=Revision(URL, "main", self.head, self._subject),
            cluster_file=blobs.get("cluster.yaml"),
            beside={path: blob for path, blob in blobs.items() if path.endswith(".yaml") and "/" not in path},
            folders=folders,
            read=self._blobs.__getitem__,
            changed=dict.fromkeys(folders, (self.head, self._subject)),
        )

    def _blob(self, text: str) -> Blob:
        content = text.encode()
        oid = _oid(text)
        self._blobs[oid] = content
        return Blob(oid, len(content))


class FakeArtifacts(Trouble):
    """Artifacts by id; `files` holds what each version was made of."""

    def __init__(self) -> None:
        super().__init__()
        self.artifacts: dict[str, LiveArtifact] = {}
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.manifests: dict[tuple[str, str], Mapping[str, Any]] = {}
        self.delay_s = 0.0

    async def workspace(self) -> str:
        self.note("workspace")
        return WORKSPACE

    async def list(self) -> Mapping[str, LiveArtifact]:
        self.note("list")
        return dict(self.artifacts)

    async def upload(
        self, upload: UploadArtifact, manifest: Mapping[str, Any], read: Callable[[str], bytes], progress: Progress
    ) -> None:
        self.note("upload", upload.artifact_id)
        if upload.folder.refused:
            raise StepFailed(f"{upload.folder.path} holds what cannot be uploaded")
        await asyncio.sleep(self.delay_s)
        artifact = self.artifacts.get(upload.artifact_id, LiveArtifact(upload.artifact_id, ()))
        there = artifact.version(upload.version)
        if there and there.tree != upload.folder.tree:
            raise StepFailed(f"{upload.version} exists with other content")
        if there:
            return
        progress("committing")
        self.files[upload.artifact_id, upload.version] = {
            path: read(blob.oid) for path, blob in upload.folder.files.items()
        }
        self.manifests[upload.artifact_id, upload.version] = dict(manifest)
        version = ArtifactVersion(upload.version, upload.folder.tree)
        self.artifacts[upload.artifact_id] = replace(artifact, versions=(*artifact.versions, version), staged=False)


class FakeRuntime(Trouble):
    """A worker whose apps come up at once, unless told: `bad` specs are rejected, `slow` ones stay on their way, and
    `builds` says how often an app's environment is asked for before it is done."""

    def __init__(self) -> None:
        super().__init__()
        self.apps: dict[str, AppState] = {}
        self.mode: WorkerMode = "single-machine"
        self.workers: dict[str, int] | None = None
        self.bad: dict[str, str] = {}
        self.bad_environments: dict[str, str] = {}
        self.slow: set[str] = set()
        self.builds: dict[str, int] = {}
        self.delay_s = 0.0
        self.at_work = 0
        self.most_at_work = 0
        self.secrets_seen: dict[str, Mapping[str, Mapping[str, str]]] = {}
        self._pids = 100

    async def observe(self) -> WorkerState:
        self.note("observe")
        return WorkerState(
            service_id=f"{WORKSPACE}/client:bioengine-worker",
            workspace=WORKSPACE,
            mode=self.mode,
            bioengine_version="0.1.0",
            ray_version="2.60.0",
            apps=list(self.apps.values()),
            workers=self.workers,
        )

    async def prepare(self, spec: AppSpec) -> Prepared:
        self.note("prepare", spec.app_id)
        await self._work()
        if self.builds.get(spec.app_id, 0):
            self.builds[spec.app_id] -= 1
            return Prepared(done=False, message="building")
        reason = self.bad_environments.get(spec.app_id)
        return Prepared(ok=reason is None, message=reason or "", nodes=1)

    async def apply(
        self, spec: AppSpec, secrets: SecretValues, provenance: Provenance, *, expected: str | None
    ) -> None:
        self.note("apply", spec.app_id)
        await self._work()
        before = self.apps.get(spec.app_id)
        self._check(spec.app_id, before, provenance.owner, expected, provenance.adopts)
        self.secrets_seen[spec.app_id] = secrets.values
        if spec.app_id in self.bad:
            rejection = Rejection(digest=spec.digest(), reason=self.bad[spec.app_id], log_lines=["Traceback"], at=1.0)
            failed = AppState(app_id=spec.app_id, status="DEPLOY_FAILED", spec=spec, digest=spec.digest())
            failed = failed.model_copy(update={"provenance": provenance})
            self.apps[spec.app_id] = (before or failed).model_copy(update={"rejected": rejection})
            return
        same_replicas = before is not None and before.spec and before.spec.code_digest() == spec.code_digest()
        if before and same_replicas:
            replicas = before.replicas
        else:
            self._pids += 1
            code = spec.code_digest()
            replicas = [
                ReplicaState(deployment="Main", replica_id="r", state="RUNNING", pid=self._pids, code_digest=code)
            ]
        self.apps[spec.app_id] = AppState(
            app_id=spec.app_id,
            status="DEPLOYING" if spec.app_id in self.slow else "RUNNING",
            spec=spec,
            digest=spec.digest(),
            secret_fingerprints=dict(secrets.fingerprints),
            provenance=provenance,
            replicas=replicas,
            service_id=f"{WORKSPACE}/gateway:{spec.app_id}",
            methods=["ping"],
            started_at=before.started_at if before else time.time(),
            last_updated_at=time.time(),
        )

    async def remove(self, app_id: str, *, owner: str, expected: str | None) -> None:
        self.note("remove", app_id)
        before = self.apps.get(app_id)
        if before is None:
            return
        self._check(app_id, before, owner, expected)
        del self.apps[app_id]

    async def scale(self, minimum: int, maximum: int) -> None:
        self.note("scale", f"{minimum} {maximum}")
        self.workers = {"min": minimum, "max": maximum}

    def _check(
        self, app_id: str, before: AppState | None, owner: str, expected: str | None, adopts: str | None = None
    ) -> None:
        if before and before.provenance and before.provenance.owner not in (owner, adopts):
            raise StepFailed(f"{app_id} belongs to {before.provenance.owner}")
        now = (before.digest or "") if before else ""
        if expected is not None and now != expected:
            raise StepFailed(f"{app_id} changed since it was looked at")

    async def _work(self) -> None:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        await asyncio.sleep(self.delay_s)
        self.at_work -= 1


class FakeReports(Trouble):
    """Keeps what was published, the newest last."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[Mapping[str, Any]] = []

    async def publish(self, said: Said) -> None:
        self.note("publish")
        self.published.append(said.report)


class FakeMemory(Trouble):
    """What is remembered, and the history with the oldest entry first. A write takes `delay_s` to arrive."""

    def __init__(self, remembered: Remembered = NOTHING) -> None:
        super().__init__()
        self.remembered = remembered
        self.entries: list[Entry] = []
        self.delay_s = 0.0
        self._outbox = Outbox(lambda: self.history(RECALLED), self._send)

    async def read(self) -> Remembered:
        self.note("read")
        return self.remembered

    async def write(self, remembered: Remembered) -> None:
        self.note("write")
        await asyncio.sleep(self.delay_s)
        self.remembered = remembered

    async def start_anew(self) -> None:
        self.note("start_anew")
        self.remembered = NOTHING

    async def append(self, entries: Sequence[Entry]) -> None:
        await self._outbox.add(entries)

    async def history(self, limit: int, app_id: str = "") -> Sequence[Entry]:
        self.note("history")
        return [entry for entry in reversed(self.entries) if app_id in ("", entry.app_id)][:limit]

    async def _send(self, entries: Sequence[Entry]) -> None:
        self.note("append")
        self.entries += entries


class FakeSecrets:
    """Values by the name of the environment variable they come from."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self.values = dict(values or {})

    def resolve(self, app_id: str, table: Mapping[str, Mapping[str, SecretRef]]) -> SecretValues:
        known = self.fingerprints(app_id, table)
        missing = sorted(key for key, value in known.items() if value is None)
        if missing:
            raise SecretUnavailable(f"{app_id}: cannot read {', '.join(missing)}")
        values = {key: {name: self._read(ref) or "" for name, ref in refs.items()} for key, refs in table.items()}
        return SecretValues(values, {key: value or "" for key, value in known.items()})

    def fingerprints(self, app_id: str, table: Mapping[str, Mapping[str, SecretRef]]) -> Mapping[str, str | None]:  # noqa: ARG002 - part of the port
        read = {f"{key}/{name}": self._read(ref) for key, refs in table.items() for name, ref in refs.items()}
        return {key: None if value is None else fingerprint(b"key", value) for key, value in read.items()}

    def masked(self, text: str) -> str:
        for value in self.values.values():
            text = text.replace(value, "(secret)")
        return text

    def _read(self, ref: SecretRef) -> str | None:
        return self.values.get(ref.env) if isinstance(ref, SecretFromEnv) else None


@dataclass
class FakeWorld:
    """Everything outside, made of fakes."""

    source: FakeSource
    artifacts: FakeArtifacts = field(default_factory=FakeArtifacts)
    runtime: FakeRuntime = field(default_factory=FakeRuntime)
    reports: FakeReports = field(default_factory=FakeReports)
    secrets: FakeSecrets = field(default_factory=FakeSecrets)
    memory: FakeMemory | None = None
    lease: Lease | None = None
    told: Told = field(default_factory=Told)

    @property
    def world(self) -> World:
        there = Hypha(self.artifacts, self.runtime, self.reports, self.memory)
        return World(self.source, lambda _: there, self.secrets, self.told, self.lease)

    @property
    def writes(self) -> list[str]:
        return [*self.artifacts.writes, *self.runtime.writes, *(self.memory.writes if self.memory else ())]

    def forget_calls(self) -> None:
        for port in (self.artifacts, self.runtime, self.reports, self.source, self.memory):
            if port:
                port.calls.clear()


def a_repository(*apps: str, cluster: str = "", **more: str) -> dict[str, str]:
    """Files of a repository with one folder and one instance per app; `cluster` is added to cluster.yaml."""
    instances = "".join(f"  {app_id}:\n    source: apps/{app_id}\n{more.get(app_id, '')}" for app_id in apps)
    files = {"cluster.yaml": f"name: lab\n{cluster}" + (f"apps:\n{instances}" if apps else "apps: {}\n")}
    for app_id in apps:
        files |= an_app_folder(app_id)
    return files


def an_app_folder(name: str, *, version: str = "1.0.0", says: str = "pong") -> dict[str, str]:
    """A small app that can be deployed."""
    return {
        f"apps/{name}/manifest.yaml": (
            f"id: {name}\nname: {name}\nid_emoji: x\ndescription: An app\ntype: ray-serve\n"
            f'version: "{version}"\nformat_version: 0.5.0\ndeployments:\n  - main:Main\nauthorized_users: ["*"]\n'
        ),
        f"apps/{name}/main.py": (
            "from hypha_rpc.utils.schema import schema_method\nfrom ray import serve\n\n\n"
            '@serve.deployment(ray_actor_options={"num_cpus": 0})\nclass Main:\n'
            f'    @schema_method\n    async def ping(self) -> str:\n        """Answer."""\n        return "{says}"\n'
        ),
    }


def _folder(name: str, blobs: Mapping[str, Blob]) -> Folder:
    files = {path.removeprefix(f"{name}/"): blob for path, blob in blobs.items() if path.startswith(f"{name}/")}
    return Folder(name, _oid(repr(sorted((path, blob.oid) for path, blob in files.items()))), files)


def _oid(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()
