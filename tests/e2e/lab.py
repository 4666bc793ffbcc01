"""A lab: the embedded default on a home of its own, a git repository, and a reconciler that is started and killed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bioengine_runtime.contract.status import AppState
from bioengine_runtime.local.embedded import embedded
from reconciler.adapters.artifacts import HyphaArtifacts
from reconciler.adapters.hypha import Address, HyphaSession
from reconciler.adapters.runtime import WorkerRuntime
from reconciler.failpoint import VARIABLE
from reconciler.planning.live import LiveArtifact

RECONCILE = Path(sys.executable).parent / "reconcile"
KILLED = -9


@dataclass(frozen=True)
class Ended:
    """One run of the reconciler."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.stdout)

    @property
    def results(self) -> dict[str, str]:
        """Step, without its version → what became of it."""
        return {outcome["address"].split("@")[0]: outcome["result"] for outcome in self.document["outcomes"]}


@dataclass(frozen=True)
class Lab:
    """One cluster and its repository."""

    home: Path
    repository: Path
    session: HyphaSession
    artifacts: HyphaArtifacts
    runtime: WorkerRuntime

    async def push(self, files: Mapping[str, str | None], subject: str = "Change") -> None:
        """Commit these files (None removes one); nothing when they are so already."""
        for name, text in files.items():
            file = self.repository / name
            if text is None:
                file.unlink(missing_ok=True)
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
        await self.git("add", "--all")
        await self.git("commit", "--quiet", "--allow-empty", "-m", subject)

    async def git(self, *words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
        process = await asyncio.create_subprocess_exec("git", *who, *words, cwd=self.repository)
        assert await process.wait() == 0

    async def reconcile(self, command: str, *words: str, fail_at: str = "") -> Ended:
        process = await asyncio.create_subprocess_exec(
            str(RECONCILE),
            command,
            str(self.repository),
            *("--home", str(self.home), *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, VARIABLE: fail_at},
        )
        stdout, stderr = await process.communicate()
        return Ended(process.returncode or 0, stdout.decode(), stderr.decode())

    async def apply(self, *words: str, fail_at: str = "") -> Ended:
        options = ("--auto-approve", "--wait", "--timeout", "240", "-o", "json", *words)
        return await self.reconcile("apply", *options, fail_at=fail_at)

    async def apps(self) -> dict[str, AppState]:
        return {app.app_id: app for app in (await self.runtime.observe()).apps}

    async def pids(self, app_id: str) -> set[int | None]:
        return {replica.pid for replica in (await self.apps())[app_id].replicas if replica.state == "RUNNING"}

    async def stored(self, alias: str) -> LiveArtifact:
        return (await self.artifacts.list())[f"{await self.artifacts.workspace()}/{alias}"]

    async def call(self, app_id: str, method: str = "ping") -> Any:
        """The way anybody calls an app: by its service."""
        service_id = (await self.apps())[app_id].service_id
        assert service_id
        return await self.session.ask(service_id, method, timeout_s=30.0)


@asynccontextmanager
async def a_lab(folder: Path) -> AsyncGenerator[Lab, None]:
    """Start everything, lend it, stop everything."""
    async with embedded(folder / "home", progress=lambda _: None) as there:
        session = HyphaSession(lambda: Address(there.server_url, there.token_file.read_text().strip()))
        repository = folder / "repository"
        repository.mkdir()
        runtime = WorkerRuntime(session, there.worker_service_id)
        lab = Lab(there.home, repository, session, HyphaArtifacts(session), runtime)
        await lab.git("init", "--quiet", "--initial-branch", "main")
        try:
            yield lab
        finally:
            await session.close()
