"""What a webhook tells, as far as it concerns us: that some branch or tag of some repository moved.

Law: nothing in it is ever fetched, run or shown; it is only compared with what we follow already.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit


class Malformed(Exception):
    """Not a webhook as any of the known senders makes it."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What we look at: the repository's path (`lab/apps`; None for a folder, whose name says nothing of what a forge
    calls it), and the branch or tag; None is the default branch, or what is checked out in the folder."""

    path: str | None
    ref: str | None

    @classmethod
    def of(cls, url: str, ref: str | None) -> Followed:
        """From the address of the source, whatever its form: https, ssh, `git@host:lab/apps.git`, a folder."""
        split = urlsplit(url)
        user, at, rest = url.partition("/")[0].partition("@")
        if split.scheme:
            path = split.path
        elif user and at and ":" in rest:
            path = url.partition(":")[2]
        else:
            return cls(None, ref)
        return cls(path.strip("/").removesuffix(".git"), ref)


@dataclass(frozen=True, slots=True)
class Push:
    """A branch or tag that moved; `repository` is its owner and name, as far as it is told."""

    repository: str | None
    ref: str | None
    default_branch: str | None

    def concerns(self, followed: Followed) -> bool:
        """Whether it may have moved what we follow. What is not told may be it: a look too many costs little."""
        if followed.path is not None and self.repository and not _ends_with(followed.path, self.repository):
            return False
        if self.ref is None:
            return True
        wanted = followed.ref or (self.default_branch if followed.path is not None else None)
        return wanted is None or wanted in (
            self.ref,
            self.ref.removeprefix("refs/heads/"),
            self.ref.removeprefix("refs/tags/"),
        )


def read(body: bytes) -> Push:
    """Raises Malformed."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("not JSON") from None
    if not isinstance(told, dict):
        raise Malformed("not a JSON object")
    event = cast("dict[str, Any]", told)
    repository = _table(event, "repository") or {}
    project = _table(event, "project") or {}
    return Push(
        repository=_text(repository, "full_name") or _text(project, "path_with_namespace"),
        ref=_text(event, "ref"),
        default_branch=_text(repository, "default_branch") or _text(project, "default_branch"),
    )


def _table(event: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    found = event.get(name)
    if found is not None and not isinstance(found, dict):
        raise Malformed(f"{name} is not an object")
    return cast("Mapping[str, Any] | None", found)


def _text(table: Mapping[str, Any], name: str) -> str | None:
    found = table.get(name)
    if found is not None and not isinstance(found, str):
        raise Malformed(f"{name} is not a text")
    return found


def _ends_with(path: str, repository: str) -> bool:
    return f"/{path}".lower().endswith(f"/{repository.strip('/')}".lower())
