"""How long from `git push` to a plan, and to the new version answering? Against what no reconciler could avoid.

    python -m benchmarks.push_to_healthy [--rounds 5] [--init 2]      exit 1 when a goal is missed

Two ways in: a bare repository on disk, whose refs are watched, and a git server over HTTP that sends a signed webhook
after each push. Both with `reconcile run` as a process of its own, polling too rarely to help, on a real Hypha, Ray and
worker. Medians of the rounds.

push → plan: a commit that asks for nothing new, until the pass that planned it has ended. Floor: one fetch of such a
commit and one look, in a process that is warm. Goal: ≤ floor + 2 s.
push → healthy: a commit that changes the app's code (its environment is there already), until callers get the new
version through Hypha. Floor: the folder stored as a new version by bare calls of the artifact manager, plus `serve.run`
of the same class, until it answers. Goal: ≤ 1.3 × floor.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.stage import IDENTITY, Stage, manifest, stage
from reconciler.adapters.hypha import Address, HyphaSession
from reconciler.cli.place import Place, opened
from reconciler.planning.steps import PlanOptions
from reconciler.reconcile import look
from tests.reconciler.git_http import GitServer, git_server

APP = """
import asyncio
from hypha_rpc.utils.schema import schema_method
from ray import serve

@serve.deployment(ray_actor_options={{"num_cpus": 0.1}})
class Slow:
    async def async_init(self):
        await asyncio.sleep({init})

    @schema_method
    async def ping(self) -> str:
        return "{version}"
"""
BARE = """
import sys, time
import ray
from hypha_rpc.utils.schema import schema_method
from ray import serve

ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
serve.start(http_options={"location": "NoServer"})

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Slow:
    def __init__(self, seconds):
        time.sleep(seconds)

    @schema_method
    async def ping(self) -> str:
        return "pong"

for number in range(int(sys.argv[2]) + 1):
    begin = time.perf_counter()
    serve.run(Slow.bind(float(sys.argv[3])), name=f"bare-{number}", route_prefix=None)
    assert serve.get_app_handle(f"bare-{number}").ping.remote().result() == "pong"
    if number:  # the first one wakes Ray's idle workers
        print("seconds", time.perf_counter() - begin, flush=True)
    serve.delete(f"bare-{number}")
"""
CLUSTER = (
    "name: bench\npolicy: {{interval_s: 600, drift_interval_s: 600}}\n# {note}\napps:\n  slow: {{source: apps/slow}}\n"
)
SECRET = "0123456789abcdef0123456789abcdef"
PLAN_MORE_S = 2.0
HEALTHY_RATIO = 1.3
MANAGER = "public/artifact-manager"
WITHIN_S = 90.0


@dataclass
class Times:
    """Seconds of each round."""

    plan: list[float] = field(default_factory=list)
    healthy: list[float] = field(default_factory=list)


class Reconciler:
    """`reconcile run`, and when it said what."""

    def __init__(self) -> None:
        self.said: list[tuple[float, str]] = []
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, play: Stage, url: str, *more: str) -> None:
        words = ("run", url, "--home", str(play.repo.parent / "state"), "--server-url", play.local.server_url)
        where = ("--workspace", play.local.workspace, "--worker", play.local.worker_service_id)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "reconciler", *words, *where, "--token-file", str(play.local.token_file), *more,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process and self._process.stderr
        async for line in self._process.stderr:
            self.said.append((time.perf_counter(), line.decode(errors="replace")))

    async def has_said(self, pattern: str) -> float:
        """When a line like this came, waiting for it."""
        deadline = time.perf_counter() + WITHIN_S
        while time.perf_counter() < deadline:
            found = next((at for at, line in self.said if re.search(pattern, line)), None)
            if found is not None:
                return found
            await asyncio.sleep(0.01)
        raise RuntimeError(f"never said {pattern!r}:\n" + "".join(line for _, line in self.said[-30:]))

    async def stop(self) -> None:
        if self._process and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()
        await self._reading


def commit(play: Stage, files: dict[str, str], message: str) -> str:
    play.write(files)
    play.commit(message)
    return _git(play.repo, "rev-parse", "--short=7", "HEAD")


def _git(repo: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(repo), *IDENTITY, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


# ── the floors ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def fetch_and_look(play: Stage, url: str, push: Callable[[str], Awaitable[float]], rounds: int) -> float:
    """Seconds of one fetch of a new commit and one look, in a warm process."""
    place = Place(
        url,
        home_option=play.repo.parent / "floor",
        server_url=play.local.server_url,
        workspace=play.local.workspace,
        worker=play.local.worker_service_id,
        token_file=Path(play.local.token_file),
    )
    took: list[float] = []
    async with opened(place, writes=False) as world:
        await look(world, PlanOptions())
        for number in range(rounds):
            await push(commit(play, {"cluster.yaml": CLUSTER.format(note=f"floor {number} {url}")}, "Floor"))
            await asyncio.sleep(3)  # the reconciler that is measured has had its turn
            began = time.perf_counter()
            await look(world, PlanOptions())
            took.append(time.perf_counter() - began)
    return statistics.median(took)


async def bare_upload(play: Stage, rounds: int) -> float:
    """Seconds of storing the app's two files as a new version: what any client must ask of Hypha."""
    session = HyphaSession(lambda: Address(play.local.server_url, play.token, play.local.workspace))
    alias = f"{play.local.workspace}/floor"
    files = {"manifest.yaml": manifest("floor", "slow:Slow"), "slow.py": APP.format(init=0, version="floor")}

    async def ask(method: str, **arguments: Any) -> Any:
        return await session.ask(MANAGER, method, timeout_s=60, artifact_id=alias, **arguments)

    took: list[float] = []
    try:
        await session.ask(
            MANAGER, "create", timeout_s=60, alias="floor", type="application", manifest={"name": "floor"}
        )
        async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
            for number in range(rounds + 1):
                began = time.perf_counter()
                await ask("edit", manifest={"name": f"floor {number}"}, version="new", stage=True)
                urls = await ask("put_file", file_path=list(files))
                puts = await asyncio.gather(*(http.put(urls[name], content=text) for name, text in files.items()))
                assert all(put.is_success for put in puts)
                await ask("commit", version=f"floor-{number}")
                took.append(time.perf_counter() - began)
    finally:
        await session.close()
    return statistics.median(took[1:])


async def bare_start(play: Stage, rounds: int, init: float) -> float:
    """Seconds of `serve.run` of the same class, on the same Ray, until it answers."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BARE, play.local.ray_address, str(rounds), str(init),
        env={**os.environ, **play.local.ray_environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path("/"),
    )  # fmt: skip
    output, errors = await process.communicate()
    if process.returncode:
        raise RuntimeError(errors.decode())
    return statistics.median(float(line.split()[1]) for line in output.decode().splitlines() if "seconds" in line)


# ── what is measured ───────────────────────────────────────────────────────────────────────────────────────────────


async def measured(
    play: Stage, reconciler: Reconciler, push: Callable[[str], Awaitable[float]], rounds: int, init: float, way: str
) -> Times:
    times = Times()
    session = HyphaSession(lambda: Address(play.local.server_url, play.token, play.local.workspace))

    async def answers(version: str) -> float:
        deadline = time.perf_counter() + WITHIN_S
        while time.perf_counter() < deadline:
            if await session.ask(f"{play.local.workspace}/slow", "ping", timeout_s=30) == version:
                return time.perf_counter()
            await asyncio.sleep(0.02)
        raise RuntimeError(f"{version} never answered:\n" + "".join(line for _, line in reconciler.said[-30:]))

    try:
        for number in range(rounds):
            short = commit(play, {"cluster.yaml": CLUSTER.format(note=f"{way} {number}")}, "Nothing new")
            pushed = await push(short)
            times.plan.append(await reconciler.has_said(f"event=pass .*{short}") - pushed)
            version = f"{way} {number}"
            short = commit(play, {"apps/slow/slow.py": APP.format(init=init, version=version)}, version)
            pushed = await push(short)
            times.healthy.append(await answers(version) - pushed)
            await asyncio.sleep(4)  # until the pass that follows what was done has ended
    finally:
        await session.close()
    return times


@asynccontextmanager
async def by_refs(play: Stage, bare: Path) -> AsyncIterator[tuple[Reconciler, str, Callable[[str], Awaitable[float]]]]:
    """The repository on disk, watched."""

    async def push(_: str) -> float:
        began = time.perf_counter()
        await asyncio.to_thread(_git, play.repo, "push", "-q", str(bare), "HEAD:main")
        return began

    reconciler = Reconciler()
    await reconciler.start(play, str(bare))
    try:
        yield reconciler, str(bare), push
    finally:
        await reconciler.stop()


@asynccontextmanager
async def by_webhook(
    play: Stage, bare: Path, server: GitServer
) -> AsyncIterator[tuple[Reconciler, str, Callable[[str], Awaitable[float]]]]:
    """The repository behind HTTP; whoever pushes makes the server tell."""
    url = f"{server.url}/{bare.name}"
    secret = play.repo.parent / "hook.secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    reconciler = Reconciler()
    await reconciler.start(play, url, "--webhook", "127.0.0.1:0", "--webhook-secret-file", str(secret))
    await reconciler.has_said("Webhooks are heard")
    heard = next(line for _, line in reconciler.said if "Webhooks are heard" in line)
    address = re.search(r"http://\S+", heard)
    assert address
    hook = address[0]

    async def push(_: str) -> float:
        began = time.perf_counter()
        await asyncio.to_thread(_git, play.repo, "push", "-q", str(bare), "HEAD:main")
        commit_id = _git(play.repo, "rev-parse", "HEAD")
        body = json.dumps({"ref": "refs/heads/main", "after": commit_id, "repository": {"clone_url": url}}).encode()
        signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "x-signature-256": signature, "x-delivery-id": commit_id}
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.post(hook, content=body, headers=headers)
        assert answer.status_code == 202, answer.text
        return began

    try:
        yield reconciler, url, push
    finally:
        await reconciler.stop()


async def main(rounds: int, init: float) -> int:
    async with stage() as play:
        bare = play.repo.parent / "bare.git"
        _git(play.repo, "init", "-q", "--bare", "-b", "main", str(bare))
        play.write(
            {"cluster.yaml": CLUSTER.format(note="first"), "apps/slow/manifest.yaml": manifest("slow", "slow:Slow")}
        )
        commit(play, {"apps/slow/slow.py": APP.format(init=init, version="first")}, "First")
        _git(play.repo, "push", "-q", str(bare), "HEAD:main")
        start = await bare_start(play, rounds, init)
        upload = await bare_upload(play, rounds)
        results: dict[str, tuple[Times, float]] = {}
        with git_server(bare.parent) as server:
            for way, open_way in (("refs watched", by_refs(play, bare)), ("webhook", by_webhook(play, bare, server))):
                async with open_way as (reconciler, url, push):
                    await reconciler.has_said(r"event=pass .*steps=0")
                    times = await measured(play, reconciler, push, rounds, init, way)
                    results[way] = times, await fetch_and_look(play, url, push, rounds)
    return report(results, upload, start)


def report(results: dict[str, tuple[Times, float]], upload: float, start: float) -> int:
    floor, missed = upload + start, False
    print(f"floor: {upload:.2f} s for the artifact manager + {start:.2f} s for `serve.run` = {floor:.2f} s")
    print(
        f"{'way':14} {'push → plan':>12} {'floor':>7} {'more':>7}   {'push → healthy':>14} {'ratio':>6}   (medians, s)"
    )
    for way, (times, looked) in results.items():
        plan, healthy = statistics.median(times.plan), statistics.median(times.healthy)
        more, ratio = plan - looked, healthy / floor
        missed = missed or more > PLAN_MORE_S or ratio > HEALTHY_RATIO
        print(f"{way:14} {plan:12.2f} {looked:7.2f} {more:7.2f}   {healthy:14.2f} {ratio:6.2f}")
    print(f"goals: ≤ {PLAN_MORE_S:g} s more than the floor; ratio ≤ {HEALTHY_RATIO:g}" + ("; MISSED" if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--init", type=float, default=2.0, help="seconds that the class takes to start")
    options = parser.parse_args()
    raise SystemExit(asyncio.run(main(options.rounds, options.init)))
