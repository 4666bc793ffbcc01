"""`reconcile up`: everything on this machine with one command, and nothing left of it afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from bioengine_runtime.local.home import HOME_MARKER, Home, open_home
from bioengine_runtime.local.leftovers import stop_leftovers
from tests.e2e.lab import RECONCILE
from tests.fakes import a_repository, an_app_folder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1000)]

ENDS_WITHIN_S = 300


class Terminal:
    """One running command; what it said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        self._reading = [asyncio.create_task(self._read(stream)) for stream in (process.stdout, process.stderr)]

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


@asynccontextmanager
async def a_terminal(*words: str) -> AsyncIterator[Terminal]:
    """Runs a command, which is ended when the block is left before it has."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(str(RECONCILE), *words, stdout=pipe, stderr=pipe)
    try:
        yield Terminal(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(*words: str) -> tuple[int, str]:
    """The exit code of a command that ends by itself, and what it said."""
    async with a_terminal(*words) as terminal:
        return await terminal.ended(ENDS_WITHIN_S), terminal.said


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


def is_there(path: Path) -> bool:
    return path.exists()


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


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    """Where nothing runs any more when the test is over, however it ended."""
    home = tmp_path / "home"
    yield home
    if is_there(home):
        await stop_leftovers(open_home(home))


@pytest.fixture
async def repository(tmp_path: Path) -> Path:
    repository = tmp_path / "lab"
    repository.mkdir()
    await git(repository, "init", "--quiet", "--initial-branch", "main")
    return repository


async def test_up_serves_follows_commits_is_alone_and_leaves_nothing(repository: Path, home: Path) -> None:
    await commit(repository, a_repository("hello", cluster="policy: {interval_s: 3000}\n"))
    at = (str(repository), "--home", str(home))

    async with a_terminal("up", *at) as first:
        await first.says("Reconciling until Ctrl-C", ENDS_WITHIN_S)
        assert "hello  running" in first.said and "curl -s -K - -X POST" in first.said

        code, said = await ended("up", *at)
        assert code == 75 and str(first.process.pid) in said
        code, said = await ended("plan", "--detailed-exitcode", *at)
        assert code == 0, said
        code, said = await ended("apply", "--auto-approve", *at)
        assert code == 75, said

        await commit(repository, an_app_folder("hello", says="pong 2"))
        await first.says("update hello", ENDS_WITHIN_S)  # far below its interval: it watches the repository
        first.process.send_signal(signal.SIGTERM)
        assert await first.ended(ENDS_WITHIN_S) == 0, first.said
    assert left_of(home) == []

    code, said = await ended("up", "--once", *at)
    assert code == 0, said
    assert 'hello.ping() → "pong 2"' in said
    assert "upload hello" not in said and left_of(home) == []


async def test_killed_it_leaves_processes_that_the_next_start_clears(repository: Path, home: Path) -> None:
    await commit(repository, a_repository("hello"))
    async with a_terminal("up", str(repository), "--home", str(home)) as first:
        await first.says("ray is ready", ENDS_WITHIN_S)
        os.kill(first.process.pid, signal.SIGKILL)
        await first.process.wait()
    code, said = await ended("up", "--once", str(repository), "--home", str(home))
    assert code == 0, said
    assert left_of(home) == []


async def test_a_repository_that_is_wrong_is_told_before_anything_starts(repository: Path, home: Path) -> None:
    await commit(repository, {"cluster.yaml": "name: lab\nreplicsa: 1\n"})
    code, said = await ended("up", str(repository), "--home", str(home))
    assert code == 1 and "--> cluster.yaml:2:1" in said
    assert not is_there(home)
