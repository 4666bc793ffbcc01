"""App folders on Hypha: one version fetched whole, a new version stored beside the others.

Law: a committed version is never touched. A new version is staged empty, filled, compared with what was sent, and only
then committed; nothing is removed from storage and nothing is overwritten.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import httpx
import stamina
import yaml
from pydantic import ValidationError

from bioengine_runtime.apps.errors import BadApp, UnknownApp
from bioengine_runtime.apps.prepare import ArtifactFiles
from bioengine_runtime.contract.manifest import AppManifest
from bioengine_runtime.door import in_words
from bioengine_runtime.hypha_session import HyphaSession

COLLECTION = "applications"
MANIFEST = "manifest.yaml"
MAX_BYTES = 100 * 1024**2
MAX_FILES = 2000
AT_ONCE = 8
PAGE = 1000
TIMEOUT_S = 60.0


class HyphaArtifacts:
    """The artifact manager, asked through the worker's own session."""

    def __init__(self, session: HyphaSession) -> None:
        self._session = session
        self._uploading = asyncio.Lock()

    async def fetch(self, artifact_id: str, version: str) -> ArtifactFiles:
        """Every file of one version, with the manifest it carries. Raises UnknownApp or BadApp."""
        manager = await self._manager()
        try:
            sizes = await self._sizes(manager, artifact_id, "", {"version": version})
        except Exception as error:
            raise _unknown(error, f"{artifact_id} {version}") from None
        if sum(sizes.values()) > MAX_BYTES or len(sizes) > MAX_FILES:
            raise BadApp(f"{artifact_id} {version} is larger than {MAX_BYTES // 1024**2} MB or {MAX_FILES} files")
        paths = [inside(path) for path in sizes]
        urls = (
            await _soon(manager.get_file(artifact_id, file_path=paths, version=version, silent=True)) if paths else {}
        )
        files = await _parallel({path: _get(urls[path]) for path in paths})
        return ArtifactFiles(artifact_id, version, manifest_of(files, f"{artifact_id} {version}"), files)

    async def newest(self, artifact_id: str) -> str:
        """The newest committed version."""
        manager = await self._manager()
        try:
            record = await _soon(manager.read(artifact_id, silent=True))
        except Exception as error:
            raise _unknown(error, artifact_id) from None
        if not record.get("versions"):
            raise UnknownApp(f"{artifact_id} has no committed version")
        return max(record["versions"], key=lambda one: one.get("created_at") or 0)["version"]

    async def upload(self, items: Sequence[Mapping[str, Any]], created_by: str) -> str:
        """Store a folder as the version its manifest names; answers the artifact id."""
        files = {inside(str(item.get("name", ""))): content_of(item) for item in items}
        manifest = manifest_of(files, "upload")
        async with self._uploading:
            return await self._store(files, manifest, created_by)

    async def _store(self, files: Mapping[str, bytes], manifest: AppManifest, created_by: str) -> str:
        manager = await self._manager()
        artifact_id = f"{self._session.workspace}/{manifest.id}"
        record = await self._record(manager, artifact_id)
        if record and any(one["version"] == manifest.version for one in record["versions"] or ()):
            raise BadApp(
                f"{artifact_id} {manifest.version} exists and is never overwritten; raise `version` in {MANIFEST}"
            )
        await self._stage(manager, artifact_id, record, manifest, created_by)
        urls = await _soon(manager.put_file(artifact_id, file_path=list(files)))
        await _parallel({path: _put(urls[path], content) for path, content in files.items()})
        arrived = await self._sizes(manager, artifact_id, "", {"stage": True})
        if arrived != {path: len(content) for path, content in files.items()}:
            raise RuntimeError(f"{artifact_id} {manifest.version} did not arrive as it was sent; upload it again")
        await _soon(manager.commit(artifact_id, version=manifest.version))
        return artifact_id

    async def _stage(
        self, manager: Any, artifact_id: str, record: Mapping[str, Any] | None, manifest: AppManifest, created_by: str
    ) -> None:
        document = {**manifest.model_dump(mode="json", exclude_none=True), "created_by": created_by}
        config = view_config(manifest.frontend_entry)
        if record is None:
            await self._ensure_collection(manager)
            parent = f"{self._session.workspace}/{COLLECTION}"
            await _soon(
                manager.create(
                    alias=manifest.id,
                    parent_id=parent,
                    type="application",
                    manifest=document,
                    config=config,
                    stage=True,
                )
            )
            return
        if record.get("staging"):
            raise BadApp(f"somebody else is changing {artifact_id}; commit or discard that first")
        # A config that is given replaces the whole one, permissions included.
        merged = {"config": {**(record.get("config") or {}), **config}} if config else {}
        await _soon(manager.edit(artifact_id, manifest=document, version="new", stage=True, **merged))

    async def _ensure_collection(self, manager: Any) -> None:
        if await self._record(manager, f"{self._session.workspace}/{COLLECTION}") is None:
            await _soon(
                manager.create(
                    alias=COLLECTION,
                    type="collection",
                    manifest={"name": "Applications", "description": "BioEngine applications"},
                    config={"permissions": {"*": "r"}},
                )
            )

    async def _record(self, manager: Any, artifact_id: str) -> Mapping[str, Any] | None:
        try:
            return await _soon(manager.read(artifact_id, silent=True))
        except Exception as error:
            if "does not exist" in str(error):
                return None
            raise

    async def _sizes(self, manager: Any, artifact_id: str, folder: str, which: dict[str, Any]) -> dict[str, int]:
        """Size by path, sub-folders included."""
        found: dict[str, int] = {}
        below: list[str] = []
        for offset in range(0, MAX_FILES + PAGE, PAGE):
            items = await _soon(
                manager.list_files(artifact_id, dir_path=folder or None, limit=PAGE, offset=offset, **which)
            )
            for item in items:
                path = f"{folder}/{item['name']}".lstrip("/")
                if item["type"] == "directory":
                    below.append(inside(path))
                else:
                    found[inside(path)] = int(item["size"])
            if len(items) < PAGE:
                break
        for path in below:
            found |= await self._sizes(manager, artifact_id, path, which)
        return found

    async def _manager(self) -> Any:
        server = await asyncio.wait_for(self._session.connected(), TIMEOUT_S)
        return await _soon(server.get_service("public/artifact-manager"))


def inside(path: str) -> str:
    """The path, if it names something below the folder it is joined to."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\\" in path or "\0" in path or {"..", "."} & set(path.split("/")):
        raise BadApp(f'"{path}" is not a path inside an app folder')
    return path


def content_of(item: Mapping[str, Any]) -> bytes:
    """Bytes of one uploaded item; base64 may carry a `data:…,` prefix."""
    content, kind = item.get("content"), item.get("type", "text")
    if isinstance(content, bytes):
        return content
    if not isinstance(content, str) or kind not in ("text", "base64"):
        raise BadApp(f'{item.get("name")}: needs `content` as text and a `type` of "text" or "base64"')
    if kind == "text":
        return content.encode()
    try:
        return base64.b64decode(content.split(",", 1)[-1] if content.startswith("data:") else content, validate=True)
    except binascii.Error:
        raise BadApp(f"{item.get('name')}: content is not base64") from None


def manifest_of(files: Mapping[str, bytes], where: str) -> AppManifest:
    """The manifest a folder carries."""
    if MANIFEST not in files:
        raise BadApp(f"{where}: there is no {MANIFEST}")
    try:
        return AppManifest.model_validate(yaml.safe_load(files[MANIFEST]))
    except yaml.YAMLError as error:
        raise BadApp(f"{where}: {MANIFEST} is not YAML: {error}") from None
    except ValidationError as error:
        raise BadApp(f"{where}: {MANIFEST}: {in_words(error)}") from None


def view_config(frontend_entry: str | None) -> dict[str, Any]:
    """How Hypha serves an app's page under `/{workspace}/view/{alias}/`."""
    if not frontend_entry:
        return {}
    folder, _, index = frontend_entry.rpartition("/")
    return {"view_config": {"branch": "main", "root_directory": folder, "headers": {}, "index": index}}


async def _parallel(work: Mapping[str, Any]) -> dict[str, Any]:
    """Every coroutine, a few at a time, by its path; the first failure ends the rest."""
    free = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:

        async def one(do: Any) -> Any:
            async with free:
                return await do(client)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = {path: group.create_task(one(do)) for path, do in work.items()}
        except* (httpx.HTTPError, RuntimeError) as errors:
            raise RuntimeError(f"the artifact store failed: {errors.exceptions[0]}") from None
    return {path: task.result() for path, task in tasks.items()}


class _StoreTrouble(RuntimeError):
    """The store's own fault, which may be gone the next time (two first files of a folder at once trouble rclone)."""


_patiently = stamina.retry(on=(httpx.TransportError, _StoreTrouble), attempts=5, wait_initial=0.2, wait_max=5.0)


def _get(url: str) -> Any:
    @_patiently
    async def do(client: httpx.AsyncClient) -> bytes:
        response = await client.get(url)
        return _ok(response).content

    return do


def _put(url: str, content: bytes) -> Any:
    @_patiently
    async def do(client: httpx.AsyncClient) -> None:
        _ok(await client.put(url, content=content))

    return do


def _ok(response: httpx.Response) -> httpx.Response:
    if response.is_server_error:
        raise _StoreTrouble(f"HTTP {response.status_code}")
    if not response.is_success:  # not raise_for_status: its text holds the signed URL
        raise RuntimeError(f"HTTP {response.status_code}")
    return response


async def _soon(question: Any) -> Any:
    return await asyncio.wait_for(question, TIMEOUT_S)


def _unknown(error: Exception, what: str) -> Exception:
    missing = any(
        words in str(error) for words in ("does not exist", "not found", "does not have", "Permission denied")
    )
    return UnknownApp(f"{what} is not there, or the worker may not read it") if missing else error
