"""Which commit a name stands for, here or on a server. A name that vanished is an error, never an empty answer."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from reconciler.adapters.git.address import is_commit
from reconciler.adapters.git.process import Git, GitFailed
from reconciler.errors import SourceUnusable

NO_COMMIT = "0" * 40
"""Stands for the commit of a repository that has none yet."""


def local_commit(git: Git, ref: str | None, url: str, *, unborn_is_fine: bool) -> tuple[str, str]:
    """(ref as shown, commit id) of what is followed in a local repository."""
    if ref is None:
        return _local_head(git, url, unborn_is_fine=unborn_is_fine)
    names = (
        [ref]
        if ref.startswith("refs/")
        else [f"refs/{kind}/{ref}" for kind in ("heads", "tags", "remotes/origin", "remotes")]
    )
    lines = git("for-each-ref", "--format=%(refname)", *names).decode().splitlines()
    name = only_one(ref, [name for name in names if name in lines])
    commit = commit_of(git, name or ref) if name or is_commit(ref) else None
    if commit is None:
        raise no_such_ref(ref, url, _branches_and_tags(git))
    return ref, commit


def _local_head(git: Git, url: str, *, unborn_is_fine: bool) -> tuple[str, str]:
    try:
        commit, name = git("rev-parse", "HEAD^{commit}", "--symbolic-full-name", "HEAD").decode().split()
    except GitFailed:
        if unborn_is_fine:
            return "HEAD", NO_COMMIT
        raise SourceUnusable(f"{url} has no commits", hint="commit something, or use --worktree") from None
    return name.removeprefix("refs/heads/"), commit


def commit_of_branch(git: Git, branch: str, url: str) -> str:
    """Commit of the branch that HEAD named when it was looked at first. Raises SourceUnusable while HEAD is detached:
    somebody is in the middle of something, and what was read last stands until they are done."""
    try:
        git("symbolic-ref", "--quiet", "HEAD")
    except GitFailed:
        raise SourceUnusable(
            f"HEAD of {url} is detached, as in a rebase, a bisect or a checkout of one commit; what was read of "
            f"{branch} last stays in force",
            hint=f"finish it, or leave it with: git switch {branch}; who never waits for it starts with --ref {branch}",
        ) from None
    commit = commit_of(git, f"refs/heads/{branch}")
    if commit is None:
        raise no_such_ref(branch, url, _branches_and_tags(git))
    return commit


def commit_of(git: Git, name: str) -> str | None:
    """The commit a name or (shortened) id stands for; None when the repository does not have it."""
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").decode().strip()
    except GitFailed:
        return None


def _branches_and_tags(git: Git) -> list[str]:
    return git("for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags").decode().splitlines()


def is_ancestor(git: Git, older: str, newer: str) -> bool:
    try:
        git("merge-base", "--is-ancestor", older, newer)
    except GitFailed:
        return False
    return True


def is_shallow(git: Git) -> bool:
    """Whether older commits are missing on purpose."""
    return git("rev-parse", "--is-shallow-repository").strip() == b"true"


def only_one(ref: str, names: Sequence[str]) -> str | None:
    """The full name meant; a branch and a tag of one name are not told apart by guessing."""
    if len(names) > 1 and names[1].startswith("refs/tags/"):
        raise SourceUnusable(f"{ref} is a branch and a tag", hint=f"say which: refs/heads/{ref} or refs/tags/{ref}")
    return names[0] if names else None


def no_such_ref(ref: str, url: str, known: Iterable[str]) -> SourceUnusable:
    """A vanished branch: nothing may be concluded from it, least of all that apps should stop."""
    short = [name.removeprefix("refs/heads/").removeprefix("refs/tags/") for name in known]
    near = difflib.get_close_matches(ref, short, n=1)
    return SourceUnusable(
        f"{url} has no branch, tag or commit {ref}; nothing is changed or removed",
        hint=f'did you mean "{near[0]}"?' if near else "push it, or name another with --ref",
    )
