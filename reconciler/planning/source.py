"""SourceTree: one commit as values. Objects are named by their git ids, so equal ids mean equal content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CLUSTER_FILE = "cluster.yaml"


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose commits are believed, said outside the repository; nothing said: everybody's who can push."""

    allowed_signers: Path | None = None
    gnupg_home: Path | None = None

    def __bool__(self) -> bool:
        return self.allowed_signers is not None or self.gnupg_home is not None


EVERYBODY = Trust()


@dataclass(frozen=True, slots=True)
class Revision:
    """Which commit of which repository, and which of its folders (`path`) and cluster files (`file`). `url` carries no
    credentials; `signature` says by whom it is signed, when that was checked."""

    url: str
    ref: str
    commit: str
    subject: str = ""
    worktree: bool = False
    signature: str = ""
    path: str = ""
    file: str = CLUSTER_FILE
    away: str = ""
    """Why the repository could not be read since; what is said here was so when it last could."""

    @property
    def short(self) -> str:
        """`main@sha1:9c1e7d2`, with `+worktree` when uncommitted files were read; of a commit asked for by its whole id
        no more than `sha1:9c1e7d2`."""
        name = "" if self.ref == self.commit else f"{self.ref}@"
        return f"{name}sha1:{self.commit[:7]}" + ("+worktree" if self.worktree else "")

    @property
    def id(self) -> str:
        return self.commit + ("+worktree" if self.worktree else "")


@dataclass(frozen=True, slots=True)
class Blob:
    """One file: its git blob id, its size in bytes, and whether it is executable."""

    oid: str
    size: int
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Folder:
    """One app folder: its git tree id and its files by path relative to it.

    `refused` names entries that are never followed (symlinks, submodules), with the reason.
    """

    path: str
    tree: str
    files: Mapping[str, Blob]
    refused: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def size(self) -> int:
        return sum(blob.size for blob in self.files.values())


@dataclass(frozen=True, slots=True)
class SourceTree:
    """What one commit says: cluster.yaml and the app folders. `read` gives the bytes of a blob id.

    `name` is the cluster's file (`--cluster`), `cluster_file` its blob, `beside` all YAML files of its folder by name.
    `changed` maps a folder to the newest commit (id, subject) that touched it, when known. `refused` names entries
    beside the folders that are never followed. `rewritten` says that the commit seen before is not part of this one's
    history: somebody force-pushed. `contains` says whether a commit is part of this one's history; True as well when
    nobody can tell.
    """

    revision: Revision
    cluster_file: Blob | None
    folders: Mapping[str, Folder]
    read: Callable[[str], bytes]
    changed: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, "tuple[str, str]"])
    refused: Mapping[str, str] = field(default_factory=dict[str, str])
    rewritten: bool = False
    contains: Callable[[str], bool] = field(default=lambda _: True)
    name: str = CLUSTER_FILE
    beside: Mapping[str, Blob] = field(default_factory=dict[str, Blob])
