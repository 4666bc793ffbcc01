"""A process that has imported what every app imports, and forks for each look at an app's code.

Importing Ray Serve takes over a second; a fork takes milliseconds. One JSON line in, one out. The child that runs the
app's code ends after its answer; the parent never runs any of it.

Law: nothing secret is inherited. The environment is built from nothing, and there is no connection to Ray.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from bioengine_runtime.apps.describing import Description, Request, describe, failed
from bioengine_runtime.apps.layer import packages_in
from bioengine_runtime.local.home import HOME_MARKER

TIME_LIMIT_S = 180.0
OUTPUT_TAIL = 2000
KEPT = (
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "LD_LIBRARY_PATH"),
    HOME_MARKER,  # by which it is found when everything else was killed
)


class Zygote:
    """The warm process and its pipe. Usable from one thread at a time."""

    def __init__(self, layer: str | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bioengine_runtime.apps.zygote"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment(os.environ, layer), text=True, start_new_session=True,
        )  # fmt: skip
        self.loaded = frozenset[str](self._answer())

    def describe(self, request: Request) -> Description:
        """Ask once; raises ChildProcessError when the warm process is gone."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return cast(Description, self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout
        answer = self._process.stdout.readline()
        if not answer:
            raise ChildProcessError(f"the describing process ended with {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """End it and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def environment(inherited: Mapping[str, str], layer: str | None) -> dict[str, str]:
    """What of the variables of the Ray process is there when code is looked at."""
    kept = {name: inherited[name] for name in KEPT if name in inherited}
    return {**kept, "PYTHONPATH": layer} if layer else kept


_warm: Zygote | None = None
_one_at_a_time = threading.Lock()


def describe_in_child(request: Request) -> Description:
    """Describe in a fork of the warm process; in a fresh one when the app has its own version of what that imported."""
    global _warm
    layer = request["layer"]
    with _one_at_a_time:
        _warm = _warm or Zygote()
        try:
            if not layer or packages_in(layer).isdisjoint(_warm.loaded):
                return _warm.describe(request)
        except ChildProcessError:
            _warm.close()
            _warm = None
    fresh = Zygote(layer)
    try:
        return fresh.describe(request)
    finally:
        fresh.close()


def main() -> None:
    """Serve requests from stdin until it closes."""
    for name in ("hypha_rpc.utils.schema", "pydantic", "ray.serve"):
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})), file=answers, flush=True)
    for line in sys.stdin:
        answers.write(json.dumps(_in_fork(json.loads(line))) + "\n")
        answers.flush()


def _in_fork(request: Request) -> Description:
    with tempfile.TemporaryDirectory(prefix="be-look-") as scratch:
        output = Path(scratch, "output")
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            _child(request, scratch, output, write)
        os.close(write)
        answer = _read(read, time.monotonic() + TIME_LIMIT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        printed = output.read_text(errors="replace")[-OUTPUT_TAIL:].strip() if output.exists() else ""
    try:
        description = cast(Description, json.loads(answer or b""))
    except ValueError:
        why = f"took longer than {TIME_LIMIT_S:g} s" if answer is None else f"ended its process with {status}"
        description = failed(f"{request['module']}.py: importing it {why}")
    if description["problem"] and printed:
        description["problem"] += f"\nit printed:\n{printed}"
    return description


def _child(request: Request, scratch: str, output: Path, write: int) -> None:
    """Never returns."""
    try:
        os.setsid()
        os.chdir(scratch)
        os.environ.update(HOME=scratch, TMPDIR=scratch)
        tempfile.tempdir = scratch
        file = os.open(output, os.O_CREAT | os.O_WRONLY, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        answer = describe(request)
        sys.stdout.flush()
        sys.stderr.flush()
        with os.fdopen(write, "wb") as pipe:
            pipe.write(json.dumps(answer).encode())
    finally:
        os._exit(0)


def _read(pipe: int, deadline: float) -> bytes | None:
    """Everything until the other end closes; None when time is up."""
    parts: list[bytes] = []
    try:
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([pipe], [], [], left)[0]:
                return None
            if not (part := os.read(pipe, 1 << 16)):
                return b"".join(parts)
            parts.append(part)
        return None
    finally:
        os.close(pipe)


if __name__ == "__main__":
    main()
