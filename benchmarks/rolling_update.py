"""Does a code update lose a call? One replica, a slow start, three kinds of callers, an update in the middle.

    python benchmarks/rolling_update.py [--seconds 75] [--rate 10] [--init 5]

Prints a row per kind of caller: calls, failed, and latency in ms, in the quiet part and during the update.
Goal: 0 failed, max latency ≤ 1 s. Exits 1 when a call failed.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx

from benchmarks.stage import Stage, manifest, stage

APP = """
import asyncio
from hypha_rpc.utils.schema import schema_method
from ray import serve

@serve.deployment(ray_actor_options={{"num_cpus": 0.5}})
class Slow:
    async def async_init(self):
        await asyncio.sleep({init})

    @schema_method
    async def ping(self) -> dict:
        return {{"version": "{version}"}}
"""
CLUSTER = "name: bench\napps:\n  slow: {source: apps/slow}\n"
Call = Callable[[], Awaitable[str]]


@dataclass
class Record:
    """What one kind of caller saw: (start, seconds, version or error)."""

    calls: list[tuple[float, float, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


async def caller(call: Call, rate: float, until: asyncio.Event, record: Record) -> None:
    """An open loop: a call is sent every 1/rate seconds whether or not the one before has come back."""
    pending: set[asyncio.Task[None]] = set()
    due = time.perf_counter()
    while not until.is_set():
        task = asyncio.create_task(one(call, record))
        pending.add(task)
        task.add_done_callback(pending.discard)
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    await asyncio.gather(*pending)


async def one(call: Call, record: Record) -> None:
    start = time.perf_counter()
    try:
        version = await asyncio.wait_for(call(), timeout=30)
    except Exception as error:  # whatever goes wrong is a lost call, and is counted
        record.failed.append(f"{type(error).__name__}: {str(error)[:120]}")
        version = "failed"
    record.calls.append((start, time.perf_counter() - start, version))


def app(init: float, version: str) -> str:
    return APP.format(init=init, version=version)


async def callers(play: Stage, http: httpx.AsyncClient) -> dict[str, Call]:
    client, service_id = await play.connect(), f"{play.local.workspace}/slow"
    held = await client.get_service(service_id)
    url = f"{play.local.server_url}/{play.local.workspace}/services/slow/ping"
    headers = {"Authorization": f"Bearer {play.token}"}

    async def fresh_handle() -> str:
        return (await (await client.get_service(service_id)).ping())["version"]

    async def held_handle() -> str:
        return (await held.ping())["version"]

    async def over_http() -> str:
        answer = await http.post(url, json={}, headers=headers)
        answer.raise_for_status()
        return answer.json()["version"]

    return {"fresh handle": fresh_handle, "held handle": held_handle, "HTTP": over_http}


async def main(seconds: float, rate: float, init: float) -> int:
    async with stage() as play, httpx.AsyncClient(timeout=30, trust_env=False) as http:
        play.write({"cluster.yaml": CLUSTER, "apps/slow/manifest.yaml": manifest("slow", "slow:Slow")})
        play.write({"apps/slow/slow.py": app(init, "one")})
        play.commit("first version")
        await play.apply()
        kinds = await callers(play, http)
        records = {kind: Record() for kind in kinds}
        done = asyncio.Event()
        running = [asyncio.create_task(caller(kinds[kind], rate, done, records[kind])) for kind in kinds]
        begin = time.perf_counter()
        await asyncio.sleep(seconds / 3)
        play.write({"apps/slow/slow.py": app(init, "two")})
        play.commit("second version")
        updated = time.perf_counter()
        await play.apply()
        finished = time.perf_counter()
        await asyncio.sleep(max(2.0, seconds - (finished - begin)))
        done.set()
        await asyncio.gather(*running)
    return report(records, updated, finished)


def report(records: dict[str, Record], updated: float, finished: float) -> int:
    print(f"update: {finished - updated:.1f} s from commit to the new version healthy")
    print(f"{'caller':14} {'calls':>6} {'failed':>7} {'old':>6} {'new':>6}   quiet p50/max   update p50/max (ms)")
    for kind, record in records.items():
        versions = [version for _, _, version in record.calls]
        quiet = [1e3 * took for start, took, _ in record.calls if not updated <= start <= finished]
        during = [1e3 * took for start, took, _ in record.calls if updated <= start <= finished]
        print(
            f"{kind:14} {len(versions):6} {len(record.failed):7} {versions.count('one'):6} {versions.count('two'):6}"
            f"   {statistics.median(quiet):6.0f} {max(quiet):6.0f}"
            f"   {statistics.median(during):6.0f} {max(during):6.0f}"
        )
        for text in sorted(set(record.failed))[:3]:
            print(f"    {text}")
    total = sum(len(record.calls) for record in records.values())
    failed = sum(len(record.failed) for record in records.values())
    unseen = [kind for kind, record in records.items() if not any(version == "two" for *_, version in record.calls)]
    print(f"total: {total} calls, {failed} failed" + (f"; never saw the new version: {unseen}" if unseen else ""))
    return 1 if failed or unseen else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=75, help="how long to call")
    parser.add_argument("--rate", type=float, default=10, help="calls a second of each kind of caller")
    parser.add_argument("--init", type=float, default=5, help="seconds async_init takes")
    options = parser.parse_args()
    raise SystemExit(asyncio.run(main(options.seconds, options.rate, options.init)))
