"""Do many tiny apps fit on one machine? N instances of one folder, 0.01 CPUs each, through `reconcile apply`.

    python benchmarks/many_apps.py [--apps 50]

One app comes first, so that what follows is the price of each further one. Prints the seconds until all are healthy
and answer through Hypha, the memory of a replica (USS: its own; PSS: with its share of what is shared), by how much
gateway, worker and Serve's controller grew per further app, how fast the worker answers beside one app and beside all
of them, and what a second pass costs.

Goals: every app answers; gateway ≤ 5 MB per further app; get_status ≤ 500 ms (p50) beside all of them; the second pass
changes nothing. Exits 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.stage import Stage, manifest, stage
from bioengine_runtime.local.home import HOME_MARKER, Home

APP = """
from hypha_rpc.utils.schema import schema_method
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0.01})
class Tiny:
    @schema_method
    async def ping(self) -> str:
        return "pong"
"""
MB = 1024**2
GATEWAY_GOAL_MB = 5.0
STATUS_GOAL_MS = 500.0
ASKED = 30
# A part of the command line of each process that could grow with the number of apps.
SHARED = {
    "gateway": "ServeReplica:bioengine-gateway",
    "worker": "bioengine_runtime.worker",
    "controller": "ServeController",
}
REPLICA = "ServeReplica:tiny-"


@dataclass(frozen=True, slots=True)
class Moment:
    """How things are beside so many apps. Memory in MB, median times in ms."""

    shared: dict[str, float]
    times: dict[str, float]


def memory_of(play: Stage, title: str, kind: str) -> list[float]:
    """MB of every process of this stage whose command line holds the title; kind: uss or pss."""
    marker, found = Home(play.local.home).marker, list[float]()
    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.NoSuchProcess):
            if title in " ".join(process.info["cmdline"] or ()) and process.environ().get(HOME_MARKER) == marker:
                found.append(getattr(process.memory_full_info(), kind) / MB)
    return found


async def p50(call: Callable[[], Awaitable[Any]]) -> float:
    """Median ms of a few calls, one after the other."""
    times: list[float] = []
    for _ in range(ASKED):
        begin = time.perf_counter()
        await call()
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)


async def look(play: Stage, client: Any, name: str) -> Moment:
    """Ask the worker and one app, then weigh the processes."""
    worker = await client.get_service(play.local.worker_service_id)
    app = await client.get_service(f"{play.local.workspace}/{name}")
    calls = {"get_status": worker.get_status, "get_app_status": worker.get_app_status, "ping of one app": app.ping}
    times = {what: await p50(call) for what, call in calls.items()}
    return Moment({what: sum(memory_of(play, title, "uss")) for what, title in SHARED.items()}, times)


async def deploy(play: Stage, client: Any, names: list[str]) -> float:
    """Seconds from `reconcile apply` to every one of them answering through Hypha."""
    lines = "".join(f"  {name}: {{source: apps/tiny}}\n" for name in names)
    play.write({"cluster.yaml": f"name: bench\npolicy: {{parallel: {min(len(names), 32)}}}\napps:\n{lines}"})
    play.commit(f"{len(names)} apps")
    begin = time.perf_counter()
    await play.apply()
    for name in names:
        assert await (await client.get_service(f"{play.local.workspace}/{name}")).ping() == "pong"
    return time.perf_counter() - begin


async def second_pass(play: Stage) -> tuple[float, bool]:
    """Seconds of `reconcile plan`, and whether it found nothing to do."""
    words = ("plan", str(play.repo), "--home", str(play.local.home), "--detailed-exitcode")
    begin = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "reconciler", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode:
        print(output.decode())
    return time.perf_counter() - begin, process.returncode == 0


async def main(apps: int) -> int:
    names = [f"tiny-{number:02}" for number in range(apps)]
    async with stage() as play:
        play.write({"apps/tiny/manifest.yaml": manifest("tiny", "tiny:Tiny"), "apps/tiny/tiny.py": APP})
        client = await play.connect()
        first = await deploy(play, client, names[:1])
        before = await look(play, client, names[0])
        rest = await deploy(play, client, names)
        after = await look(play, client, names[0])
        uss, pss = (statistics.median(memory_of(play, REPLICA, kind)) for kind in ("uss", "pss"))
        again, empty = await second_pass(play)
        await client.disconnect()
    further = apps - 1
    print(f"{'first app':<18}{first:7.1f} s until it is healthy and answers through Hypha")
    print(f"{f'{further} further apps':<18}{rest:7.1f} s until they do, {rest / further:.2f} s each")
    print(f"{'one replica':<18}{uss:7.1f} MB of its own (USS), {pss:.1f} MB with its share of what is shared (PSS)")
    grown = {what: (after.shared[what] - before.shared[what]) / further for what in SHARED}
    for what, growth in grown.items():
        goal = f"  (goal ≤ {GATEWAY_GOAL_MB:g})" if what == "gateway" else ""
        print(f"{what:<18}{growth:+7.2f} MB per further app, {after.shared[what]:.0f} MB in all{goal}")
    for what, took in after.times.items():
        goal = f"  (goal ≤ {STATUS_GOAL_MS:g})" if what == "get_status" else ""
        print(f"{what:<18}{took:7.1f} ms (p50) beside {apps} apps, {before.times[what]:.1f} ms beside one{goal}")
    print(f"{'second pass':<18}{again:7.1f} s, {'nothing to do' if empty else 'NOT EMPTY'}")
    return 0 if empty and grown["gateway"] <= GATEWAY_GOAL_MB and after.times["get_status"] <= STATUS_GOAL_MS else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", type=int, default=50, help="at least 2")
    raise SystemExit(asyncio.run(main(parser.parse_args().apps)))
