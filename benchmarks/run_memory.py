"""How much memory does `reconcile run` take at 1,000 declared apps?

    python -m benchmarks.run_memory [--apps 1000] [--passes 20]      exit 1 above 150 MiB

Real: git with that many folders, Hypha with artifacts for the first 100 of them (storing one takes it a while), and
`reconcile run` as a process of its own, which looks again every second. The worker is a service that answers `observe`
with that many apps, running as git wants them: so many replicas are not for this machine, and the reconciler sees no
difference. Then every manifest is spoiled in one commit, so that the largest report of all is made, too. Prints RSS and
USS (what is the process's own) after the first pass, after many, and after the commit.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.noop import MANIFEST, _record, _worker, _write_repository
from reconciler.adapters.git import GitSource
from reconciler.adapters.hypha import Address, HyphaSession
from reconciler.planning.declare import declare
from reconciler.planning.desired import DesiredState
from tests.runtime.stack import Stack, a_stack

GOAL_MIB = 150.0
MIB = 1024 * 1024
WORKER = "bioengine-worker"
MANAGER = "public/artifact-manager"
AT_ONCE = 8
STORED = 100
WITHIN_S = 120.0


class Worker:
    """Says that everything runs as it should; counts how often it was asked."""

    def __init__(self, desired: DesiredState) -> None:
        self.asked = 0
        self._state = _worker(desired).model_dump(mode="json")

    async def observe(self, context: dict[str, Any] | None = None) -> dict[str, Any]:
        del context
        self.asked += 1
        return self._state

    async def asked_again(self, times: int) -> None:
        wanted, deadline = self.asked + times, time.monotonic() + WITHIN_S
        while self.asked < wanted:
            if time.monotonic() > deadline:
                raise RuntimeError("the reconciler looked no more")
            await asyncio.sleep(0.1)


async def store_all(stack: Stack, desired: DesiredState) -> None:
    """Artifacts of the first apps, without their files, which nobody asks for here."""
    session = HyphaSession(lambda: Address(stack.url, stack.home.secrets.admin_token.read_text().strip()))
    free = asyncio.Semaphore(AT_ONCE)

    async def store(record: dict[str, Any]) -> None:
        (version,) = record["versions"]
        given = {"type": record["type"], "manifest": record["manifest"], "parent_id": f"{stack.workspace}/applications"}
        alias = record["id"].partition("/")[2]
        async with free:
            named = {"version": version["version"], "comment": version["comment"]}
            await session.ask(MANAGER, "create", timeout_s=60, alias=alias, **named, **given)

    try:
        await session.ask(
            MANAGER, "create", timeout_s=60, alias="applications", type="collection", manifest={"name": "Applications"}
        )
        await asyncio.gather(*(store(_record(app)) for app in list(desired.apps.values())[:STORED]))
    finally:
        await session.close()


@asynccontextmanager
async def reconciling(stack: Stack, repository: Path, folder: Path):
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "reconciler", "run", str(repository), "--home", str(folder / "home"),
            "--server-url", stack.url, "--workspace", stack.workspace, "--worker", f"{stack.workspace}/{WORKER}",
            "--token-file", str(stack.home.secrets.admin_token), "--interval", "1",
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield psutil.Process(process.pid)
        except BaseException:
            print((folder / "log").read_text()[-4000:], file=sys.stderr)
            raise
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


def now(process: psutil.Process, when: str) -> float:
    used = process.memory_full_info()
    print(f"{when:28} RSS {used.rss / MIB:6.1f} MiB   USS {used.uss / MIB:6.1f} MiB", flush=True)
    return used.rss / MIB


def spoil(repository: Path, apps: int) -> None:
    for number in range(apps):
        text = MANIFEST.format(n=number).replace("deployments:", "deploymants:")
        (repository / "apps" / f"app-{number}" / "manifest.yaml").write_text(text)
    who = ("-c", "user.name=bench", "-c", "user.email=bench@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(("git", *who, "commit", "-q", "-a", "-m", "Spoil"), cwd=repository, check=True)


async def main(apps: int, passes: int) -> int:
    with tempfile.TemporaryDirectory(prefix="memory-", dir="/tmp") as name:
        folder, repository = Path(name), Path(name) / "repository"
        _write_repository(repository, apps)
        async with a_stack(with_worker=False) as stack:
            text = (repository / "cluster.yaml").read_text()
            (repository / "cluster.yaml").write_text(text.replace("workspace: lab", f"workspace: {stack.workspace}"))
            tree = await GitSource(repository, mirror_dir=folder / "mirrors", worktree=True).fetch()
            desired = declare(tree, workspace=stack.workspace)
            began = time.monotonic()
            await store_all(stack, desired)
            print(f"{STORED} artifacts stored in {time.monotonic() - began:.0f} s", file=sys.stderr)
            worker = Worker(desired)
            async with stack.connected() as server:
                service = {"id": WORKER, "config": {"require_context": True}, "observe": worker.observe}
                await server.register_service(service)
                most = await measured(stack, repository, folder, worker, apps, passes)
    print(f"at most {most:.1f} MiB; goal ≤ {GOAL_MIB:g} MiB" + ("" if most <= GOAL_MIB else ": MISSED"))
    return 0 if most <= GOAL_MIB else 1


async def measured(stack: Stack, repository: Path, folder: Path, worker: Worker, apps: int, passes: int) -> float:
    async with reconciling(stack, repository, folder) as process:
        await worker.asked_again(2)
        seen = [now(process, "after the first pass")]
        await worker.asked_again(passes)
        seen.append(now(process, f"after {passes} more"))
        await asyncio.to_thread(spoil, repository, apps)
        await worker.asked_again(4)
        seen.append(now(process, f"{apps} problems in one commit"))
        said = (folder / "log").read_text()
        assert f"unchanged={apps}" in said and f"held={apps}" in said, said[-2000:]
    return max(seen)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", type=int, default=1000)
    parser.add_argument("--passes", type=int, default=20)
    options = parser.parse_args()
    raise SystemExit(asyncio.run(main(options.apps, options.passes)))
