"""Does a restart of the worker lose a call? Three kinds of callers, the worker killed with -9 and started again.

    python benchmarks/worker_restart.py [--rate 12] [--kills 3]

Prints a row per kind of caller: calls, failed, and latency in ms, with the worker there and away; then whether every
process of the app and of the gateway is the one it was. Goal: 0 failed of at least 1,000, the same processes. Exits 1
when it is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import time

import httpx

from benchmarks.rolling_update import Record, caller, callers
from benchmarks.stage import Stage, manifest, stage
from bioengine_runtime.local.home import Home
from bioengine_runtime.local.state import read_state

APP = """
import os
from hypha_rpc.utils.schema import schema_method
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0.5})
class Slow:
    @schema_method
    async def ping(self) -> dict:
        return {"version": os.environ["MARK"] + str(os.getpid())}
"""
CLUSTER = "name: bench\napps:\n  slow: {source: apps/slow, env: {'*': {MARK: 'process '}}}\n"
CALLS_AT_LEAST = 1000
BETWEEN_S = 3.0


async def main(rate: float, kills: int) -> int:
    async with stage() as play, httpx.AsyncClient(timeout=30, trust_env=False) as http:
        play.write({"cluster.yaml": CLUSTER, "apps/slow/manifest.yaml": manifest("slow", "slow:Slow")})
        play.write({"apps/slow/slow.py": APP})
        play.commit("first version")
        await play.apply()
        kinds = await callers(play, http)
        records = {kind: Record() for kind in kinds}
        done = asyncio.Event()
        running = [asyncio.create_task(caller(kinds[kind], rate, done, records[kind])) for kind in kinds]
        away: list[tuple[float, float]] = []
        while len(away) < kills or sum(len(record.calls) for record in records.values()) < CALLS_AT_LEAST:
            await asyncio.sleep(BETWEEN_S)
            away.append(await kill_and_await(play))
        await asyncio.sleep(BETWEEN_S)
        kept = await knows_its_app(play)
        done.set()
        await asyncio.gather(*running)
    return report(records, away, kept)


async def kill_and_await(play: Stage) -> tuple[float, float]:
    """When the worker was killed, and when its successor answered."""
    killed = time.perf_counter()
    before = worker_pid(play)
    os.kill(before, signal.SIGKILL)
    while True:
        await asyncio.sleep(0.2)
        try:
            if worker_pid(play) != before and await knows_its_app(play):
                return killed, time.perf_counter()
        except Exception:  # not there yet
            continue


async def knows_its_app(play: Stage) -> bool:
    client = await play.connect()
    try:
        worker = await client.get_service(play.local.worker_service_id)
        (app,) = (await asyncio.wait_for(worker.observe(), 10))["apps"]
        return (
            app["app_id"] == "slow" and app["status"] == "RUNNING" and app["spec"]["env"] == {"*": {"MARK": "process "}}
        )
    finally:
        await client.disconnect()


def worker_pid(play: Stage) -> int:
    processes = read_state(Home(play.local.home).state_file).processes
    return next((one.pid for one in processes if one.what == "worker"), 0)


def report(records: dict[str, Record], away: list[tuple[float, float]], kept: bool) -> int:
    gaps = ", ".join(f"{end - start:.1f}" for start, end in away)
    print(f"{len(away)} times killed with -9; seconds until its successor answered: {gaps}")
    print(f"{'caller':14} {'calls':>6} {'failed':>7}   worker there p50/max   worker away p50/max (ms)")
    for kind, record in records.items():
        there = [1e3 * took for start, took, _ in record.calls if not _within(start, away)]
        gone = [1e3 * took for start, took, _ in record.calls if _within(start, away)]
        print(
            f"{kind:14} {len(record.calls):6} {len(record.failed):7}"
            f"   {statistics.median(there):10.0f} {max(there):7.0f}   {statistics.median(gone):10.0f} {max(gone):7.0f}"
        )
        for text in sorted(set(record.failed))[:3]:
            print(f"    {text}")
    total = sum(len(record.calls) for record in records.values())
    failed = sum(len(record.failed) for record in records.values())
    processes = {answer for record in records.values() for _, _, answer in record.calls if answer != "failed"}
    print(f"total: {total} calls, {failed} failed, answered by {len(processes)} process(es) of the app")
    return 1 if failed or total < CALLS_AT_LEAST or len(processes) != 1 or not kept else 0


def _within(moment: float, spans: list[tuple[float, float]]) -> bool:
    return any(start <= moment <= end for start, end in spans)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=12, help="calls a second of each kind of caller")
    parser.add_argument("--kills", type=int, default=3, help="times the worker is killed, at least")
    options = parser.parse_args()
    raise SystemExit(asyncio.run(main(options.rate, options.kills)))
