"""What every implementation of a port must hold: base classes, run on the fakes always and on real services in e2e."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping

import pytest

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.base import SecretFromEnv
from bioengine_runtime.contract.status import Provenance
from reconciler.errors import Unreachable
from reconciler.planning.memory import NOTHING, Entry, Holder, Order, OrderKind, Remembered
from reconciler.planning.source import Blob, Folder
from reconciler.planning.steps import UploadArtifact
from reconciler.ports import (
    Artifacts,
    Memory,
    Reports,
    Runtime,
    Said,
    Secrets,
    SecretUnavailable,
    SecretValues,
    Source,
    StepFailed,
)


def an_upload(
    workspace: str,
    files: Mapping[str, bytes],
    *,
    name: str,
    version: str = "",
    refused: Mapping[str, str] | None = None,
) -> UploadArtifact:
    """An upload of these files; another content is another tree."""
    tree = oid(repr(sorted(files.items())))
    blobs = {path: Blob(oid(content), len(content)) for path, content in files.items()}
    folder = Folder(f"apps/{name}", tree, blobs, refused or {})
    return UploadArtifact(f"{workspace}/{name}", version or f"1.0.0-g{tree[:12]}", folder, "c" * 40)


def oid(content: bytes | str) -> str:
    import hashlib

    return hashlib.sha1(content if isinstance(content, bytes) else content.encode()).hexdigest()


MANIFEST = {"id": "app", "name": "App", "version": "1.0.0"}
FILES = {"manifest.yaml": b"id: app\n", "main.py": b"print()\n", "frontend/index.html": b"<p>", "empty.txt": b""}


class ArtifactsContract:
    """`artifacts` is the port; `unreachable` the same one with nobody at the other end."""

    @pytest.fixture
    def name(self) -> str:
        return f"app-{secrets.token_hex(4)}"

    async def test_an_upload_is_listed_with_its_git_tree(self, artifacts: Artifacts, name: str) -> None:
        upload = an_upload(await artifacts.workspace(), FILES, name=name)
        await send(artifacts, upload, FILES)
        artifact = (await artifacts.list())[upload.artifact_id]
        version = artifact.version(upload.version)
        assert version and version.tree == upload.folder.tree
        assert not artifact.staged

    async def test_the_same_upload_again_changes_nothing(self, artifacts: Artifacts, name: str) -> None:
        upload = an_upload(await artifacts.workspace(), FILES, name=name)
        await send(artifacts, upload, FILES)
        before = (await artifacts.list())[upload.artifact_id]
        await send(artifacts, upload, FILES)
        assert (await artifacts.list())[upload.artifact_id] == before

    async def test_a_version_is_never_overwritten(self, artifacts: Artifacts, name: str) -> None:
        first = an_upload(await artifacts.workspace(), FILES, name=name, version="1.0.0")
        await send(artifacts, first, FILES)
        other = {**FILES, "main.py": b"print(2)\n"}
        with pytest.raises(StepFailed, match=r"1\.0\.0"):
            await send(artifacts, an_upload(await artifacts.workspace(), other, name=name, version="1.0.0"), other)
        version = (await artifacts.list())[first.artifact_id].version("1.0.0")
        assert version and version.tree == first.folder.tree

    async def test_a_second_version_leaves_the_first_as_it_is(self, artifacts: Artifacts, name: str) -> None:
        first = an_upload(await artifacts.workspace(), FILES, name=name)
        fewer = {"manifest.yaml": b"id: app\n", "main.py": b"print(2)\n"}
        second = an_upload(await artifacts.workspace(), fewer, name=name)
        await send(artifacts, first, FILES)
        await send(artifacts, second, fewer)
        artifact = (await artifacts.list())[first.artifact_id]
        assert [version.name for version in artifact.versions] == [first.version, second.version]
        assert await self.files_of(artifacts, first) == {path: len(content) for path, content in FILES.items()}
        assert await self.files_of(artifacts, second) == {path: len(content) for path, content in fewer.items()}

    async def test_two_uploads_of_one_artifact_at_once_both_arrive(self, artifacts: Artifacts, name: str) -> None:
        other = {**FILES, "main.py": b"print(2)\n"}
        first = an_upload(await artifacts.workspace(), FILES, name=name)
        second = an_upload(await artifacts.workspace(), other, name=name)
        await asyncio.gather(send(artifacts, first, FILES), send(artifacts, second, other))
        artifact = (await artifacts.list())[first.artifact_id]
        assert {version.name for version in artifact.versions} == {first.version, second.version}

    async def test_what_may_not_be_followed_is_not_uploaded(self, artifacts: Artifacts, name: str) -> None:
        upload = an_upload(await artifacts.workspace(), FILES, name=name, refused={"link": "a symlink"})
        with pytest.raises(StepFailed):
            await send(artifacts, upload, FILES)
        assert upload.artifact_id not in await artifacts.list()

    async def test_no_answer_is_not_an_empty_list(self, unreachable: Artifacts) -> None:
        with pytest.raises(Unreachable):
            await unreachable.list()

    async def files_of(self, artifacts: Artifacts, upload: UploadArtifact) -> dict[str, int]:
        """Size by path of one stored version."""
        raise NotImplementedError


async def send(artifacts: Artifacts, upload: UploadArtifact, files: Mapping[str, bytes]) -> None:
    contents = {oid(content): content for content in files.values()}
    await artifacts.upload(upload, MANIFEST, contents.__getitem__, lambda _: None)


class RuntimeContract:
    """`runtime` is the port and `spec` one that it can run; `owner` is who deploys."""

    owner = "contract"

    async def test_what_is_applied_is_echoed(self, runtime: Runtime, spec: AppSpec) -> None:
        provenance = self.provenance()
        prepared = await runtime.prepare(spec)
        assert prepared.done and prepared.ok, prepared.message
        await runtime.apply(spec, SecretValues(), provenance, expected="")
        app = {app.app_id: app for app in (await runtime.observe()).apps}[spec.app_id]
        assert app.digest == spec.digest()
        assert app.spec == spec
        assert app.provenance == provenance

    async def test_nothing_is_overwritten_that_changed_since(self, runtime: Runtime, spec: AppSpec) -> None:
        await runtime.apply(spec, SecretValues(), self.provenance(), expected=None)
        other = spec.model_copy(update={"max_ongoing_requests": (spec.max_ongoing_requests or 1) + 1})
        with pytest.raises(StepFailed):
            await runtime.apply(other, SecretValues(), self.provenance(), expected="f" * 64)
        with pytest.raises(StepFailed):
            await runtime.remove(spec.app_id, owner=self.owner, expected="f" * 64)

    async def test_another_owner_may_not_stop_it(self, runtime: Runtime, spec: AppSpec) -> None:
        await runtime.apply(spec, SecretValues(), self.provenance(), expected=None)
        with pytest.raises(StepFailed):
            await runtime.remove(spec.app_id, owner="somebody-else", expected=None)
        assert spec.app_id in {app.app_id for app in (await runtime.observe()).apps}

    async def test_stopping_what_is_gone_is_success(self, runtime: Runtime, spec: AppSpec) -> None:
        await runtime.apply(spec, SecretValues(), self.provenance(), expected=None)
        await runtime.remove(spec.app_id, owner=self.owner, expected=None)
        await runtime.remove(spec.app_id, owner=self.owner, expected=None)
        await runtime.remove("never-there", owner=self.owner, expected=None)

    async def test_no_answer_is_not_an_empty_worker(self, unreachable: Runtime) -> None:
        with pytest.raises(Unreachable):
            await unreachable.observe()

    def provenance(self) -> Provenance:
        return Provenance(owner=self.owner, source="/lab", commit="c" * 40)


class SourceContract:
    """`source` holds cluster.yaml and one app folder, `apps/hello`, with main.py in it."""

    async def test_a_commit_is_read_as_values(self, source: Source) -> None:
        tree = await source.fetch()
        folder = tree.folders["apps/hello"]
        assert tree.cluster_file and tree.read(tree.cluster_file.oid).startswith(b"name:")
        assert len(tree.read(folder.files["main.py"].oid)) == folder.files["main.py"].size
        assert not folder.refused

    async def test_the_same_commit_has_the_same_ids(self, source: Source) -> None:
        first, second = await source.fetch(), await source.fetch()
        assert first.revision == second.revision
        assert first.folders == second.folders


class SecretsContract:
    """`secrets` can read the variable KNOWN (its value is `value`) and not the variable MISSING."""

    known: Mapping[str, Mapping[str, SecretFromEnv]] = {"*": {"PASS": SecretFromEnv(env="KNOWN")}}
    missing: Mapping[str, Mapping[str, SecretFromEnv]] = {"*": {"PASS": SecretFromEnv(env="MISSING")}}

    def test_a_value_comes_with_its_fingerprint(self, secrets: Secrets, value: str) -> None:
        resolved = secrets.resolve("app", self.known)
        assert resolved.values == {"*": {"PASS": value}}
        assert resolved.fingerprints == secrets.fingerprints("app", self.known)

    def test_a_value_is_never_shown(self, secrets: Secrets, value: str) -> None:
        resolved = secrets.resolve("app", self.known)
        assert value not in repr(resolved) and value not in str(secrets.fingerprints("app", self.known))
        assert value not in secrets.masked(f"upstream said: {value!r} is wrong")

    def test_what_cannot_be_read_is_not_known(self, secrets: Secrets) -> None:
        assert secrets.fingerprints("app", self.missing) == {"*/PASS": None}
        with pytest.raises(SecretUnavailable, match="PASS"):
            secrets.resolve("app", self.missing)


class ReportsContract:
    """`reports` is the port; `newest` reads back what it shows."""

    async def test_the_newest_report_is_shown(self, reports: Reports) -> None:
        await reports.publish(Said({"revision": "one"}))
        await reports.publish(Said({"revision": "two"}))
        assert await self.newest(reports) == {"revision": "two"}

    async def newest(self, reports: Reports) -> Mapping[str, object]:
        raise NotImplementedError


REMEMBERED = Remembered(
    holder=Holder("anna", "gn01", 4242, 7, 1_700_000_000.25, 1_700_000_001.0),
    orders=(Order(OrderKind.SUSPEND, "demo", "anna", 1_700_000_000.5, reason="ü: a test", until=None, once=True),),
    seconds={"demo": (12.5, 30.0)},
    commit="4c45ada",
)


def an_entry(
    number: int = 0, *, app_id: str = "demo", what: str = "", result: str = "done", **details: object
) -> Entry:
    return Entry(1_700_000_000.0 + number, "anna", what or f"update {number}", result, app_id, "c" * 40, "r", details)


class MemoryContract:
    """`memory` is the port, empty; `unreachable` the same one with nobody at the other end."""

    async def test_nothing_is_remembered_at_first(self, memory: Memory) -> None:
        assert await memory.read() == NOTHING
        assert list(await memory.history(10)) == []

    async def test_what_is_written_is_read_back_and_replaces_what_was(self, memory: Memory) -> None:
        await memory.write(REMEMBERED)
        assert await memory.read() == REMEMBERED
        await memory.write(NOTHING)
        assert await memory.read() == NOTHING

    async def test_started_anew_it_is_empty_and_goes_on(self, memory: Memory) -> None:
        await memory.write(REMEMBERED)
        await memory.start_anew()
        assert await memory.read() == NOTHING
        await memory.write(REMEMBERED)
        assert await memory.read() == REMEMBERED

    async def test_the_history_is_read_newest_first(self, memory: Memory) -> None:
        await memory.append([an_entry(0), an_entry(1, app_id="other")])
        await memory.append([])
        await memory.append([an_entry(2, text="ü", seconds=0.5)])
        assert list(await memory.history(10)) == [
            an_entry(2, text="ü", seconds=0.5),
            an_entry(1, app_id="other"),
            an_entry(0),
        ]
        assert list(await memory.history(1)) == [an_entry(2, text="ü", seconds=0.5)]
        assert list(await memory.history(10, "other")) == [an_entry(1, app_id="other")]

    async def test_a_trouble_that_stands_is_said_once(self, memory: Memory) -> None:
        failed = {"what": "update", "result": "failed"}
        await memory.append([an_entry(0, **failed, message="disk full")])
        await memory.append([an_entry(1, **failed, message="disk full")])
        await memory.append([an_entry(2, **failed, message="no route")])
        await memory.append([an_entry(3, what="update")])
        await memory.append([an_entry(4, what="update")])
        await memory.append([an_entry(5, **failed, message="no route")])
        assert [entry.at - 1_700_000_000 for entry in await memory.history(10)] == [5, 4, 3, 2, 0]

    async def test_no_answer_is_not_nothing(self, unreachable: Memory) -> None:
        with pytest.raises(Unreachable):
            await unreachable.read()
        with pytest.raises(Unreachable):
            await unreachable.append([an_entry()])
