"""GitSource: the newest commit of a branch, tag or commit id, as a SourceTree read from objects.

A URL is followed through a bare mirror; a local repository is read where it is, with commands that only read objects.
Nothing is ever checked out. Law: one call binds to one commit id, whatever moves meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reconciler.adapters.git.address import address, checked_path, checked_ref
from reconciler.adapters.git.history import Changes, changes, subject_of
from reconciler.adapters.git.listing import APPS, Listing, listing, parse_ls_tree
from reconciler.adapters.git.mirror import Mirror
from reconciler.adapters.git.objects import Objects
from reconciler.adapters.git.process import MIB, Git, GitFailed, NotReadable, in_thread
from reconciler.adapters.git.refs import NO_COMMIT, commit_of_branch, is_ancestor, is_shallow, local_commit
from reconciler.adapters.git.signatures import verify
from reconciler.adapters.git.worktree import WorkTree
from reconciler.errors import SourceUnusable
from reconciler.planning.overlay import Beside, names
from reconciler.planning.source import CLUSTER_FILE, EVERYBODY, Revision, SourceTree, Trust


class GitSource:
    """Implements ports.Source. `path` is the folder inside the repository that holds cluster.yaml.

    A local path may itself be a folder inside a repository; `path` then counts from there. Of a folder that people
    work in, the branch that is checked out at the first look is followed, whatever they check out afterwards.
    `deny_private_hosts`: the repository's host must have public addresses only.
    """

    def __init__(
        self,
        repository: str | Path,
        *,
        ref: str | None = None,
        path: str = "",
        mirror_dir: Path,
        worktree: bool = False,
        trust: Trust = EVERYBODY,
        deny_private_hosts: bool = False,
        cluster: str = CLUSTER_FILE,
    ) -> None:
        self._address = address(str(repository))
        self._ref = checked_ref(ref)
        self._path = checked_path(path)
        self._worktree = worktree
        self._trust = trust
        self._mirror = (
            None if self._address.local else Mirror(mirror_dir, self._address, deny_private_hosts=deny_private_hosts)
        )
        self._cluster = _checked_name(cluster)
        self._lock = threading.Lock()
        self._last: SourceTree | None = None
        self._branch = ""
        if worktree and self._mirror:
            raise SourceUnusable("only a local repository has uncommitted files", hint="leave --worktree out")
        if worktree and self._ref:
            raise SourceUnusable("--worktree reads files as they are and takes no ref", hint="leave --ref out")
        if worktree and trust:
            raise SourceUnusable("uncommitted files are signed by nobody", hint="leave --worktree out, or commit")

    @property
    def url(self) -> str:
        """The repository, without credentials."""
        return self._address.url

    async def fetch(self) -> SourceTree:
        """The newest commit of what is followed. Raises SourceUnusable or Unreachable."""
        return await in_thread(self.fetch_blocking)

    def fetch_blocking(self) -> SourceTree:
        """The same, for callers without an event loop."""
        with self._lock:
            try:
                self._last = self._read()
            except NotReadable:
                if self._mirror is None or not self._mirror.spoiled:
                    raise
                self._mirror.forget()
                self._last = self._read()
            return self._last

    def _read(self) -> SourceTree:
        found = self._find()
        return self._read_worktree(found) if found.root else self._read_commit(found)

    def _find(self) -> _Found:
        if self._mirror is None:
            found = _find_local(Path(self.url), self._ref, self._path, self._branch, worktree=self._worktree)
            self._branch = found.branch
            return found
        seen = self._last.revision.commit if self._last else None
        ref, commit = self._mirror.newest(self._ref, seen)
        return _Found(self._mirror.git, ref, commit, self._path)

    def _read_commit(self, found: _Found) -> SourceTree:
        last = self._last
        if last and (last.revision.commit, last.revision.ref) == (found.commit, found.ref):
            return last
        signature = verify(found.git, found.commit, self._trust) if self._trust else ""
        content = _list_commit(found)
        _refuse_nothing(content, found, self._cluster)
        objects = Objects(found.git, content.folders.values())
        known = {folder.tree for folder in last.folders.values()} if last else set[str]()
        commit = objects.prefetch(found.commit, _worth_reading(content, known, self._cluster))
        rewritten = last is not None and not _contains(found, last.revision.commit)
        return SourceTree(
            revision=Revision(
                self.url,
                found.ref,
                found.commit,
                subject_of(commit),
                signature=signature,
                path=self._path,
                file=self._cluster,
            ),
            cluster_file=content.beside.get(self._cluster),
            folders=content.folders,
            read=objects.read,
            changed=_changes(found, content, None if rewritten else last, self._names(content, objects.read)),
            refused=content.refused,
            rewritten=rewritten,
            contains=lambda commit: _contains(found, commit),
            name=self._cluster,
            beside=content.beside,
        )

    def _read_worktree(self, found: _Found) -> SourceTree:
        assert found.root is not None
        tree = WorkTree(found.git, found.root, found.prefix)
        content = tree.listing()
        _refuse_nothing(content, found, self._cluster)
        unborn = found.commit == NO_COMMIT
        head = Listing() if unborn else _list_commit(found)
        return SourceTree(
            revision=Revision(
                self.url,
                found.ref,
                found.commit,
                "" if unborn else subject_of(Objects(found.git).prefetch(found.commit)),
                worktree=_identity(content) != _identity(head),
                path=self._path,
                file=self._cluster,
            ),
            cluster_file=content.beside.get(self._cluster),
            folders=content.folders,
            read=tree.read,
            changed={} if unborn else _changes(found, content, None, self._names(content, tree.read)),
            refused=content.refused,
            name=self._cluster,
            beside=content.beside,
        )

    def _names(self, content: Listing, read: Callable[[str], bytes]) -> tuple[str, ...]:
        """The cluster's file and all that it extends."""
        blob = content.beside.get(self._cluster)
        if blob is None:
            return (self._cluster,)
        files = {name: one.oid for name, one in content.beside.items()}
        return names(read(blob.oid), self._cluster, Beside(files, read, content.refused))


@dataclass(frozen=True, slots=True)
class _Found:
    """The commit to read, and where its objects are. `prefix` is the folder that holds cluster.yaml; `root` is the
    work tree, when that is to be read instead. `branch` is the one to follow from now on, wherever HEAD goes."""

    git: Git
    ref: str
    commit: str
    prefix: str
    root: Path | None = None
    branch: str = ""


def _find_local(here: Path, ref: str | None, path: str, branch: str, *, worktree: bool) -> _Found:
    try:
        answer = Git(cwd=here)("rev-parse", "--is-bare-repository", "--absolute-git-dir", "--show-prefix")
    except GitFailed as error:
        hint = "run `git init` there and commit, or name another path"
        raise SourceUnusable(f"{here} is not a git repository: {str(error).splitlines()[-1]}", hint=hint) from None
    bare, git_dir, inside = (*answer.decode().splitlines(), "")[:3]
    if worktree and bare == "true":
        raise SourceUnusable(f"{here} is a bare repository and has no work tree", hint="leave --worktree out")
    git = Git(git_dir=Path(git_dir), cwd=here)
    if branch:
        shown, commit = branch, commit_of_branch(git, branch, str(here))
    else:
        shown, commit = local_commit(git, ref, str(here), unborn_is_fine=worktree)
        if ref is None and not worktree and bare == "false" and shown != "HEAD":
            branch = shown
    folders = [part for part in inside.split("/") if part]
    root = here.resolve().joinpath(*[".."] * len(folders)).resolve()
    return _Found(git, shown, commit, "/".join([*folders, path]).strip("/"), root if worktree else None, branch)


def _checked_name(cluster: str) -> str:
    """Raises SourceUnusable for what is no name of a file in the folder."""
    if "/" in cluster or not cluster.endswith(".yaml") or cluster.startswith((".", "-")):
        raise SourceUnusable(f'"{cluster}" is no cluster file', hint="name one like prod.yaml; its folder is --path")
    return cluster


def _refuse_nothing(content: Listing, found: _Found, cluster: str) -> None:
    """An empty source is a mistake, not a wish to stop everything."""
    if content.beside or content.folders or content.refused:
        return
    place = f"{found.prefix}/ of {found.ref}" if found.prefix else found.ref
    raise SourceUnusable(
        f"{place} at {found.commit[:7]} holds neither {cluster} nor {APPS}/; nothing is changed or removed",
        hint=f"commit a {cluster}, or name the folder that holds it with --path",
    )


def _list_commit(found: _Found) -> Listing:
    folder = [f"{found.prefix}/"] if found.prefix else []
    apps = f"{found.prefix}/{APPS}".lstrip("/")
    try:
        output = found.git("ls-tree", "-l", "-z", "--full-tree", found.commit, "--", *folder)
        output += found.git("ls-tree", "-r", "-t", "-l", "-z", "--full-tree", found.commit, "--", apps)
    except GitFailed as error:
        raise NotReadable(
            f"commit {found.commit[:7]} cannot be read: {error}", hint="clone it again, in full"
        ) from None
    return listing(parse_ls_tree(output, found.prefix))


def _contains(found: _Found, commit: str) -> bool:
    """A shallow clone, as pipelines make them, cannot tell."""
    return is_ancestor(found.git, commit, found.commit) or is_shallow(found.git)


def _identity(content: Listing) -> tuple[object, ...]:
    trees = {path: folder.tree for path, folder in content.folders.items()}
    return {name: blob.oid for name, blob in content.beside.items()}, trees, content.refused


def _worth_reading(content: Listing, known: set[str], cluster: str) -> list[str]:
    """Blobs that planning will ask for: cluster.yaml, and manifests and code of folders not seen before."""
    wanted = [content.beside[cluster]] if cluster in content.beside else []
    for folder in content.folders.values():
        if folder.tree not in known:
            wanted += [
                blob
                for path, blob in folder.files.items()
                if path == "manifest.yaml" or (path.endswith(".py") and "/" not in path)
            ]
    return [blob.oid for blob in wanted if blob.size <= MIB]


def _changes(found: _Found, content: Listing, before: SourceTree | None, names: tuple[str, ...]) -> Changes:
    """After a push only the new commits are looked at."""
    span = f"{before.revision.commit}..{found.commit}" if before else found.commit
    newest = {**(before.changed if before else {}), **changes(found.git, span, found.prefix, names)}
    return {path: commit for path, commit in newest.items() if path in content.folders or path == CLUSTER_FILE}
