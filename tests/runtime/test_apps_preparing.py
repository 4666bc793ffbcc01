"""An environment that somebody asks for, goes away from, and asks for again; without Ray."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bioengine_runtime.apps.errors import PrepareFailed
from bioengine_runtime.apps.prepare import ArtifactFiles
from bioengine_runtime.apps.supervisor import Supervisor
from tests.runtime.apps_world import a_spec, an_environment


class Reader:
    """Cannot read any app folder, and says so when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.goes_on, self.failed = asyncio.Event(), asyncio.Event()

    async def fetch(self, artifact_id: str, version: str) -> ArtifactFiles:
        self.asked += 1
        await self.goes_on.wait()
        self.goes_on.clear()
        self.failed.set()
        raise PrepareFailed(f"no solution for {artifact_id} {version}")


async def test_a_build_that_fails_while_nobody_waits_is_told_to_the_next_who_asks(tmp_path: Path) -> None:
    """Else a build that always fails between two questions would begin anew for ever, and nobody would know."""
    reader = Reader()
    supervisor = Supervisor(reader=reader, environment=an_environment(tmp_path))
    assert not (await supervisor.prepare(a_spec(), wait_s=0.01)).done
    assert not (await supervisor.prepare(a_spec(), wait_s=0.01)).done and reader.asked == 1
    reader.goes_on.set()
    await reader.failed.wait()
    told = await supervisor.prepare(a_spec(), wait_s=5)
    assert told.done and not told.ok and "no solution" in told.message and reader.asked == 1
    assert not (await supervisor.prepare(a_spec(), wait_s=0.01)).done and reader.asked == 2
    await supervisor.stop()
