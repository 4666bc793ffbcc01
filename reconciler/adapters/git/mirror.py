"""A remote repository through a bare mirror: ask what the ref is now, fetch only when that is new.

Law: a mirror is a cache. What a killed fetch left in it is cleared away, and a spoiled one is made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from reconciler.adapters.git.address import Address, is_commit
from reconciler.adapters.git.hosts import pinned, public_addresses
from reconciler.adapters.git.process import MIB, Git, GitFailed, NotReadable, as_source_error, go_on
from reconciler.adapters.git.refs import commit_of, no_such_ref, only_one
from reconciler.errors import SourceUnusable, Unreachable

FETCH_TIMEOUT = 300.0
ASK_TIMEOUT = 30.0
MAX_MIRROR = 8 * 1024 * MIB


class Mirror:
    """The mirror of one repository, in a folder of its own below `home`; processes may share it."""

    def __init__(self, home: Path, address: Address, *, deny_private_hosts: bool = False) -> None:
        self._path = home / f"{hashlib.sha256(address.url.encode()).hexdigest()[:20]}.git"
        self._url = address.url
        self._deny_private_hosts = deny_private_hosts
        self._remote = Git(git_dir=self._path, cwd=home, address=address)
        self.git = Git(git_dir=self._path, cwd=home)
        """git on the mirror's objects, without any transport."""

    def newest(self, ref: str | None, seen: str | None) -> tuple[str, str]:
        """(ref as shown, commit id) of what is followed, its objects in the mirror. `seen` is known to be there."""
        self._ensure()
        if ref and len(ref) in (40, 64) and is_commit(ref) and commit_of(self.git, ref) == ref:
            return ref, ref  # a commit id never moves
        answer = self._ask(ref)
        if seen and answer.commit == seen:
            return answer.ref, seen
        with self._writing(), self._locked():
            self._clear_away()
            commit = self._fetch_name(answer.name) if answer.name else self._fetch_commit(answer.ref)
        return answer.ref, commit

    @property
    def spoiled(self) -> bool:
        """Whether what is stored is not what git stored; it reads all of it, so ask only when something is wrong."""
        try:
            self.git("fsck", "--no-dangling", "--no-progress", timeout=FETCH_TIMEOUT)
        except GitFailed:
            return True
        except Unreachable:
            return False  # it is large, and took its time
        return False

    def forget(self) -> None:
        """Throw all of it away; the next question fetches it again."""
        with self._locked():
            shutil.rmtree(self._path, ignore_errors=True)

    def _ensure(self) -> None:
        """A bare repository without templates, so without hooks. Safe to repeat after a crash at any point."""
        if (self._path / "HEAD").exists():
            return
        with self._writing():
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._locked():
                Git()("init", "--quiet", "--bare", "--template=", "--", str(self._path))
                self._path.chmod(0o700)

    def _clear_away(self) -> None:
        """What a fetch that was killed left behind: its locks would stop every later one, its packs fill the disk.
        We hold the only lock that counts, so nobody is at work on them."""
        for place, pattern in (
            ("", "*.lock"),
            ("refs", "**/*.lock"),
            ("objects", "**/tmp_*"),
            ("objects", "incoming-*"),
        ):
            for left in (self._path / place).glob(pattern):
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)

    def _ask(self, ref: str | None) -> _Answer:
        if ref is None:
            return self._ask_default()
        names = [ref] if ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
        commits = self._ls_remote(*names, *(f"{name}^{{}}" for name in names))
        name = only_one(ref, [name for name in names if name in commits])
        if name:
            return _Answer(ref, name, commits.get(f"{name}^{{}}", commits[name]))
        if is_commit(ref):
            return _Answer(ref, "", "")
        raise no_such_ref(ref, self._url, self._ls_remote())

    def _ask_default(self) -> _Answer:
        lines = self._call("ls-remote", "--symref", "--end-of-options", self._url, "HEAD").decode(errors="replace")
        head = [line.removesuffix("\tHEAD") for line in lines.splitlines() if line.endswith("\tHEAD")]
        name = next((item.removeprefix("ref: ") for item in head if item.startswith("ref: ")), "HEAD")
        commit = next((item for item in head if not item.startswith("ref: ")), None)
        if commit is None:
            hint = "push one, or name a branch with --ref"
            raise SourceUnusable(f"{self._url} has no commits on its default branch", hint=hint)
        return _Answer(name.removeprefix("refs/heads/"), name, commit)

    def _ls_remote(self, *names: str) -> dict[str, str]:
        """Full name → object id."""
        output = self._call("ls-remote", "--end-of-options", self._url, *names).decode(errors="replace")
        pairs = (line.partition("\t") for line in output.splitlines())
        return {name: oid for oid, _, name in pairs}

    def _fetch_name(self, name: str) -> str:
        kept = f"refs/reconcile/{hashlib.sha256(name.encode()).hexdigest()[:20]}"
        self._fetch(f"+{name}:{kept}")
        commit = commit_of(self.git, kept)
        if commit is None:
            hint = "name a branch, a tag of a commit, or a commit id"
            raise SourceUnusable(f"{name} of {self._url} is not a commit", hint=hint)
        return commit

    def _fetch_commit(self, ref: str) -> str:
        """A commit by its id. Not every server hands out ids, and none knows short ones: then look at all branches."""
        if commit := commit_of(self.git, ref):
            return commit
        if len(ref) in (40, 64):
            try:
                return self._fetch_name(ref)
            except (SourceUnusable, Unreachable):
                pass
        self._fetch("+refs/heads/*:refs/reconcile/all/heads/*", "+refs/tags/*:refs/reconcile/all/tags/*")
        if commit := commit_of(self.git, ref):
            return commit
        raise no_such_ref(ref, self._url, ())

    def _fetch(self, *specs: str) -> None:
        """Full history of the refs: a shallow mirror could not say which commit changed what, nor see a rewrite."""
        packs = self._path / "objects" / "pack"

        def stay_small() -> None:
            if sum(file.stat().st_size for file in packs.glob("*") if file.exists()) > MAX_MIRROR:
                hint = "keep large data out of git"
                raise SourceUnusable(f"{self._url} is larger than {MAX_MIRROR // MIB} MiB", hint=hint)

        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--end-of-options")
        self._call("fetch", *options, self._url, *specs, timeout=FETCH_TIMEOUT, watch=stay_small)

    def _call(self, *arguments: str, timeout: float = ASK_TIMEOUT, watch: Callable[[], None] | None = None) -> bytes:
        settings = pinned(self._url, public_addresses(self._url)) if self._deny_private_hosts else ()
        try:
            return replace(self._remote, settings=settings)(*arguments, timeout=timeout, watch=watch)
        except GitFailed as error:
            if "No space left on device" in error.text:
                raise self._no_room("No space left on device") from None
            if str(self._path) in error.text:  # it is ours that is at fault, not the remote one
                hint = f"remove {self._path}: it is only a copy"
                raise NotReadable(f"the mirror of {self._url} cannot be used: {error}", hint=hint) from None
            raise as_source_error(error, self._url) from None

    @contextmanager
    def _writing(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise self._no_room(error.strerror or str(error)) from None

    def _no_room(self, why: str) -> Unreachable:
        return Unreachable(
            f"no room for the mirror of {self._url} in {self._path.parent}: {why}",
            hint="make room there, or name another folder with --home",
        )

    @contextmanager
    def _locked(self) -> Generator[None]:
        """One process at a time writes a mirror; the lock ends with its holder, however that ends."""
        deadline = time.monotonic() + FETCH_TIMEOUT
        with self._path.with_suffix(".lock").open("w") as file:
            while not _try_lock(file.fileno()):
                if time.monotonic() > deadline:
                    raise Unreachable(f"another process keeps fetching into {self._path}")
                go_on()
                time.sleep(0.05)
            yield


class _Answer(NamedTuple):
    """What the server says of a ref. `name` and `commit` are "" for a commit id, of which servers say nothing."""

    ref: str
    name: str
    commit: str


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
