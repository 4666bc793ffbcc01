"""How each forge is told of a commit's status: GitHub, GitLab, Gitea and Forgejo.

Sources: GitHub REST "Commit statuses", GitLab API "Commits: set commit pipeline status", Gitea API
"repoCreateStatus". The token goes into a header, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from urllib.parse import quote, urlsplit

from reconciler.errors import ReconcilerError, Remedy
from reconciler.planning.shown import plain

State = Literal["pending", "success", "failure"]
"""What all of them know."""
DESCRIPTION_LIMIT = 140
"""GitHub's; the others allow more."""

_REPOSITORY = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)+")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class Forge(StrEnum):
    """Closed: whom we can tell."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"
    FORGEJO = "forgejo"


class NoForge(ReconcilerError):
    """It cannot be told where the statuses of this repository are kept."""

    remedy = Remedy.OPERATOR


@dataclass(frozen=True, slots=True)
class Commits:
    """One repository at its forge. `api` is the root of its API, `path` owner and name."""

    forge: Forge
    api: str
    path: str

    @classmethod
    def of(cls, forge: Forge, repository: str, api: str = "") -> Commits:
        """From the address of the repository, as it is cloned from. `api` when that is elsewhere. Raises NoForge."""
        host, path = _host_and_path(repository)
        if not host or not _REPOSITORY.fullmatch(path):
            hint = "Commit statuses need a repository at a forge: https://host/owner/name."
            raise NoForge(f"{plain(path, 100)!r} is no repository at a forge", hint=hint)
        return cls(forge, (api or _api(forge, host)).rstrip("/"), path)

    def url(self, commit: str) -> str:
        """Where the status of one commit is put. Raises NoForge for what is no commit."""
        if not _COMMIT.fullmatch(commit):
            raise NoForge(f"{plain(commit, 80)!r} is no commit")
        if self.forge is Forge.GITLAB:
            return f"{self.api}/projects/{quote(self.path, safe='')}/statuses/{commit}"
        return f"{self.api}/repos/{self.path}/statuses/{commit}"

    def content(self, state: State, context: str, description: str, target_url: str = "") -> Mapping[str, str]:
        named = {"name" if self.forge is Forge.GITLAB else "context": context}
        status = "failed" if self.forge is Forge.GITLAB and state == "failure" else state
        link = {"target_url": target_url} if target_url else {}
        return {"state": status, **named, "description": plain(description, DESCRIPTION_LIMIT), **link}

    def headers(self, token: str) -> Mapping[str, str]:
        """Secret."""
        return {"User-Agent": "reconcile", **_PROOF[self.forge](token)}


_PROOF: Mapping[Forge, Callable[[str], Mapping[str, str]]] = {
    Forge.GITHUB: lambda token: {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"},
    Forge.GITLAB: lambda token: {"PRIVATE-TOKEN": token},
    Forge.GITEA: lambda token: {"Authorization": f"token {token}"},
    Forge.FORGEJO: lambda token: {"Authorization": f"token {token}"},
}


def _api(forge: Forge, host: str) -> str:
    if forge is Forge.GITHUB:
        return "https://api.github.com" if host == "github.com" else f"https://{host}/api/v3"
    return f"https://{host}/api/{'v4' if forge is Forge.GITLAB else 'v1'}"


def _host_and_path(repository: str) -> tuple[str, str]:
    """Of https://host[:port]/path, ssh://git@host/path and git@host:path. The port of ssh is not that of the API."""
    split = urlsplit(repository)
    if split.scheme in ("https", "http"):
        host, path = split.netloc.rpartition("@")[2], split.path
    elif split.scheme == "ssh":
        host, path = split.hostname or "", split.path
    elif "@" in repository.partition(":")[0]:
        host, path = repository.partition(":")[0].rpartition("@")[2], repository.partition(":")[2]
    else:
        return "", repository
    return host, path.strip("/").removesuffix(".git")
