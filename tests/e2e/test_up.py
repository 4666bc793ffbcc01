"""`reconcile up`: everything on this machine with one command, and nothing left of it afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from bioengine_runtime.local.home import HOME_MARKER, Home
from tests.e2e.lab import RECONCILE
from tests.fakes import a_repository, an_app_folder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


class Terminal:
    """One running command; what it said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        self._reading = [asyncio.create_task(self._read(stream)) for stream in (process.stdout, process.stderr)]

    @classmethod
    async def of(cls, *words: str) -> Terminal:
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(str(RECONCILE), *words, stdout=pipe, stderr=pipe))

    async def says(self, text: str, within_s: float) -> None:
        async with asyncio.timeout(within_s):
            while text not in self.said:
                assert self.process.returncode is None, self.said
                await asyncio.sleep(0.1)

    async def ended(self, within_s: float) -> int:
        code = await asyncio.wait_for(self.process.wait(), within_s)
        await asyncio.gather(*self._reading)
        return code

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        async for line in stream:
            self.said += line.decode()


async def git(folder: Path, *words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "git", "-c", "user.name=a", "-c", "user.email=a@b.example", *words, cwd=folder
    )
    assert await process.wait() == 0


async def commit(repository: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = repository / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    await git(repository, "add", "--all")
    await git(repository, "commit", "--quiet", "-m", "Change")


def left_of(home: Path) -> list[str]:
    """Processes that carry the mark of this home."""
    marker = Home(home).marker
    found: list[str] = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(HOME_MARKER) == marker:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


async def test_up_serves_follows_commits_is_alone_and_leaves_nothing(tmp_path: Path) -> None:
    repository, home = tmp_path / "lab", tmp_path / "home"
    repository.mkdir()
    await git(repository, "init", "--quiet", "--initial-branch", "main")
    await commit(repository, a_repository("hello", cluster="policy: {interval_s: 300}\n"))
    at = (str(repository), "--home", str(home))

    first = await Terminal.of("up", *at)
    try:
        await first.says("Reconciling until Ctrl-C", within_s=120)
        assert "hello  running" in first.said and "curl -s -K - -X POST" in first.said

        second = await Terminal.of("up", *at)
        assert await second.ended(30) == 75 and str(first.process.pid) in second.said

        planned = await Terminal.of("plan", "--detailed-exitcode", *at)
        assert await planned.ended(30) == 0, planned.said
        applied = await Terminal.of("apply", "--auto-approve", *at)
        assert await applied.ended(30) == 75

        began = time.monotonic()
        await commit(repository, an_app_folder("hello", says="pong 2"))
        await first.says("update hello", within_s=60)
        assert time.monotonic() - began < 60
    finally:
        first.process.send_signal(signal.SIGTERM)
    assert await first.ended(90) == 0, first.said
    assert left_of(home) == []

    again = await Terminal.of("up", "--once", *at)
    assert await again.ended(150) == 0, again.said
    assert 'hello.ping() → "pong 2"' in again.said
    assert "upload hello" not in again.said and left_of(home) == []


async def test_killed_it_leaves_processes_that_the_next_start_clears(tmp_path: Path) -> None:
    repository, home = tmp_path / "lab", tmp_path / "home"
    repository.mkdir()
    await git(repository, "init", "--quiet", "--initial-branch", "main")
    await commit(repository, a_repository("hello"))
    first = await Terminal.of("up", str(repository), "--home", str(home))
    await first.says("ray is ready", within_s=60)
    os.kill(first.process.pid, signal.SIGKILL)
    await first.process.wait()
    again = await Terminal.of("up", "--once", str(repository), "--home", str(home))
    assert await again.ended(150) == 0, again.said
    assert left_of(home) == []


async def test_a_repository_that_is_wrong_is_told_before_anything_starts(tmp_path: Path) -> None:
    repository, home = tmp_path / "lab", tmp_path / "home"
    repository.mkdir()
    await git(repository, "init", "--quiet", "--initial-branch", "main")
    await commit(repository, {"cluster.yaml": "name: lab\nreplicsa: 1\n"})
    done = await Terminal.of("up", str(repository), "--home", str(home))
    assert await done.ended(30) == 1 and "--> cluster.yaml:2:1" in done.said
    assert not home.exists()
