"""What a reconciler remembers, on Hypha's artifact manager: manifests only, outside of the applications collection.

Law: others can write in the workspace, too. So all of it is sealed with the key of this installation, and what does not
fit its seal, is of a newer form, older than what we saw ourselves, or gone since, is not known; it is never taken for
nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from reconciler.adapters.hypha import HyphaSession, RemoteError
from reconciler.errors import Spoiled, Unreachable, Vanished
from reconciler.failpoint import side_effect
from reconciler.history import RECALLED, Outbox
from reconciler.planning.memory import NOTHING, Entry, Remembered

MANAGER = "public/artifact-manager"
SCHEMA = "reconcile.memory/v1"
MOST_BATCHES = 1000
PAGE = 100


@dataclass(frozen=True, slots=True)
class _Counted(Remembered):
    """`count` grows with each writing: an older one that somebody put back has a seal that fits, and a lower count."""

    count: int = 0


_COUNTED: TypeAdapter[_Counted] = TypeAdapter(_Counted)
_ENTRIES: TypeAdapter[tuple[Entry, ...]] = TypeAdapter(tuple[Entry, ...])
Value = TypeVar("Value")
Form = TypeVar("Form", bound=BaseModel)


class _Sealed(BaseModel):
    """The manifest. `body` is JSON as text: so its bytes, which the seal is of, come back as they were."""

    name: str
    description: str = ""
    schema_: str
    body: str
    seal: str


class _Record(BaseModel):
    """What we read of an artifact as Hypha tells it; the manifest is whatever somebody wrote."""

    id: str
    created_at: float = 0.0
    manifest: Any = None


class _Page(BaseModel):
    items: list[_Record]
    total: int


class HyphaMemory:
    """One cluster's. `key` gives the key of this installation; None: there is none here.

    Without a key nothing can be checked. Who only reads takes what is there as it is. Who writes has `new_key`, which
    makes one: for the first writing, or to start anew; what another key has sealed is not known to them.
    """

    def __init__(
        self,
        session: HyphaSession,
        cluster: str,
        key: Callable[[], bytes | None],
        *,
        new_key: Callable[[], bytes] | None = None,
        timeout_s: float = 20.0,
    ) -> None:
        self._session = session
        self._cluster = cluster
        self._alias = f"reconcile-{cluster}"
        self._shelf = f"reconcile-history-{cluster}"
        self._key = key
        self._new_key = new_key
        self._timeout_s = timeout_s
        self._count = 0
        self._last = NOTHING
        self._outbox = Outbox(lambda: self.history(RECALLED), self._send)

    async def read(self) -> Remembered:
        before = self._count  # not the one of now when the answer comes, which may be on its way while we write
        try:
            answer = await self._ask("read", artifact_id=await self._id(self._alias), silent=True)
        except RemoteError as error:
            if not _is_missing(error):
                raise self._refused("cannot be read", error) from None
            if before:
                why = f"{self._alias} is gone: somebody deleted it, or Hypha lost what it had stored"
                raise Vanished(why, self._last, hint=_GONE_HINT) from None
            return NOTHING
        counted = self._opened(self._understood(_Record, answer), _COUNTED)
        if counted.count < before:
            raise Spoiled(f"{self._alias} is older than what was read before: somebody put it back", hint=_OLDER_HINT)
        remembered = Remembered(counted.holder, counted.orders, counted.seconds, counted.commit)
        if self._key() is not None:
            self._saw(counted.count, remembered)
        return remembered

    async def write(self, remembered: Remembered) -> None:
        await self._write(remembered, await self._key_to_write())

    async def start_anew(self) -> None:
        if self._new_key is None:
            raise Spoiled(f"{self._alias} cannot be written: this installation has no key", hint=_KEY_HINT)
        await self._write(NOTHING, self._new_key())

    async def _write(self, remembered: Remembered, key: bytes) -> None:
        count = self._count + 1
        body = {**asdict(remembered), "count": count}
        manifest = self._sealed(key, self._alias, "What the reconciler remembers", body)
        try:
            with side_effect(f"memory {self._cluster}/remember"):
                await self._edit_or_create(manifest)
        except RemoteError as error:
            raise self._refused("cannot be written", error) from None
        self._saw(count, remembered)

    def _saw(self, count: int, remembered: Remembered) -> None:
        if count >= self._count:
            self._count, self._last = count, remembered

    async def append(self, entries: Sequence[Entry]) -> None:
        await self._outbox.add(entries)

    async def history(self, limit: int, app_id: str = "") -> Sequence[Entry]:
        found: list[Entry] = []
        asked = 0
        while len(found) < limit:
            page = await self._page(asked, PAGE, newest_first=True)
            for record in page.items:
                batch = reversed(self._entries_of(record))
                found += [entry for entry in batch if app_id in ("", entry.app_id)]
            asked += len(page.items)
            if asked >= page.total or not page.items:
                break
        return found[:limit]

    async def _edit_or_create(self, manifest: dict[str, Any]) -> None:
        artifact_id = await self._id(self._alias)
        try:
            await self._ask("edit", artifact_id=artifact_id, manifest=manifest)
            return
        except RemoteError as error:
            if not _is_missing(error):
                raise
        try:
            await self._ask("create", artifact_id=artifact_id, type="generic", manifest=manifest)
        except RemoteError as refused:  # in words of its database, when somebody made it at the same moment
            try:
                await self._ask("edit", artifact_id=artifact_id, manifest=manifest)
            except RemoteError:
                raise refused from None

    async def _send(self, entries: Sequence[Entry]) -> None:
        """One batch. Its name is of its content: sent again because the answer was lost, it is there already."""
        content = [asdict(entry) for entry in entries]
        name = hashlib.sha256(_text(content).encode()).hexdigest()[:24]
        manifest = self._sealed(await self._key_to_write(), f"{self._shelf}-{name}", "Entries of the history", content)
        try:
            with side_effect(f"memory {self._cluster}/note"):
                await self._put_on_shelf(manifest)
            await self._bound()
        except RemoteError as error:
            raise self._refused("takes no history", error) from None

    async def _put_on_shelf(self, manifest: dict[str, Any]) -> None:
        batch = {"alias": manifest["name"], "parent_id": await self._id(self._shelf), "type": "generic"}
        try:
            await self._ask("create", **batch, manifest=manifest)
        except RemoteError as error:
            if _is_there(error):
                return
            if not _is_missing(error):
                raise
            shelf = {"name": self._shelf, "description": f"What was done to {self._cluster}"}
            await self._ask("create", alias=self._shelf, type="collection", manifest=shelf)
            await self._ask("create", **batch, manifest=manifest)

    async def _bound(self) -> None:
        oldest = await self._page(0, 10, newest_first=False)
        for record in oldest.items[: max(0, oldest.total - MOST_BATCHES)]:
            await self._ask("delete", artifact_id=record.id)

    async def _page(self, offset: int, limit: int, *, newest_first: bool) -> _Page:
        """Ids grow with time."""
        asked = {"offset": offset, "limit": limit, "order_by": "id>" if newest_first else "id<"}
        try:
            shelf = await self._id(self._shelf)
            answer = await self._ask("list", parent_id=shelf, **asked, pagination=True, silent=True)
        except RemoteError as error:
            if _is_missing(error):
                return _Page(items=[], total=0)
            raise self._refused("does not show its history", error) from None
        return self._understood(_Page, answer)

    def _entries_of(self, record: _Record) -> tuple[Entry, ...]:
        """One batch that somebody spoiled hides no other; that it is there is said."""
        try:
            return self._opened(record, _ENTRIES)
        except Spoiled as error:
            return (Entry(record.created_at, "unknown", f"entry {record.id}", "spoiled", details={"why": str(error)}),)

    async def _key_to_write(self) -> bytes:
        """Made where nothing is remembered yet. Raises Spoiled when it is another installation's to write."""
        key = self._key()
        if key is None and self._new_key is not None:
            await self.read()
            key = self._new_key()
        if key is None:
            raise Spoiled(f"{self._alias} cannot be written: this installation has no key", hint=_KEY_HINT)
        return key

    def _sealed(self, key: bytes, name: str, description: str, body: Any) -> dict[str, Any]:
        text = _text(body)
        seal = self._seal(key, name, SCHEMA, text)
        return _Sealed(name=name, description=description, schema_=SCHEMA, body=text, seal=seal).model_dump()

    def _opened(self, record: _Record, form: TypeAdapter[Value]) -> Value:
        alias = record.id.rsplit("/", 1)[-1]
        key = self._key()
        if key is None and self._new_key is not None:
            raise Spoiled(f"{record.id} cannot be checked: this installation has no key", hint=self._anew)
        try:
            sealed = _Sealed.model_validate(record.manifest)
        except ValidationError:
            raise Spoiled(f"{record.id} was not written by a reconciler", hint=self._anew) from None
        if sealed.schema_ != SCHEMA:
            hint = "Update this reconciler to the release that wrote it."
            raise Spoiled(f"{record.id} has the form {sealed.schema_[:40]!r}, and we know {SCHEMA}", hint=hint)
        if key is not None and not _is_same(self._seal(key, alias, SCHEMA, sealed.body), sealed.seal):
            why = "was changed by somebody, or written with the key of another installation"
            raise Spoiled(f"{record.id} {why}", hint=self._anew)
        try:
            return form.validate_json(sealed.body)
        except ValidationError as error:
            raise Spoiled(f"{record.id} cannot be understood ({error.error_count()} faults)", hint=self._anew) from None

    def _understood(self, form: type[Form], answer: Any) -> Form:
        try:
            return form.model_validate(answer)
        except ValidationError:
            raise Unreachable(f"the memory of {self._cluster}: Hypha's answer cannot be understood") from None

    @property
    def _anew(self) -> str:
        return f"{_KEY_HINT} Only if that key is lost, and nobody keeps {self._cluster}: reconcile lock --forget"

    def _seal(self, key: bytes, name: str, schema: str, body: str) -> str:
        return hmac.new(key, "\0".join((schema, self._cluster, name, body)).encode(), hashlib.sha256).hexdigest()

    def _refused(self, what: str, error: RemoteError) -> Unreachable:
        said = f"the memory of {self._cluster} {what}: {error.kind}: {error.message[:200]}"
        return Unreachable(
            said, hint="May the token write artifacts of the workspace, and is the workspace persistent?"
        )

    async def _id(self, alias: str) -> str:
        return f"{await self._session.workspace()}/{alias}"

    async def _ask(self, method: str, **arguments: Any) -> Any:
        return await self._session.ask(MANAGER, method, timeout_s=self._timeout_s, **arguments)


_KEY_HINT = (
    "Use the key of the installation that keeps this cluster: secrets/fingerprint.key in its home, or "
    "RECONCILE_KEY_FILE=FILE."
)

_GONE_HINT = (
    "Who keeps this cluster writes it again when the lease is renewed. If nobody does, start the reconciler anew; its "
    "orders are to be given again."
)

_OLDER_HINT = (
    "Somebody writes in the workspace who should not. Stop this reconciler and start it again, and it takes what is "
    "there; orders that are missing are to be given anew."
)


def _is_same(ours: str, theirs: str) -> bool:
    """As bytes: of texts only ASCII can be compared in constant time, and theirs is whatever somebody wrote."""
    return hmac.compare_digest(ours.encode(), theirs.encode())


def _text(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _is_missing(error: RemoteError) -> bool:
    return error.kind == "KeyError" and "does not exist" in error.message


def _is_there(error: RemoteError) -> bool:
    return error.kind == "FileExistsError" or "already exists" in error.message
