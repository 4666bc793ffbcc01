"""Contents of git objects, many per process, kept by id: equal ids mean equal content, in any repository."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from reconciler.adapters.git.process import MIB, Git, GitFailed, NotReadable
from reconciler.planning.source import Folder

MAX_ANSWER = 256 * MIB
_COMPANIONS = 16 * MIB


class Objects:
    """Contents of one commit. A file that is asked for brings the rest of its folder along: one process, not many."""

    def __init__(self, git: Git, folders: Iterable[Folder] = ()) -> None:
        self._git = git
        self._folder_of = {blob.oid: folder for folder in folders for blob in folder.files.values()}

    def prefetch(self, commit: str, oids: Iterable[str] = ()) -> bytes:
        """Read the blobs into the cache; the commit object itself is the result."""
        return self._batch([commit, *(oid for oid in oids if _CACHE.get(oid) is None)])[commit]

    def read(self, oid: str) -> bytes:
        """Bytes of a blob. Raises NotReadable when the repository does not have it."""
        data = _CACHE.get(oid)
        return data if data is not None else self._batch([oid, *self._companions(oid)])[oid]

    def _companions(self, oid: str) -> list[str]:
        folder = self._folder_of.get(oid)
        if folder is None or folder.size > _COMPANIONS:
            return []
        return [blob.oid for blob in folder.files.values() if blob.oid != oid and _CACHE.get(blob.oid) is None]

    def _batch(self, oids: Sequence[str]) -> dict[str, bytes]:
        asked = "".join(f"{oid}\n" for oid in dict.fromkeys(oids)).encode()
        try:
            output = self._git("cat-file", "--batch", "--buffer", stdin=asked, timeout=60, limit=MAX_ANSWER)
        except GitFailed as error:
            raise NotReadable(f"the repository cannot be read: {error.text}") from None
        found: dict[str, bytes] = {}
        position = 0
        while position < len(output):
            end = output.index(b"\n", position)
            oid, kind, *size = output[position:end].decode("ascii").split()
            if not size:
                raise NotReadable(f"object {oid} is {kind} from the repository", hint="clone it again, in full")
            position = end + 1 + int(size[0])
            found[oid] = output[end + 1 : position]
            if kind == "blob":
                _CACHE.put(oid, found[oid])
            position += 1
        return found


class _Cache:
    """Contents by object id, the least recently used dropped first."""

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._items: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, oid: str) -> bytes | None:
        with self._lock:
            data = self._items.get(oid)
            if data is not None:
                self._items.move_to_end(oid)
            return data

    def put(self, oid: str, data: bytes) -> None:
        with self._lock:
            if oid in self._items or len(data) > self._limit // 4:
                return
            self._items[oid] = data
            self._size += len(data)
            while self._size > self._limit:
                self._size -= len(self._items.popitem(last=False)[1])


_CACHE = _Cache(64 * MIB)
