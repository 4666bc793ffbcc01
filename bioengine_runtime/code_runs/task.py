"""The part of a run that lies on a node, in a Ray task: starts the code's process, passes on what it prints, ends it.

The Ray process itself runs none of the code: it is reused, and connected to the cluster. Law: nothing secret is
inherited. The environment is built from nothing, out of what is listed here and what the caller has set.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping

from bioengine_runtime.code_runs.child import LENGTH
from bioengine_runtime.local.home import HOME_MARKER

KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "TZ"),
    *("PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "CUDA_HOME"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    # The code may use the cluster's Ray. The variable with the value of its token is not among these.
    *("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"),
    HOME_MARKER,  # by which it is found when everything else was killed
)
DEVICES = "_VISIBLE_DEVICES"
"""End of the variables by which Ray says which GPUs are whose."""
OUTPUT_LIMIT = 10 * 1024**2
LOOK_EVERY_S = 0.1
DRAIN_S = 1.0
AT_ONCE = 64 * 1024

Event = tuple[str, bytes]
"""started · stdout or stderr with what was printed · full: no more of that · answer · ended with the reason."""


def run_in_child(job: bytes, ray_address: str, given: Collection[str]) -> Iterator[Event]:
    """Run a job in a process of its own. `given`: variables the caller has set. Ended early, it ends the process."""
    _can_be_interrupted()
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "bioengine_runtime.code_runs.child", str(write)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, pass_fds=[write],
        env={**environment(os.environ, given), "RAY_ADDRESS": ray_address}, start_new_session=True,
    )  # fmt: skip
    os.close(write)
    assert process.stdin and process.stdout and process.stderr
    try:
        with contextlib.suppress(BrokenPipeError):  # it has ended already, and how is what counts
            process.stdin.write(LENGTH.pack(len(job)))
            _write_all(process.stdin.fileno(), job)
        yield "started", b""
        names = {process.stdout.fileno(): "stdout", process.stderr.fileno(): "stderr", read: "answer"}
        answer, left = bytearray(), OUTPUT_LIMIT
        for name, part in _parts(process, names):
            if name == "answer":
                answer += part
            elif left:  # what comes after is read and forgotten: the code is not to wait for anybody
                yield name, part[:left]
                left -= len(part[:left])
                if not left:
                    yield "full", b""
        yield ("answer", bytes(answer)) if answer else ("ended", _how(process).encode())
    finally:
        # The process leads a group of its own, so this is all that it has started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(read)
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


def _can_be_interrupted() -> None:
    """Ray cancels a task as Ctrl-C would. Where Ray was started in the background of a script, that is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def environment(inherited: Mapping[str, str], given: Collection[str]) -> dict[str, str]:
    """What the code sees of the variables of the Ray process."""
    return {name: value for name, value in inherited.items() if name in KEPT or name in given or name.endswith(DEVICES)}


def _parts(process: subprocess.Popen[bytes], names: Mapping[int, str]) -> Iterator[Event]:
    """What comes out of the process, as it comes. What it leaves behind may hold its pipes: nobody waits for that."""
    drained_by: float | None = None
    with selectors.DefaultSelector() as selector:
        for pipe in names:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            if drained_by is None and process.poll() is not None:
                drained_by = time.monotonic() + DRAIN_S
            # Ray's way of interrupting us does not interrupt a system call.
            ready = selector.select(LOOK_EVERY_S if drained_by is None else 0)
            for key, _ in ready:
                if part := os.read(key.fd, AT_ONCE):
                    yield names[key.fd], part
                else:
                    selector.unregister(key.fd)
            if drained_by and (not ready or time.monotonic() > drained_by):
                return


def _write_all(pipe: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(pipe, rest) :]


def _how(process: subprocess.Popen[bytes]) -> str:
    """How the process ended that has given no answer."""
    try:
        code = process.wait(1)
    except subprocess.TimeoutExpired:
        return "the code has closed the pipes of its process, so nothing can be known of its result"
    if code >= 0:
        return f"the code ended its process with exit code {code} before the function returned"
    name = signal.Signals(-code).name
    hint = "; the system does that when memory is short" if name == "SIGKILL" else ""
    return f"the process of the code was ended by {name} before the function returned{hint}"
