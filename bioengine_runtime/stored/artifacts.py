"""App folders on Hypha, through the worker's own session or as the person who sends one: fetched, stored, looked up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

from hypha_rpc import connect_to_server

from bioengine_runtime.apps.errors import BadApp, Refused, UnknownApp
from bioengine_runtime.apps.prepare import ArtifactFiles
from bioengine_runtime.contract.limits import MAX_FILES, MAX_FOLDER_BYTES
from bioengine_runtime.contract.manifest import AppManifest
from bioengine_runtime.hypha_session import HyphaSession
from bioengine_runtime.rpc.access import Caller
from bioengine_runtime.stored.app_folder import (
    MANIFEST,
    check_size,
    inside,
    manifest_of,
    read_folder,
)
from bioengine_runtime.stored.shelf import Shelf, is_missing, sizes, soon
from bioengine_runtime.stored.transfer import TIMEOUT_S, download

MANAGER = "public/artifact-manager"
GUESTS_AT_ONCE = 4
"""Uploads of people into workspaces of their own: each holds a whole folder in the worker's memory."""
NOT_THEIRS = "hypha_token: it is not the caller's own; connect with it and call again"
NEWEST = "latest"
"""What some clients say for the newest version, and Hypha too; the other word it knows, `stage`, names no version."""


class HyphaArtifacts:
    """The artifact manager, asked through the worker's own session."""

    def __init__(self, session: HyphaSession) -> None:
        self._session = session
        # Hypha stages one version per artifact at a time.
        self._uploading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._guests = 0

    async def fetch(self, artifact_id: str, version: str) -> ArtifactFiles:
        """Every file of one version, with the manifest it carries. Raises UnknownApp or BadApp."""
        files = await self._files(artifact_id, version)
        return ArtifactFiles(artifact_id, version, manifest_of(files, f"{artifact_id} {version}"), files)

    async def manifest(self, artifact_id: str, version: str) -> AppManifest:
        """What one version says of itself. Raises UnknownApp or BadApp."""
        return manifest_of(await self._files(artifact_id, version, only=MANIFEST), f"{artifact_id} {version}")

    async def _files(self, artifact_id: str, version: str, only: str | None = None) -> dict[str, bytes]:
        manager = await self._manager()
        place = f"{artifact_id} {version}"
        try:
            found = await sizes(manager, artifact_id, version=version)
        except Exception as error:
            raise _unknown(error, place) from None
        if sum(found.values()) > MAX_FOLDER_BYTES or len(found) > MAX_FILES:
            raise BadApp(f"{place} is larger than {MAX_FOLDER_BYTES // 1024**2} MB or {MAX_FILES} files")
        paths = [inside(path) for path in found if only in (None, path)]
        urls = await soon(manager.get_file(artifact_id, file_path=paths, version=version, silent=True)) if paths else {}
        return await download({path: urls[path] for path in paths})

    async def version(self, artifact_id: str, wanted: str | None) -> str:
        """The name of a committed version: this one, or the newest. Raises UnknownApp saying which there are."""
        record = await self.record(artifact_id)
        names = [one["version"] for one in record["versions"] or ()]
        if not names:
            raise UnknownApp(f"{artifact_id} has no committed version")
        if wanted in (None, NEWEST):
            return names[-1]
        if wanted not in names:
            raise UnknownApp(f"{artifact_id} has no version {wanted}; there are {', '.join(names)}")
        return wanted

    async def record(self, artifact_id: str) -> dict[str, Any]:
        """The whole record of an artifact. Raises UnknownApp."""
        try:
            record = await (await self._shelf()).record(artifact_id)
        except Exception as error:
            raise _unknown(error, artifact_id) from None
        if record is None:
            raise UnknownApp(f"Artifact with ID '{artifact_id}' does not exist.")
        return record

    async def all(self) -> dict[str, dict[str, Any]]:
        """Every app of the worker's workspace: id → {manifest: its whole record, files: names at its root}."""
        return await (await self._shelf()).all()

    async def delete(self, artifact_id: str) -> None:
        """Remove an app of the worker's workspace with all its versions."""
        shelf = await self._shelf()
        async with self._alone(artifact_id):
            await shelf.delete(artifact_id)

    async def delete_version(self, artifact_id: str, version: str) -> None:
        """Remove the newest version of an app of the worker's workspace, if it is a development version."""
        shelf = await self._shelf()
        async with self._alone(artifact_id):
            await shelf.delete_version(artifact_id, version)

    async def upload(self, items: Sequence[Mapping[str, Any]], created_by: str) -> str:
        """Keep an app folder in the worker's workspace; answers the artifact id."""
        return await self._store(await self._shelf(), self._session.workspace, items, created_by)

    async def upload_as(self, caller: Caller, items: Sequence[Mapping[str, Any]], *, workspace: str, token: str) -> str:
        """Keep an app folder in a workspace of the caller's, with their own rights there and none of ours.

        Anybody may ask for this, so what costs much comes last. Raises Refused while too many do.
        """
        if caller.anonymous:
            raise PermissionError(NOT_THEIRS)
        check_size(items)
        if self._guests >= GUESTS_AT_ONCE:
            raise Refused(f"{GUESTS_AT_ONCE} uploads into other workspaces are under way; try again in a minute")
        self._guests += 1
        try:
            async with self._connected_as(caller, workspace, token) as server:
                shelf = Shelf(await soon(server.get_service(MANAGER)), workspace)
                return await self._store(shelf, workspace, items, caller.user_id or "")
        finally:
            self._guests -= 1

    async def _store(self, shelf: Shelf, workspace: str, items: Sequence[Mapping[str, Any]], created_by: str) -> str:
        folder = await asyncio.to_thread(read_folder, items)
        async with self._alone(f"{workspace}/{folder.manifest.id}"):
            return await shelf.store(folder, created_by)

    @asynccontextmanager
    async def _connected_as(self, caller: Caller, workspace: str, token: str) -> AsyncIterator[Any]:
        """The token is used once and kept nowhere. Raises PermissionError when it is not this caller's."""
        config = {
            "server_url": self._session.address.server_url,
            "workspace": workspace,
            "token": token,
            "logger": None,  # its log lines quote whole messages
        }
        try:
            server = await asyncio.wait_for(connect_to_server(config), TIMEOUT_S)
        except Exception:  # its text may quote the token
            raise PermissionError(f"hypha_token: Hypha does not accept it for the workspace {workspace}") from None
        try:
            owner = Caller.from_context({"user": server.config.user})
            if owner.names().isdisjoint(caller.names()):
                raise PermissionError(NOT_THEIRS)
            yield server
        finally:
            await asyncio.wait_for(server.disconnect(), TIMEOUT_S)

    @asynccontextmanager
    async def _alone(self, artifact_id: str) -> AsyncIterator[None]:
        lock = self._uploading.setdefault(artifact_id, asyncio.Lock())
        async with lock:
            yield

    async def _shelf(self) -> Shelf:
        return Shelf(await self._manager(), self._session.workspace)

    async def _manager(self) -> Any:
        server = await asyncio.wait_for(self._session.connected(), TIMEOUT_S)
        return await soon(server.get_service(MANAGER))


def _unknown(error: Exception, what: str) -> Exception:
    return UnknownApp(f"{what} is not there, or the worker may not read it") if is_missing(error) else error
