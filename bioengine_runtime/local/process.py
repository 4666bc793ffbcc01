"""One child process: started in a session of its own with a log file, waited for, and stopped with all it started."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bioengine_runtime.local.errors import LocalError
from bioengine_runtime.local.state import ProcessRecord

POLL_SECONDS = 0.1
KILL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Child:
    record: ProcessRecord
    log_file: Path
    process: asyncio.subprocess.Process


async def start_child(what: str, argv: Sequence[str], *, environment: Mapping[str, str], log_file: Path) -> Child:
    """Start `argv` in a session of its own: a Ctrl-C in our terminal is ours to handle, not its."""
    log = _fresh_log(log_file)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise LocalError(
            f"{what} cannot be started: {error}", "check that its environment is set up", log_file
        ) from error
    finally:
        os.close(log)
    return Child(ProcessRecord(what, process.pid, _created(process.pid)), log_file, process)


async def wait_ready(child: Child, is_ready: Callable[[], Awaitable[bool]], *, timeout: float) -> None:
    """Wait until `is_ready`; raises LocalError when the child ends before, or takes longer than `timeout` seconds."""
    what = child.record.what
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if child.process.returncode is not None:
            raise start_failure(child, f"{what} ended with exit code {child.process.returncode} before it was ready")
        if await is_ready() and child.process.returncode is None:
            return
        await asyncio.sleep(POLL_SECONDS)
    raise start_failure(child, f"{what} was not ready after {timeout:.0f} seconds")


def start_failure(child: Child, message: str) -> LocalError:
    return LocalError(message, f"its last lines:\n{last_lines(child.log_file)}", child.log_file)


def last_lines(log_file: Path, count: int = 15) -> str:
    lines = log_file.read_text(errors="replace").splitlines()[-count:]
    return "\n".join(f"    {line}" for line in lines) or "    (the log is empty)"


async def stop_child(child: Child, *, grace_seconds: float) -> None:
    """Ask the child to end, wait, then kill whatever of it and of what it started is still there."""
    family = [child.record, *descendants(child.record)]
    # The child alone, not its group: Ray ends its daemons in order within a second, but waits for ever when they got
    # the signal too.
    leader = running(child.record)
    if leader is not None:
        _ignoring_ended(leader.terminate)
    await _gone(family, grace_seconds)
    # gcs_server can ignore SIGTERM, and replicas leave the group: kill each by pid, if it is still itself.
    await kill_all(family)
    await child.process.wait()


async def kill_all(records: Iterable[ProcessRecord]) -> None:
    """Kill these very processes (never one that got a used pid) and what they started meanwhile; wait, bounded."""
    family = {record.pid: record for record in records}
    for record in list(family.values()):
        family.update((late.pid, late) for late in descendants(record))
    for record in family.values():
        process = running(record)
        if process is not None:
            _ignoring_ended(process.kill)
    await _gone(family.values(), KILL_SECONDS)


def descendants(record: ProcessRecord) -> list[ProcessRecord]:
    process = running(record)
    try:
        children = process.children(recursive=True) if process else []
    except psutil.Error:
        return []
    return [seen for child in children if (seen := record_of(child, record.what)) is not None]


def running(record: ProcessRecord) -> psutil.Process | None:
    """The process that this record means, unless it has ended (a zombie has) or another one got its pid."""
    try:
        process = psutil.Process(record.pid)
        same = abs(process.create_time() - record.created) < 0.1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def record_of(process: psutil.Process, what: str) -> ProcessRecord | None:
    try:
        return ProcessRecord(what, process.pid, process.create_time())
    except psutil.Error:
        return None


async def _gone(records: Iterable[ProcessRecord], timeout: float) -> None:
    remaining = list(records)
    deadline = time.monotonic() + timeout
    while remaining := [record for record in remaining if running(record)]:
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(POLL_SECONDS)


def _ignoring_ended(act: Callable[[], None]) -> None:
    try:
        act()
    except psutil.NoSuchProcess:
        return


def _created(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0  # ended at once: no process can match this record


def _fresh_log(log_file: Path) -> int:
    """An empty log, private to the owner; the previous one is kept beside it."""
    if log_file.exists():
        log_file.replace(log_file.with_suffix(".previous.log"))
    return os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
