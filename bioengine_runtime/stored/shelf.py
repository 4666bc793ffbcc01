"""The apps of one workspace on Hypha: store a folder as a new version, list, read and delete.

Law: a committed version is never touched, so a version names the same files for ever; but a development version may be
deleted, and its name is free again. A new version is staged empty,
filled, compared with what was sent, and only then committed; nothing is overwritten, nothing removed from storage. An
upload that fails takes back what it staged.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from bioengine_runtime.apps.errors import BadApp, Refused, UnknownApp
from bioengine_runtime.contract.limits import MAX_FILES
from bioengine_runtime.rpc.door import Invalid
from bioengine_runtime.stored.app_folder import SentFolder, inside
from bioengine_runtime.stored.transfer import AT_ONCE, TIMEOUT_S, send

log = logging.getLogger(__name__)

COLLECTION = "applications"
APPLICATION = "application"
PAGE = 1000
DEVELOPMENT = "dev"
"""What the names of development versions have in them."""
_CONTENT = re.compile(r"^bioengine/v1 content=([0-9a-f]{64})$")

Record = Mapping[str, Any]
"""An artifact as Hypha tells it."""


class Shelf:
    """The collection `applications` of a workspace, through an artifact manager connected as somebody."""

    def __init__(self, manager: Any, workspace: str) -> None:
        self._manager = manager
        self._workspace = workspace
        self._collection = f"{workspace}/{COLLECTION}"

    async def store(self, folder: SentFolder, created_by: str) -> str:
        """Keep the folder as a version of its app; answers the artifact id. One upload per app at a time, please."""
        artifact_id = f"{self._workspace}/{folder.manifest.id}"
        record = await self.record(artifact_id, stage=True)
        content = folder.digest()
        version = version_for(artifact_id, folder.manifest.version, record["versions"] or () if record else (), content)
        if version is None:
            log.info("event=upload_unchanged artifact=%s version=%s", artifact_id, folder.manifest.version)
            return artifact_id
        document = {**folder.manifest.model_dump(mode="json", exclude_none=True), "created_by": created_by}
        config = view_config(folder.manifest.frontend_entry)
        try:
            if record is None:
                await self._create(folder.manifest.id, document, config)
            else:
                await self._stage(artifact_id, record, document, config)
            await self._fill(artifact_id, version, folder.files)
            await soon(self._manager.commit(artifact_id, version=version, comment=comment(content)))
        except Refused:
            raise  # what is staged is somebody else's
        except BaseException:
            await asyncio.shield(self._take_back(artifact_id, is_new=record is None))
            raise
        log.info("event=uploaded artifact=%s version=%s files=%d", artifact_id, version, len(folder.files))
        return artifact_id

    async def all(self) -> dict[str, dict[str, Any]]:
        """Every app with a committed version: id → its whole record and the names at the root of its newest version."""
        records = await self._records()
        free = asyncio.Semaphore(AT_ONCE)  # Hypha lists the files of one artifact at a time

        async def files(artifact_id: str) -> list[str] | None:
            async with free:
                try:
                    return [item["name"] for item in await self._files(artifact_id)]
                except Exception as error:
                    if is_missing(error):
                        return None  # deleted since it was listed
                    raise

        names = await asyncio.gather(*(files(record["id"]) for record in records))
        return {
            record["id"]: {"manifest": plain(record), "files": found}
            for record, found in zip(records, names, strict=True)
            if found is not None
        }

    async def record(self, artifact_id: str, *, stage: bool = False) -> dict[str, Any] | None:
        """The whole record, None when there is none. Only the staged view tells that something is staged."""
        try:
            return plain(await soon(self._manager.read(artifact_id, silent=True, stage=stage)))
        except Exception as error:
            if "does not exist" in str(error):
                return None
            raise

    async def delete(self, artifact_id: str) -> None:
        """Remove an app with all its versions. Raises UnknownApp, Refused for what is no app, Invalid for another's."""
        await self._own(artifact_id)
        await soon(self._manager.delete(artifact_id, delete_files=True))

    async def delete_version(self, artifact_id: str, version: str) -> None:
        """Remove the newest version, if it is a development version and not the only one.

        Raises as `delete` does, UnknownApp for a version that is not there, and Refused for one that has to stay.
        """
        record = await self._own(artifact_id)
        names = [one["version"] for one in record["versions"] or ()]
        if problem := why_kept(artifact_id, version, names):
            raise problem
        if record.get("staging"):  # its files lie where Hypha looks for them by the number of versions
            raise Refused(f"a new version of {artifact_id} is being uploaded, or edited; commit or discard that first")
        before = await soon(self._manager.read(artifact_id, version=names[-2], silent=True))
        await soon(self._manager.delete(artifact_id, delete_files=True, version=version))
        # The artifact still shows the manifest and the page of what is gone.
        kept = {key: value for key, value in (record.get("config") or {}).items() if key != "view_config"}
        page = {key: value for key, value in (before["config"] or {}).items() if key == "view_config"}
        await soon(self._manager.edit(artifact_id, manifest=plain(before["manifest"]), config={**kept, **plain(page)}))

    async def _own(self, artifact_id: str) -> Record:
        if artifact_id.split("/", 1)[0] != self._workspace:
            raise Invalid(f"artifact_id: {artifact_id} is not in {self._workspace}, and this worker deletes only there")
        record = await self.record(artifact_id, stage=True)
        if record is None:
            raise UnknownApp(f"Artifact with ID '{artifact_id}' does not exist.")
        _require_app(artifact_id, record)
        return record

    async def _create(self, alias: str, document: dict[str, Any], config: dict[str, Any]) -> None:
        if await self.record(self._collection) is None:
            await soon(
                self._manager.create(
                    alias=COLLECTION,
                    workspace=self._workspace,
                    type="collection",
                    manifest={"name": "Applications", "description": "BioEngine applications"},
                    config={"permissions": {"*": "r"}},
                )
            )
        await soon(
            self._manager.create(
                alias=alias,
                workspace=self._workspace,
                parent_id=self._collection,
                type=APPLICATION,
                manifest=document,
                config=config,
                stage=True,
            )
        )

    async def _stage(self, artifact_id: str, record: Record, document: dict[str, Any], config: dict[str, Any]) -> None:
        """An empty new version, ready to be filled."""
        _require_app(artifact_id, record)
        if staging := record.get("staging"):
            if not any(item.get("_intent") == "new_version" for item in staging):
                raise Refused(f"somebody edits the newest version of {artifact_id}; commit or discard that first")
            # A version that was never committed, so nobody can have used it: what an upload that was cut off left.
            await soon(self._manager.discard(artifact_id))
            record = await self.record(artifact_id) or record
        if record.get("parent_id") != self._collection:
            await soon(self._manager.set_parent(artifact_id, new_parent_id=self._collection))
        # A config that is given replaces the whole one, permissions included: so give all of it.
        kept = {key: value for key, value in (record.get("config") or {}).items() if key != "view_config"}
        await soon(
            self._manager.edit(artifact_id, manifest=document, config={**kept, **config}, version="new", stage=True)
        )

    async def _fill(self, artifact_id: str, version: str, files: Mapping[str, bytes]) -> None:
        urls = await soon(self._manager.put_file(artifact_id, file_path=list(files)))
        await send(files, urls)
        if await sizes(self._manager, artifact_id, stage=True) != {path: len(files[path]) for path in files}:
            raise RuntimeError(f"{artifact_id} {version} did not arrive as it was sent; upload it again")

    async def _take_back(self, artifact_id: str, *, is_new: bool) -> None:
        """As it was before. The reason for it is told in any case, so trouble here is only noted."""
        with suppress(Exception):
            if not is_new:
                await soon(self._manager.discard(artifact_id))
            elif (left := await self.record(artifact_id, stage=True)) and not left["versions"]:
                await soon(self._manager.delete(artifact_id, delete_files=True))
            return
        log.warning("event=staging_left artifact=%s", artifact_id)

    async def _records(self) -> list[Record]:
        found: list[Record] = []
        while True:
            try:
                page = await soon(
                    self._manager.list(
                        self._collection, offset=len(found), limit=PAGE, pagination=True, silent=True, order_by="id"
                    )
                )
            except Exception as error:
                if "does not exist" in str(error):
                    return []  # nothing was ever uploaded
                raise
            found += page["items"]
            if len(found) >= page["total"] or not page["items"]:
                return found

    async def _files(self, artifact_id: str) -> list[Record]:
        return await soon(self._manager.list_files(artifact_id, limit=PAGE))


def version_for(artifact_id: str, wanted: str, versions: Sequence[Record], content: str) -> str | None:
    """The name under which a folder is stored, in order: oldest first. None: the newest version is exactly this.

    An app that is sent again with its version number unchanged and its files not is kept as `1.0.0-2`, then `1.0.0-3`:
    the newest one is what is deployed, as its author means, and what runs from `1.0.0` still is what it was. Raises
    BadApp for a version that others have followed.
    """
    names = [one["version"] for one in versions]
    same = re.compile(rf"{re.escape(wanted)}(-\d+)?")
    if not any(same.fullmatch(name) for name in names):
        return wanted
    if not same.fullmatch(names[-1]):
        raise BadApp(
            f"{artifact_id} {wanted} exists, and {names[-1]} came after it; raise `version` in the manifest, "
            f"or deploy {wanted} as it is"
        )
    if content == content_in(versions[-1].get("comment")):
        return None
    return next(name for number in range(2, len(names) + 3) if (name := f"{wanted}-{number}") not in names)


def why_kept(artifact_id: str, version: str, names: Sequence[str]) -> Exception | None:
    """Why a version cannot be deleted, of those there are, oldest first; None when it can."""
    if version not in names:
        return UnknownApp(f"{artifact_id} has no version {version}; there are {', '.join(names) or 'none'}")
    if DEVELOPMENT not in version:
        return Refused(
            f"{artifact_id} {version} is kept for ever; only development versions (1.0.0.dev1) can be deleted"
        )
    if len(names) == 1:
        return Refused(f"{artifact_id} has no version but {version}; delete_app deletes the app")
    if names[-1] != version:
        # Hypha finds files by the position of their version, so all that came later would get the files of another.
        return Refused(f"{names[-1]} came after {artifact_id} {version}; only the newest version can be deleted")
    return None


def comment(content: str) -> str:
    """What a version says of its files, in words that `content_in` reads back."""
    return f"bioengine/v1 content={content}"


def content_in(text: str | None) -> str | None:
    """The digest of its files that a version names; None when it is not one that a worker stored."""
    found = _CONTENT.match(text or "")
    return found[1] if found else None


def view_config(frontend_entry: str | None) -> dict[str, Any]:
    """How Hypha serves an app's page under `/{workspace}/view/{alias}/`."""
    if not frontend_entry:
        return {}
    folder, _, index = frontend_entry.rpartition("/")
    return {"view_config": {"branch": "main", "root_directory": folder, "headers": {}, "index": index}}


async def sizes(manager: Any, artifact_id: str, folder: str = "", **which: Any) -> dict[str, int]:
    """Size by path, sub-folders included. `which`: `version="1"` or `stage=True`."""
    found: dict[str, int] = {}
    below: list[str] = []
    for offset in range(0, MAX_FILES + PAGE, PAGE):
        items = await soon(manager.list_files(artifact_id, dir_path=folder or None, limit=PAGE, offset=offset, **which))
        for item in items:
            path = inside(f"{folder}/{item['name']}".lstrip("/"))
            if item["type"] == "directory":
                below.append(path)
            else:
                found[path] = int(item["size"])
        if len(items) < PAGE:
            break
    for path in below:
        found |= await sizes(manager, artifact_id, path, **which)
    return found


async def soon(question: Any) -> Any:
    """The answer, within a time that is always enough. Raises TimeoutError."""
    return await asyncio.wait_for(question, TIMEOUT_S)


def is_missing(error: Exception) -> bool:
    """Not there, or not for us to see: Hypha says it in several ways."""
    words = ("does not exist", "not found", "does not have", "Permission denied")
    return any(one in str(error) for one in words)


def plain(record: Any) -> dict[str, Any]:
    """A record without the types of hypha-rpc."""
    return record.toDict() if hasattr(record, "toDict") else dict(record)


def _require_app(artifact_id: str, record: Record) -> None:
    if record.get("type") != APPLICATION:
        raise Refused(f"{artifact_id} is a {record.get('type')} and no app; it is left as it is")
