"""Uncommitted files of a local repository, named by the ids that git would give them.

Law: a work tree without changes has the same ids as HEAD, so planning it gives the same plan. Where attributes have git
change a file on its way to disk (`eol=crlf`, `filter=lfs`), it counts as changed: it is uploaded as it lies there.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from reconciler.adapters.git.listing import (
    APPS,
    EXECUTABLE,
    GITLINK,
    MAX_ENTRIES,
    SYMLINK,
    TREE,
    Entry,
    Listing,
    listing,
)
from reconciler.adapters.git.process import MIB, Git
from reconciler.errors import SourceUnusable

_MAX_FILE = 256 * MIB
_FILE = "100644"


class WorkTree:
    """The files as they are now: tracked ones, and new ones that git does not ignore."""

    def __init__(self, git: Git, root: Path, prefix: str) -> None:
        self._git, self._root, self._prefix = git, root, prefix
        self._hash = git("rev-parse", "--show-object-format").decode().strip() or "sha1"
        self._paths: dict[str, bytes] = {}

    def listing(self) -> Listing:
        """What the work tree holds now."""
        entries = list(self._entries())
        return listing([*entries, *self._trees(entries)])

    def read(self, oid: str) -> bytes:
        """Bytes of a blob, if the file still has them. Raises SourceUnusable."""
        name = self._paths.get(oid)
        data = _read_file(self._on_disk(name)) if name is not None else b""
        if name is None or self._id("blob", data) != oid:
            raise SourceUnusable("a file changed while it was being read", hint="try again when you have saved it")
        return data

    def _entries(self) -> Iterator[Entry]:
        folder = f"{self._prefix}/" if self._prefix else ""
        plain = re.sub(r"([\\*?\[])", r"\\\1", folder)
        # apart: beside a pattern, git does not tell of repositories inside of this one
        output = self._listed(f":(top,literal){folder}{APPS}")
        output += self._listed(f":(top,glob){plain}*.yaml", f":(top,glob){plain}*.yml")
        names = sorted(set(output.split(b"\0")) - {b""})
        if len(names) > MAX_ENTRIES:
            raise SourceUnusable(f"more than {MAX_ENTRIES} files", hint="name a sub-folder with --path")
        start = f"{self._prefix}/".encode() if self._prefix else b""
        for name in names:
            entry = self._entry(name, name.removeprefix(start).rstrip(b"/"))
            if entry:
                yield entry

    def _listed(self, *wanted: str) -> bytes:
        """Names of files that match, each with a NUL after it."""
        git = Git(git_dir=self._git.git_dir, cwd=self._root)
        options = (f"--work-tree={self._root}", "ls-files", "-co", "--exclude-standard", "--full-name", "-z", "--")
        return git(*options, *wanted)

    def _entry(self, name: bytes, path: bytes) -> Entry | None:
        """None for a tracked file that was deleted."""
        place = self._on_disk(name)
        try:
            status = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISLNK(status.st_mode):
            return Entry(SYMLINK, self._id("blob", os.readlink(place)), 0, path)  # noqa: PTH115 - bytes, as git has them
        if stat.S_ISDIR(status.st_mode):
            return Entry(GITLINK, "0" * len(self._id("blob", b"")), 0, path)
        if not stat.S_ISREG(status.st_mode):
            raise SourceUnusable(f"{os.fsdecode(name)} is neither a file nor a folder", hint="remove it")
        if status.st_size > _MAX_FILE:
            raise SourceUnusable(
                f"{os.fsdecode(name)} is larger than {_MAX_FILE // MIB} MiB", hint="add it to .gitignore"
            )
        data = _read_file(place)
        oid = self._id("blob", data)
        self._paths[oid] = name
        return Entry(EXECUTABLE if status.st_mode & 0o100 else _FILE, oid, len(data), path)

    def _trees(self, entries: list[Entry]) -> list[Entry]:
        """The tree objects git would make of the entries, below apps/ and apps/ itself."""
        children: dict[bytes, dict[bytes, Entry]] = {}
        for entry in entries:
            parent, _, name = entry.path.rpartition(b"/")
            children.setdefault(parent, {})[name] = entry
            while parent:
                parent = parent.rpartition(b"/")[0]
                children.setdefault(parent, {})
        found: list[Entry] = []
        for path in sorted(filter(None, children), key=lambda item: item.count(b"/"), reverse=True):
            tree = Entry(TREE, self._tree_id(children[path]), 0, path)
            parent, _, name = path.rpartition(b"/")
            children[parent][name] = tree
            found.append(tree)
        return found

    def _tree_id(self, children: dict[bytes, Entry]) -> str:
        # git orders a folder as if its name ended in a slash
        order = sorted(children, key=lambda name: name + b"/" if children[name].mode == TREE else name)
        return self._id(
            "tree",
            b"".join(
                f"{children[name].mode.lstrip('0')} ".encode() + name + b"\0" + bytes.fromhex(children[name].oid)
                for name in order
            ),
        )

    def _id(self, kind: str, data: bytes) -> str:
        return hashlib.new(self._hash, f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()

    def _on_disk(self, name: bytes) -> bytes:
        return os.fsencode(self._root) + b"/" + name.rstrip(b"/")


def _read_file(place: bytes) -> bytes:
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise SourceUnusable(f"{os.fsdecode(place)} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        return file.read()
