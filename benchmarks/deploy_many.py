"""What does the whole pass cost over bare Ray? N apps from nothing, against `serve.run_many` of the same classes.

    python benchmarks/deploy_many.py [--apps 20]

Both start on a fresh Ray head, from the command to every app answering. Prints both times and their ratio.
Goal: ratio ≤ 1.3. Exits 1 above it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.stage import Stage, manifest, stage

APP = """
from hypha_rpc.utils.schema import schema_method
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0.01})
class Tiny:
    @schema_method
    async def ping(self) -> str:
        return "pong"
"""
BARE = """
import sys, time
import ray
from hypha_rpc.utils.schema import schema_method
from ray import serve

ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
serve.start(http_options={"location": "NoServer"})

@serve.deployment(ray_actor_options={"num_cpus": 0.01})
class Tiny:
    @schema_method
    async def ping(self) -> str:
        return "pong"

begin = time.perf_counter()
names = [f"bare-{number:02}" for number in range(int(sys.argv[2]))]
serve.run_many([serve.RunTarget(Tiny.bind(), name=name, route_prefix=None) for name in names])
for name in names:
    assert serve.get_app_handle(name).ping.remote().result() == "pong"
print("seconds", time.perf_counter() - begin, flush=True)
for name in names:
    serve.delete(name)
"""


async def ours(play: Stage, apps: int, folders: int) -> float:
    """Seconds from `reconcile apply` to every app answering through Hypha."""
    names = [f"tiny-{number:02}" for number in range(apps)]
    play.write({f"apps/{name}/manifest.yaml": manifest(name, "tiny:Tiny") for name in names[:folders]})
    play.write({f"apps/{name}/tiny.py": APP for name in names[:folders]})
    sources = [names[number % folders] for number in range(apps)]
    lines = "".join(f"  {name}: {{source: apps/{folder}}}\n" for name, folder in zip(names, sources, strict=True))
    # As many side by side as its floor has.
    play.write({"cluster.yaml": f"name: bench\npolicy: {{parallel: {min(apps, 32)}}}\napps:\n{lines}"})
    play.commit(f"{apps} apps")
    begin = time.perf_counter()
    await play.apply()
    client = await play.connect()
    for name in names:
        assert await (await client.get_service(f"{play.local.workspace}/{name}")).ping() == "pong"
    took = time.perf_counter() - begin
    await client.disconnect()
    return took


async def bare(play: Stage, apps: int) -> float:
    """Seconds of `serve.run_many` of the same classes on the same head."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BARE, play.local.ray_address, str(apps),
        env={**os.environ, **play.local.ray_environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path("/"),
    )  # fmt: skip
    output, errors = await process.communicate()
    if process.returncode:
        raise RuntimeError(errors.decode())
    told = next(line for line in output.decode().splitlines() if line.startswith("seconds "))
    return float(told.split()[1])


async def main(apps: int, goal: float) -> int:
    async with stage() as play:
        floor = await bare(play, apps)
    async with stage() as play:
        took = await ours(play, apps, 1)
    async with stage() as play:
        stored = await ours(play, apps, apps)
    print(f"bare serve.run_many: {floor:6.1f} s for {apps} apps, each answering through its Serve handle")
    print(f"reconcile apply:     {took:6.1f} s for {apps} apps of the same class, each answering through Hypha")
    print(f"ratio:               {took / floor:6.2f}  (goal ≤ {goal})")
    print(f"reconcile apply:     {stored:6.1f} s for {apps} apps of {apps} folders, each stored in Hypha first")
    print(f"ratio:               {stored / floor:6.2f}  (no goal: most of it is Hypha storing {apps} artifacts)")
    return 0 if took <= goal * floor else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", type=int, default=20)
    parser.add_argument("--goal", type=float, default=1.3)
    options = parser.parse_args()
    raise SystemExit(asyncio.run(main(options.apps, options.goal)))
