"""Which commit last touched each folder. It only explains: a plan without it is still right."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from reconciler.adapters.git.listing import APPS
from reconciler.adapters.git.process import Git, GitFailed
from reconciler.errors import SourceUnusable, Unreachable
from reconciler.planning.source import CLUSTER_FILE

_COMMITS_LOOKED_AT = 300

Changes = dict[str, tuple[str, str]]
"""Folder (or cluster.yaml) → the newest commit (id, subject) that touched it."""


def changes(git: Git, span: str, prefix: str, files: Sequence[str] = (CLUSTER_FILE,)) -> Changes:
    """Of the commits in `span` (a commit, or older..newer), at most the newest few hundred that touched anything.
    `files` are those that together say what the cluster runs; all count as cluster.yaml."""
    paths = [f":(top,literal){prefix}/{name}" if prefix else f":(top,literal){name}" for name in (*files, APPS)]
    options = ("--format=%x01%H%x00%s", "--name-only", "-z", "--no-renames", "--no-ext-diff", "--no-textconv")
    try:
        output = git(
            "log", *options, f"--max-count={_COMMITS_LOOKED_AT}", "--end-of-options", span, "--", *paths, timeout=10
        )
    except (GitFailed, Unreachable, SourceUnusable):
        return {}
    return _newest(output.decode(errors="replace"), f"{prefix}/" if prefix else "")


def subject_of(commit: bytes) -> str:
    """First line of the message of a commit object."""
    return shown(commit.partition(b"\n\n")[2].decode(errors="replace").strip().partition("\n")[0])


def shown(text: str) -> str:
    """The text without characters that a terminal would obey, at most 200 long."""
    return "".join(" " if unicodedata.category(c)[0] == "C" else c for c in text[:200]).strip()


def _newest(log: str, start: str) -> Changes:
    newest: Changes = {}
    for record in log.split("\x01"):
        commit, _, rest = record.partition("\0")
        if not re.fullmatch(r"[0-9a-f]{40,64}", commit):
            continue  # a file name or subject with the separator in it
        subject, *names = rest.split("\0")
        for name in names:
            path = name.lstrip("\n").removeprefix(start)
            key = "/".join(path.split("/")[:2]) if path.startswith(f"{APPS}/") else CLUSTER_FILE
            if path:
                newest.setdefault(key, (commit, shown(subject)))
    return newest
