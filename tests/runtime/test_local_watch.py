"""What the embedded default does when something of it dies."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from bioengine_runtime.local import watch
from bioengine_runtime.local.errors import LocalError
from bioengine_runtime.local.home import open_home
from bioengine_runtime.local.process import POLL_SECONDS
from bioengine_runtime.local.process import running as is_running
from bioengine_runtime.local.progress import StartEvent
from bioengine_runtime.local.running import Running
from bioengine_runtime.local.state import State
from bioengine_runtime.local.watch import watched

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def unheard(_: StartEvent) -> None: ...


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RESTART_SECONDS", 0.01)


async def started(home: Path, *scripts: Sequence[str]) -> Running:
    running = Running(open_home(home), State())
    for what, script in scripts:
        await running.start(what, ["sh", "-c", script], environment={})
    return running


async def test_rc_11_a_disk_that_is_full_when_the_worker_dies_ends_the_body_and_says_why(tmp_path: Path) -> None:
    running = await started(tmp_path / "home", ("worker", "exit 1"))

    async def restart() -> None:
        raise FULL

    with pytest.raises(LocalError, match=r"the worker ended and cannot be started again: OSError: .*No space left"):
        async with watched(running, restart, unheard):
            await asyncio.sleep(60)


async def test_of_what_nobody_expected_the_type_alone_is_said(tmp_path: Path) -> None:
    running = await started(tmp_path / "home", ("worker", "exit 1"))

    async def restart() -> None:
        raise KeyError("sesame")

    with pytest.raises(LocalError, match="KeyError") as told:
        async with watched(running, restart, unheard):
            await asyncio.sleep(60)
    assert "sesame" not in str(told.value)


async def test_a_child_is_stopped_though_nothing_can_be_written_down(tmp_path: Path) -> None:
    running = await started(tmp_path / "home", ("worker", "exec sleep 600"))
    ended = asyncio.create_task(running.first_to_end())
    state = tmp_path / "home" / "state.json"
    state.unlink()
    state.mkdir()  # what replaces a folder by a file fails, as everything does on a full disk
    await running.stop("worker", grace_seconds=5)
    assert is_running((await ended).record) is None


async def test_a_worker_that_dies_again_and_again_is_started_ever_more_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[float] = []
    sleep = asyncio.sleep
    running = await started(tmp_path / "home", ("worker", "exit 1"))

    async def note(seconds: float) -> None:
        if seconds != POLL_SECONDS:
            paused.append(seconds)
        await sleep(0)

    async def restart() -> None:
        if len(paused) == 7:
            raise LocalError("enough", "")
        await running.start("worker", ["sh", "-c", "exit 1"], environment={})

    monkeypatch.setattr(watch.asyncio, "sleep", note)
    monkeypatch.setattr(watch, "LONGEST_PAUSE_SECONDS", 0.16)
    with pytest.raises(LocalError, match="enough"):
        async with watched(running, restart, unheard):
            await asyncio.Event().wait()
    assert paused == [0.01, 0.02, 0.04, 0.08, 0.16, 0.16, 0.16]
