"""A stage for benchmarks: the embedded default in a folder of its own, and a git repository to push to."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypha_rpc import connect_to_server  # pyright: ignore[reportMissingTypeStubs]

from bioengine_runtime.local.embedded import Embedded, embedded
from bioengine_runtime.local.progress import StartEvent

IDENTITY = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")


@dataclass(frozen=True, slots=True)
class Stage:
    """What a benchmark plays on."""

    local: Embedded
    repo: Path

    @property
    def token(self) -> str:
        return Path(self.local.token_file).read_text().strip()

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.repo / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def commit(self, message: str) -> None:
        _git(self.repo, "add", "-A")
        _git(self.repo, *IDENTITY, "commit", "-qm", message)

    async def apply(self, *more: str) -> None:
        """`reconcile apply` as a pipeline would call it; raises when it fails."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "reconciler", "apply", str(self.repo), "--home", str(self.local.home),
            "--auto-approve", "--wait", "--timeout", "600", *more,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"reconcile apply ended with {process.returncode}:\n{output.decode()}")

    async def connect(self, client_id: str | None = None) -> Any:
        """One authenticated Hypha connection."""
        config: dict[str, Any] = {
            "server_url": self.local.server_url,
            "workspace": self.local.workspace,
            "token": self.token,
        }
        return await connect_to_server(config | ({"client_id": client_id} if client_id else {}))


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """Start everything on loopback, yield, stop everything."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as folder:
        repo = Path(folder) / "repo"
        repo.mkdir()
        _git(repo, "init", "-q", "-b", "main")
        async with embedded(Path(folder) / "home", progress=_say) as local:
            yield Stage(local=local, repo=repo)


def manifest(app_id: str, entry: str, version: str = "1.0.0") -> str:
    """The smallest manifest of one app; entry is file:Class."""
    return (
        f'id: {app_id}\nname: {app_id}\nid_emoji: "⏱"\ndescription: benchmark\ntype: ray-serve\n'
        f'version: "{version}"\ndeployments: ["{entry}"]\nauthorized_users: ["*"]\n'
    )


def _say(event: StartEvent) -> None:
    print(f"  {event.what} {event.state} {event.seconds:.1f} s", file=sys.stderr)


def _git(repo: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(repo), *arguments], check=True, capture_output=True)
