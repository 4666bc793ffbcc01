"""From entries of a git tree to folders: what may be read, and what is never followed. Commit and work tree alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.adapters.git.process import NotReadable
from reconciler.errors import SourceUnusable
from reconciler.planning.source import CLUSTER_FILE, Blob, Folder

APPS = "apps"
MAX_ENTRIES = 200_000

SYMLINK, GITLINK, TREE, EXECUTABLE = "120000", "160000", "040000", "100755"


class Entry(NamedTuple):
    """One line of `git ls-tree -r -t -l`; the path is relative to the folder that holds cluster.yaml."""

    mode: str
    oid: str
    size: int
    path: bytes


@dataclass(slots=True)
class Listing:
    """What one tree holds, as far as it concerns us."""

    beside: dict[str, Blob] = field(default_factory=dict[str, Blob])
    folders: dict[str, Folder] = field(default_factory=dict[str, Folder])
    refused: dict[str, str] = field(default_factory=dict[str, str])


def parse_ls_tree(output: bytes, prefix: str) -> list[Entry]:
    """Entries of `ls-tree -r -t -l -z --full-tree`, those below `prefix` only."""
    lines = output.split(b"\0")
    if len(lines) > MAX_ENTRIES:
        raise SourceUnusable(f"more than {MAX_ENTRIES} files", hint="name a sub-folder with --path")
    start = f"{prefix}/".encode() if prefix else b""
    entries: list[Entry] = []
    for line in lines:
        head, tab, path = line.partition(b"\t")
        if tab and path.startswith(start):
            mode, _, oid, size = head.decode("ascii").split()
            entries.append(Entry(mode, oid, _bytes(size), path[len(start) :]))
    return entries


def _bytes(size: str) -> int:
    if size == "BAD":
        raise NotReadable("the repository lacks objects of this commit", hint="clone it in full, without --filter")
    return 0 if size == "-" else int(size)


def listing(entries: Iterable[Entry]) -> Listing:
    """Folders with their files; symbolic links, submodules and undecodable names are named with the reason."""
    result = Listing()
    trees: dict[str, str] = {}
    files: dict[str, dict[str, Blob]] = {}
    refused: dict[str, dict[str, str]] = {}
    for entry in entries:
        path, reason = _decoded(entry)
        parts = path.split("/", 2)
        if parts[0] != APPS:
            _root_entry(result, entry, path, reason)
        elif len(parts) == 1:
            if reason or entry.mode != TREE:
                result.refused[path] = reason or "not a folder"
        elif len(parts) == 2:
            if entry.mode == TREE:
                trees[path] = entry.oid
            elif reason:
                result.refused[path] = reason
        elif reason:
            refused.setdefault(f"{APPS}/{parts[1]}", {})[parts[2]] = reason
        elif entry.mode != TREE:
            blob = Blob(entry.oid, entry.size, entry.mode == EXECUTABLE)
            files.setdefault(f"{APPS}/{parts[1]}", {})[parts[2]] = blob
    for path, tree in trees.items():
        result.folders[path] = Folder(path, tree, files.get(path, {}), refused.get(path, {}))
    return result


def _root_entry(result: Listing, entry: Entry, path: str, reason: str) -> None:
    if path in MISNAMED:
        result.refused[path] = f"must be named {CLUSTER_FILE}"
    elif not path.endswith(".yaml") or "/" in path:
        return
    elif reason or entry.mode == TREE:
        result.refused[path] = reason or "a folder; expected a file"
    else:
        result.beside[path] = Blob(entry.oid, entry.size)


MISNAMED = ("cluster.yml",)


def _decoded(entry: Entry) -> tuple[str, str]:
    """The path as text, and why the entry is refused ("" when it is not)."""
    try:
        path, reason = entry.path.decode(), ""
    except UnicodeDecodeError:
        path, reason = entry.path.decode(errors="backslashreplace"), "its name is not UTF-8"
    if entry.mode == SYMLINK:
        reason = "a symbolic link; links are never followed"
    elif entry.mode == GITLINK:
        reason = "a submodule; submodules are never fetched"
    return path, reason
