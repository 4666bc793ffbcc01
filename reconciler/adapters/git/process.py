"""The one place that starts git, locked down: no hook, filter, helper, prompt or setting of a user or repository runs.

Law: nothing a repository contains or names is executed, whatever its content; every call ends, in time and in size.
"""

from __future__ import annotations

import asyncio
import os
import re
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

from reconciler.adapters.git.address import Address, redacted
from reconciler.errors import ReconcilerError, SourceUnusable, Unreachable

Value = TypeVar("Value")

MIB = 1024 * 1024
_STDERR_KEPT = 16 * 1024
_CHUNK = MIB

_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.askPass=",
    "credential.helper=",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=no",
    "fetch.writeCommitGraph=false",
    "transfer.fsckObjects=true",
    "http.followRedirects=false",  # a redirect would carry credentials to another host
    "protocol.version=2",
    "gc.autoDetach=false",  # nothing runs unowned
    "log.showSignature=false",
    # The switch guards against settings of repositories that belong to somebody else. None of them can run here, and
    # in a CI container the checkout often has another owner.
    "safe.directory=*",
)
_PASSED_ON = (
    "PATH",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "GIT_SSH_COMMAND",
    "GIT_ASKPASS",
    "GIT_SSL_CAINFO",
    "SSL_CERT_FILE",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
)


class GitFailed(Exception):
    """git ended with an error; the text is its own, without credentials."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text or f"git ended with code {code}")
        self.code, self.text = code, text


class NotReadable(SourceUnusable):
    """What is stored here of a repository lacks something, or is not what git stored."""


class GivenUp(Exception):
    """Nobody waits for the answer any more."""


_left: ContextVar[threading.Event | None] = ContextVar("left", default=None)


async def in_thread(work: Callable[[], Value]) -> Value:
    """Run what calls git beside the event loop. Who stops waiting for it ends it within a second, and git with it: a
    program that is to end waits for its threads."""
    left = threading.Event()
    within = _left.set(left)
    try:
        return await asyncio.to_thread(work)
    finally:
        left.set()
        _left.reset(within)


def go_on() -> None:
    """Asked now and then by whoever waits in a thread. Raises GivenUp."""
    if (left := _left.get()) and left.is_set():
        raise GivenUp


@dataclass(frozen=True, slots=True)
class Git:
    """git on one repository. `git_dir` None lets git find it from `cwd`. Without `address` no transport is allowed.
    `variables` are added to git's environment, `settings` to what is set for every call."""

    git_dir: Path | None = None
    cwd: Path | None = None
    address: Address | None = None
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    settings: tuple[str, ...] = ()

    def __call__(
        self,
        *arguments: str,
        stdin: bytes = b"",
        timeout: float = 30.0,
        limit: int = 64 * MIB,
        watch: Callable[[], None] | None = None,
    ) -> bytes:
        """Output of one git command. `watch` is called twice a second and may raise to end it. Raises GitFailed,
        Unreachable when out of time, GivenUp, SourceUnusable when the answer is larger than `limit` bytes."""
        secrets = self.address.secrets if self.address else ()
        with _feed(stdin) as feed, _started(self._command(arguments), self._environment(), self.cwd, feed) as process:
            try:
                output, errors = _read(process, time.monotonic() + timeout, limit, watch)
                code = process.wait(timeout=5)
            except (TimeoutError, subprocess.TimeoutExpired):
                raise Unreachable(f"git {arguments[0]} did not end within {timeout:.0f} s") from None
            except _TooLarge:
                raise SourceUnusable(f"git {arguments[0]} answered with more than {limit // MIB} MiB") from None
        if code:
            raise GitFailed(code, redacted(errors.decode(errors="replace").strip(), secrets))
        return output

    def _command(self, arguments: Sequence[str]) -> list[str]:
        where = [f"--git-dir={self.git_dir}"] if self.git_dir else []
        return [
            "git",
            *(part for setting in (*_SETTINGS, *self.settings) for part in ("-c", setting)),
            *where,
            *arguments,
        ]

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return {
            # ssh must never wait for a person; the operator's own command, if any, wins.
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=15",
            **kept,
            "LC_ALL": "C",
            "HOME": "/nonexistent",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_ALLOW_PROTOCOL": self.address.protocols if self.address else "none",
            **_http_headers(self.address, os.environ),
            **self.variables,
        }


def as_source_error(error: GitFailed, what: str) -> ReconcilerError:
    """What a failed transport means: refused or not there (a person must act), or not reachable now."""
    text, told = error.text, _telling_line(error)
    if any(sign in text for sign in _REFUSED):
        return SourceUnusable(f"{what} may not be read or is not there: {told}", hint="check address and credentials")
    if "redirect" in text or re.search(r"returned error: 30\d", text):
        return SourceUnusable(f"{what} answers with a redirect: {told}", hint="give the address it redirects to")
    if "fsck" in text:
        return SourceUnusable(f"{what} holds objects that git takes for an attack: {told}", hint="run `git fsck` there")
    if "transport '" in text and "not allowed" in text:
        return SourceUnusable(f"{what}: {told}")
    return Unreachable(f"{what} did not answer: {told}")


def _telling_line(error: GitFailed) -> str:
    """Of everything git and ssh say, the line that says why."""
    lines = [line.strip() for line in error.text.splitlines() if line.strip()] or [str(error)]
    for signs in (_REFUSED, ("fsck", "redirect", "Could not resolve"), ("fatal:", "error:")):
        for line in lines:
            if any(sign in line for sign in signs):
                return line
    return lines[-1]


_REFUSED = (
    "Authentication failed",
    "could not read Username",
    "could not read Password",
    "Permission denied",
    "not found",
    "does not appear to be a git repository",
    "not a git repository",
    "Host key verification failed",
)


def _http_headers(address: Address | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Credentials as settings in the environment, which other users of the machine cannot read, bound to their host.

    The operator's own `http.<url>.extraHeader` settings are passed on; no other setting is.
    """
    if address is None or not address.protocols.startswith("http"):
        return {}
    pairs: list[tuple[str, str]] = []
    with suppress(ValueError):
        for number in range(min(int(environ.get("GIT_CONFIG_COUNT", "0")), 64)):
            key = environ.get(f"GIT_CONFIG_KEY_{number}", "")
            if key.lower().startswith("http.") and key.lower().endswith(".extraheader"):
                pairs.append((key, environ.get(f"GIT_CONFIG_VALUE_{number}", "")))
    if address.header:
        origin = "/".join(address.url.split("/")[:3])
        pairs.append((f"http.{origin}/.extraHeader", address.header))
    numbered = {f"GIT_CONFIG_KEY_{number}": key for number, (key, _) in enumerate(pairs)}
    numbered |= {f"GIT_CONFIG_VALUE_{number}": value for number, (_, value) in enumerate(pairs)}
    return {"GIT_CONFIG_COUNT": str(len(pairs)), **numbered}


# ── Bounded running ────────────────────────────────────────────────────────────────────────────────────────────────


class _TooLarge(Exception):
    pass


@contextmanager
def _feed(stdin: bytes) -> Generator[IO[bytes] | int]:
    """Input as a file: a pipe could block both sides when question and answer are long."""
    if not stdin:
        yield subprocess.DEVNULL
        return
    with tempfile.TemporaryFile() as file:
        file.write(stdin)
        file.seek(0)
        yield file


@contextmanager
def _started(
    command: list[str], environment: dict[str, str], cwd: Path | None, feed: IO[bytes] | int
) -> Generator[subprocess.Popen[bytes]]:
    """The running process, which with all its children is gone at the end."""
    try:
        process = subprocess.Popen(
            command,
            stdin=feed,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        if cwd is not None and str(error.filename) == str(cwd):  # a path, as it was given
            hint = "name the folder of a git repository; a saved plan is a file that `reconcile plan --out` wrote"
            raise SourceUnusable(f"{cwd} does not exist", hint=hint) from None
        raise SourceUnusable("git is not installed", hint="install git 2.30 or newer") from None
    except (NotADirectoryError, PermissionError):
        raise SourceUnusable(f"{cwd} cannot be entered", hint="give the folder of a git repository") from None
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _read(
    process: subprocess.Popen[bytes], deadline: float, limit: int, watch: Callable[[], None] | None
) -> tuple[bytes, bytes]:
    """Everything it says, until both of its outputs are closed."""
    assert process.stdout is not None
    assert process.stderr is not None
    parts: list[bytes] = []
    size, errors = 0, b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            go_on()
            for key, _ in selector.select(min(left, 0.5)):
                data = os.read(key.fd, _CHUNK)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    parts.append(data)
                    size += len(data)
                else:
                    errors = (errors + data)[-_STDERR_KEPT:]
            if size > limit:
                raise _TooLarge
            if watch:
                watch()
    return b"".join(parts), errors
