"""What does a call into an app cost beside the same method registered straight with hypha-rpc?

    python benchmarks/call_overhead.py [--calls 400] [--rounds 4]

One Hypha server, one client, two providers of the same echo: an app behind the gateway, and a process that gives the
function to hypha-rpc. The two take turns, so that a busy machine is busy for both. Latency is of one caller, calls/s
of several at once. Goal, at 1 KB and at 10 MB: ≥ 0.8× of the calls/s and ≤ 1.3× of the p50. Exits 1 when it is missed.

In turn with them, Serve's part of it alone: the app called by its handle in a Ray process, no Hypha anywhere. A gateway
that cost nothing would take the time of both, the straight call and this one; what that would reach is said, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hypha_rpc import connect_to_server

from benchmarks.stage import Stage, manifest, stage

APP = """
from hypha_rpc.utils.schema import schema_method
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0.5})
class Echo:
    @schema_method
    async def echo(self, data):
        return data
"""
CLUSTER = "name: bench\napps:\n  echo: {source: apps/echo, max_ongoing_requests: 100}\n"
MOST_TIMES = 1.3
LEAST_SHARE = 0.8
PAUSE_S = 1.0
Echo = Callable[[bytes], Awaitable[Any]]


@dataclass(frozen=True)
class Size:
    """A payload; `at_once` callers measure the throughput, `share` of the asked number of calls is made."""

    name: str
    number: int
    at_once: int
    share: float


SIZES = (Size("1 KB", 1024, 8, 1.0), Size("10 MB", 10 * 1024**2, 2, 0.02))


@dataclass
class Measured:
    """Seconds of each call with one caller, and calls/s of each round with several."""

    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def cut_ms(self, percent: int) -> float:
        return statistics.quantiles(self.seconds, n=100, method="inclusive")[percent - 1] * 1e3

    def rate(self) -> float:
        return statistics.median(self.rates)


async def one_round(echo: Echo, size: Size, calls: int, into: Measured) -> None:
    data = os.urandom(size.number)

    async def caller(number: int, seconds: list[float]) -> None:
        for _ in range(number):
            began = time.perf_counter()
            if len(await echo(data)) != size.number:
                raise RuntimeError("the answer is not what was sent")
            seconds.append(time.perf_counter() - began)

    await caller(2, [])
    await caller(calls, into.seconds)
    each = max(calls // size.at_once, 1)
    began = time.perf_counter()
    await asyncio.gather(*(caller(each, []) for _ in range(size.at_once)))
    into.rates.append(each * size.at_once / (time.perf_counter() - began))


@asynccontextmanager
async def straight(play: Stage) -> AsyncIterator[None]:
    """The method without Serve, in a process of its own, as a replica is."""
    arguments = (play.local.server_url, play.local.workspace, str(play.local.token_file))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--provide", *arguments), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), 60)
        yield
    finally:
        process.kill()
        await process.wait()


async def provide(url: str, workspace: str, token_file: str) -> None:
    """Be the process of `straight`, until killed."""
    token = await asyncio.to_thread(Path(token_file).read_text)
    server = await connect_to_server(
        {"server_url": url, "workspace": workspace, "token": token.strip(), "logger": None}
    )

    async def echo(data: bytes, context: Any = None) -> bytes:  # noqa: ARG001 - hypha-rpc passes it by name
        return data

    await server.register_service(
        {"id": "straight", "config": {"visibility": "public", "require_context": True}, "echo": echo}
    )
    print("ready", flush=True)
    await asyncio.Event().wait()


@asynccontextmanager
async def serve_alone(play: Stage) -> AsyncIterator[Callable[[int, Measured], Awaitable[None]]]:
    """One round of the app through nothing but its handle, at 1 KB, asked by a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", __file__, "--ask", play.local.ray_address),
        env={**os.environ, **play.local.ray_environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    asked, answers = process.stdin, process.stdout

    async def one(calls: int, into: Measured) -> None:
        asked.write(f"{calls}\n".encode())
        found = Measured(**json.loads(await asyncio.wait_for(answers.readline(), 120)))
        into.seconds += found.seconds
        into.rates += found.rates

    try:
        yield one
    finally:
        process.kill()
        await process.wait()


async def ask(address: str) -> None:
    """Be the process of `serve_alone`. As the gateway asks: router on this loop, one message each way."""
    import ray
    from ray.serve.handle import DeploymentHandle

    ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    handle = DeploymentHandle("Echo", app_name="echo")
    handle._init(_run_router_in_separate_loop=False)
    method = handle.options(method_name="echo", _by_reference=False)

    async def echo(data: bytes) -> Any:
        return await method.remote(data)

    while calls := await asyncio.to_thread(sys.stdin.readline):
        found = Measured()
        await one_round(echo, SIZES[0], int(calls), found)
        print(json.dumps(asdict(found)), flush=True)


async def compare(play: Stage, calls: int, rounds: int) -> tuple[dict[str, dict[str, Measured]], Measured]:
    """By size, then by way; and Serve alone."""
    play.write({"cluster.yaml": CLUSTER, "apps/echo/manifest.yaml": manifest("echo", "main:Echo"),
                "apps/echo/main.py": APP})  # fmt: skip
    play.commit("an app that echoes")
    await play.apply()
    client = await play.connect()
    serve = Measured()
    async with straight(play), serve_alone(play) as alone:
        ways = {name: (await client.get_service(f"{play.local.workspace}/{service}")).echo
                for name, service in {"straight": "straight", "gateway": "echo"}.items()}  # fmt: skip
        found = {size.name: {way: Measured() for way in ways} for size in SIZES}
        for size in SIZES:
            for _ in range(rounds):
                if size is SIZES[0]:
                    await alone(max(calls // rounds, 2), serve)
                for way, echo in ways.items():
                    await asyncio.sleep(PAUSE_S)
                    await one_round(echo, size, max(int(calls * size.share / rounds), 2), found[size.name][way])
    await client.disconnect()
    return found, serve


def show(found: dict[str, dict[str, Measured]], serve: Measured) -> bool:
    """Print the table; whether every goal is reached."""
    reached = True
    print(f"{'payload':<8} {'way':<9} {'calls/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'calls/s':>9} {'p50':>7}")
    for size, ways in found.items():
        for way, one in ways.items():
            base = ways["straight"]
            share, times = one.rate() / base.rate(), one.cut_ms(50) / base.cut_ms(50)
            reached &= share >= LEAST_SHARE and times <= MOST_TIMES
            print(f"{size:<8} {way:<9} {one.rate():>8.1f} {one.cut_ms(50):>8.2f} {one.cut_ms(99):>8.2f} "
                  f"{share:>8.2f}× {times:>6.2f}×")  # fmt: skip
    least = found[SIZES[0].name]["straight"]
    share = 1 / (1 + least.rate() / serve.rate())
    times = 1 + serve.cut_ms(50) / least.cut_ms(50)
    print(f"{SIZES[0].name:<8} {'serve':<9} {serve.rate():>8.1f} {serve.cut_ms(50):>8.2f} {serve.cut_ms(99):>8.2f} "
          "  a handle's call without Hypha")  # fmt: skip
    print(f"a gateway that costs nothing between the two would reach {share:.2f}× and {times:.2f}× at 1 KB")
    print(f"goal: ≥ {LEAST_SHARE}× of the calls/s, ≤ {MOST_TIMES}× of the p50: {'reached' if reached else 'missed'}")
    return reached


async def main(calls: int, rounds: int) -> int:
    async with stage() as play:
        return 0 if show(*await compare(play, calls, rounds)) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=400, help="calls of one caller at 1 KB; 10 MB makes a fiftieth")
    parser.add_argument("--rounds", type=int, default=4, help="turns that each way takes")
    parser.add_argument("--provide", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.provide:
        asyncio.run(provide(*given.provide))
    if given.ask:
        import uvloop

        sys.exit(uvloop.run(ask(given.ask)))
    sys.exit(asyncio.run(main(given.calls, given.rounds)))
