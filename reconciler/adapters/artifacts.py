"""Artifacts on Hypha: one paged list, and an upload that can be cut off anywhere and said again.

Law: a committed version is complete and never changes. Files are checked before the commit, a new version is staged
empty, nothing is ever removed or overwritten, and a version's git tree travels in its commit comment.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx
import stamina
from pydantic import BaseModel, ValidationError

from reconciler.adapters.hypha import HyphaSession, RemoteError
from reconciler.errors import Unreachable
from reconciler.failpoint import side_effect
from reconciler.planning.live import ArtifactVersion, LiveArtifact
from reconciler.planning.steps import UploadArtifact
from reconciler.ports import Progress, StepFailed

MANAGER = "public/artifact-manager"
COLLECTION = "applications"
PAGE = 500
FILES_PAGE = 1000
UPLOADS_AT_ONCE = 8


class _Version(BaseModel):
    version: str
    comment: str | None = None


class _Record(BaseModel):
    """What we read of an artifact as Hypha tells it."""

    id: str
    parent_id: str | None = None
    versions: list[_Version] = []
    staging: list[dict[str, Any]] | None = None
    config: dict[str, Any] | None = None

    def live(self) -> LiveArtifact:
        versions = tuple(ArtifactVersion(version.version, tree_of(version.comment)) for version in self.versions)
        return LiveArtifact(self.id, versions, staged=bool(self.staging))


class _Page(BaseModel):
    items: list[_Record]
    total: int


class HyphaArtifacts:
    """The applications collection of one workspace."""

    def __init__(self, session: HyphaSession, *, timeout_s: float = 60.0) -> None:
        self._session = session
        self._timeout_s = timeout_s
        # Hypha stages one version per artifact at a time.
        self._one_at_a_time: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._ensuring_collection = asyncio.Lock()

    async def workspace(self) -> str:
        return await self._session.workspace()

    async def list(self) -> Mapping[str, LiveArtifact]:
        collection = f"{await self.workspace()}/{COLLECTION}"
        found: dict[str, LiveArtifact] = {}
        asked, totals = 0, set[int]()
        while True:
            try:
                page = await self._page(collection, asked)
            except RemoteError as error:
                if _is_missing(error) and not asked:
                    return {}
                raise Unreachable(f"{collection} cannot be listed: {error}", hint="May the token read it?") from None
            found |= {record.id: record.live() for record in page.items}
            asked += len(page.items)
            totals.add(page.total)
            if page.items and asked < page.total:
                continue
            # A page may be lost, and what is stored may change between two pages: then one comes twice, or never.
            if totals != {len(found)}:
                raise Unreachable(
                    f"{collection}: {len(found)} of {page.total} artifacts were listed", hint="Try again; it moved."
                )
            return found

    async def _page(self, collection: str, offset: int) -> _Page:
        answer = await self._ask(
            "list", parent_id=collection, offset=offset, limit=PAGE, pagination=True, stage="all", silent=True
        )
        return _read(_Page, answer, collection)

    async def upload(
        self, upload: UploadArtifact, manifest: Mapping[str, Any], read: Callable[[str], bytes], progress: Progress
    ) -> None:
        if upload.folder.refused:
            path, reason = next(iter(upload.folder.refused.items()))
            raise StepFailed(f"{upload.folder.path}/{path}: {reason}; it cannot be uploaded")
        async with self._one_at_a_time[upload.artifact_id]:
            try:
                await self._upload(upload, manifest, read, progress)
            except RemoteError as error:
                raise StepFailed(f"{upload.artifact_id} {upload.version}: {error.kind}: {error.message}") from None

    async def _upload(
        self, upload: UploadArtifact, manifest: Mapping[str, Any], read: Callable[[str], bytes], progress: Progress
    ) -> None:
        record = await self._record(upload.artifact_id)
        if record is not None and (there := record.live().version(upload.version)):
            if there.tree == upload.folder.tree:
                progress(f"{upload.version} is there already")
                return
            raise StepFailed(
                f"{upload.artifact_id} {upload.version} exists with other content (tree {there.tree or 'unknown'}); "
                "versions are never overwritten: raise `version` in the manifest"
            )
        contents = {path: read(blob.oid) for path, blob in sorted(upload.folder.files.items())}
        progress("staging")
        await self._stage(upload, {**manifest, "created_by": await self._session.user_id()}, record)
        await self._put(upload, contents, progress)
        await self._verify(upload, contents)
        progress("committing")
        committed = await self._write(
            f"upload {upload.artifact_id} {upload.version}/commit",
            "commit",
            artifact_id=upload.artifact_id,
            version=upload.version,
            comment=comment(upload.folder.tree, upload.commit),
        )
        if committed.get("file_count", len(contents)) != len(contents):
            raise StepFailed(
                f"{upload.artifact_id} {upload.version} was committed with {committed['file_count']} files instead of "
                f"{len(contents)}: somebody else wrote to it meanwhile"
            )

    async def _stage(self, upload: UploadArtifact, manifest: dict[str, Any], record: _Record | None) -> None:
        """An empty new version, ready to be filled, whatever an upload that was cut off left behind."""
        workspace, alias = upload.artifact_id.split("/", 1)
        address = f"upload {upload.artifact_id} {upload.version}"
        config = _view_config(manifest.get("frontend_entry"))
        if record is None:
            await self._ensure_collection(workspace)
            await self._write(
                f"{address}/create",
                "create",
                alias=alias,
                parent_id=f"{workspace}/{COLLECTION}",
                type="application",
                manifest=manifest,
                config=config,
                stage=True,
            )
            return
        if record.parent_id != f"{workspace}/{COLLECTION}":
            raise StepFailed(
                f"{upload.artifact_id} exists outside of {workspace}/{COLLECTION}; give the app another id, or move it"
            )
        if record.staging:
            if not any(item.get("_intent") == "new_version" for item in record.staging):
                raise StepFailed(
                    f"somebody edits the newest version of {upload.artifact_id} in place; commit or discard that first"
                )
            # A new version that was never committed: nobody can have used it, and its files may be of another commit.
            await self._write(f"{address}/discard", "discard", artifact_id=upload.artifact_id)
            record = await self._record(upload.artifact_id) or record
        # What is given replaces the whole config, permissions included: so give all of it, or nothing.
        before = record.config or {}
        after = {key: value for key, value in before.items() if key != "view_config"} | config
        await self._write(
            f"{address}/edit",
            "edit",
            artifact_id=upload.artifact_id,
            manifest=manifest,
            config=after if after != before else None,
            version="new",
            stage=True,
        )

    async def _put(self, upload: UploadArtifact, contents: Mapping[str, bytes], progress: Progress) -> None:
        address = f"upload {upload.artifact_id} {upload.version}"
        urls: dict[str, str] = await self._write(
            f"{address}/put_file", "put_file", artifact_id=upload.artifact_id, file_path=list(contents)
        )
        free = asyncio.Semaphore(UPLOADS_AT_ONCE)
        done = 0

        patience = httpx.Timeout(20.0, read=300.0, write=300.0)
        async with httpx.AsyncClient(timeout=patience, trust_env=not _on_loopback(urls)) as client:

            async def put(path: str, content: bytes) -> None:
                nonlocal done
                async with free:
                    with side_effect(f"{address}/PUT {path}"):
                        await _put_bytes(client, urls[path], content, path)
                done += 1
                progress(f"{done} of {len(contents)} files")

            try:
                async with asyncio.TaskGroup() as group:
                    for path, content in contents.items():
                        group.create_task(put(path, content))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None  # the others are its siblings: one says enough

    async def _verify(self, upload: UploadArtifact, contents: Mapping[str, bytes]) -> None:
        """What is staged has the names and sizes of the folder's files, no more and no less."""
        wanted = {path: len(content) for path, content in contents.items()}
        found = await self._staged_files(upload.artifact_id, "")
        if found != wanted:
            missing = sorted(wanted.keys() - found.keys())
            extra = sorted(found.keys() - wanted.keys())
            sizes = sorted(path for path in wanted.keys() & found.keys() if wanted[path] != found[path])
            raise StepFailed(
                f"{upload.artifact_id} {upload.version} did not arrive as it was sent: "
                f"missing {missing or 'none'}, extra {extra or 'none'}, other size {sizes or 'none'}"
            )

    async def _staged_files(self, artifact_id: str, folder: str) -> dict[str, int]:
        """Size by path below one folder."""
        files: dict[str, int] = {}
        folders: list[str] = []
        asked = 0
        while True:
            items = await self._ask(
                "list_files",
                artifact_id=artifact_id,
                dir_path=folder or None,
                stage=True,
                limit=FILES_PAGE,
                offset=asked,
            )
            for item in items:
                path = f"{folder}/{item['name']}".lstrip("/")
                if item["type"] == "directory":
                    folders.append(path)
                else:
                    files[path] = int(item["size"])
            asked += len(items)
            if len(items) < FILES_PAGE:
                break
        for below in await asyncio.gather(*(self._staged_files(artifact_id, path) for path in folders)):
            files |= below
        return files

    async def _record(self, artifact_id: str) -> _Record | None:
        """The artifact as it is staged, else as it is published; only the staged view tells that it is staged."""
        try:
            answer = await self._ask("read", artifact_id=artifact_id, stage=True, silent=True)
            return _read(_Record, answer, artifact_id)
        except RemoteError as error:
            if _is_missing(error):
                return None
            raise

    async def _ensure_collection(self, workspace: str) -> None:
        async with self._ensuring_collection:
            if await self._record(f"{workspace}/{COLLECTION}") is not None:
                return
            await self._write(
                f"collection {workspace}/{COLLECTION}/create",
                "create",
                alias=COLLECTION,
                workspace=workspace,
                type="collection",
                manifest={"name": "Applications", "description": "BioEngine applications"},
                config={"permissions": {"*": "r"}},
            )

    async def _write(self, name: str, method: str, **arguments: Any) -> Any:
        with side_effect(name):
            return await self._ask(method, **arguments)

    async def _ask(self, method: str, **arguments: Any) -> Any:
        given = {key: value for key, value in arguments.items() if value is not None}
        return await self._session.ask(MANAGER, method, timeout_s=self._timeout_s, **given)


Model = TypeVar("Model", bound=BaseModel)


def _read(model: type[Model], answer: Any, what: str) -> Model:
    """An answer that is none leaves us knowing nothing; it must not be read as "there is nothing"."""
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Unreachable(
            f"{what}: Hypha answered with something else ({where or 'all of it'}: {first['msg']})",
            hint="Is the artifact manager of a version that this reconciler knows?",
        ) from None


def comment(tree: str, commit: str) -> str:
    """What a version says of its origin, in words that `tree_of` reads back."""
    return f"bioengine/v1 tree={tree} commit={commit}"


def tree_of(text: str | None) -> str | None:
    """The git tree a commit comment names; None when it is not one of ours."""
    match = re.match(r"^bioengine/v1 tree=([0-9a-f]{40}(?:[0-9a-f]{24})?) commit=", text or "")
    return match[1] if match else None


class _StoreTrouble(Exception):
    """The store answered that it could not, as stores sometimes do; a PUT may be said again."""


async def _put_bytes(client: httpx.AsyncClient, url: str, content: bytes, path: str) -> None:
    @stamina.retry(on=(httpx.TransportError, _StoreTrouble), attempts=5, wait_initial=0.2, wait_max=5.0)
    async def put() -> httpx.Response:
        response = await client.put(url, content=content)
        if response.is_server_error:
            raise _StoreTrouble(f"HTTP {response.status_code}")
        return response

    try:
        response = await put()
    except (httpx.TransportError, _StoreTrouble) as error:
        why = str(error) if isinstance(error, _StoreTrouble) else type(error).__name__
        raise Unreachable(f"the artifact store does not take {path}: {why}") from None
    if not response.is_success:
        raise StepFailed(f"the artifact store refused {path}: HTTP {response.status_code}")


def _on_loopback(urls: Mapping[str, str]) -> bool:
    """No proxy leads to this machine itself."""
    return all(httpx.URL(url).host in ("127.0.0.1", "::1", "localhost") for url in urls.values())


def _view_config(frontend_entry: str | None) -> dict[str, Any]:
    """How Hypha serves the app's page."""
    if not frontend_entry:
        return {}
    folder, _, index = frontend_entry.rpartition("/")
    return {"view_config": {"branch": "main", "root_directory": folder, "headers": {}, "index": index}}


def _is_missing(error: RemoteError) -> bool:
    return error.kind == "KeyError" and "does not exist" in error.message
