"""What does one gateway for all apps cost, against one proxy process per app and against no Serve at all?

    python benchmarks/gateway.py [--apps 10]

The same echo method is called over Hypha three ways: through the gateway, through a proxy deployment per app (as the
reference does it), and registered straight with hypha-rpc. Prints calls/s, p50 and p99 for small and large payloads,
and the memory that each further app costs beside its own replica (unique set size; what is shared is not counted).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from hypha_rpc import connect_to_server

from bioengine_runtime.local.embedded import Embedded, embedded

WORKER = "bench-worker"
# name: (bytes, callers at once, calls). Hypha disconnects a client that sends more than 2,000 messages at a stretch and
# 200 per second after that, hence few calls, and a pause between two rows.
SIZES = {
    "1 KB": (1024, 1, 250),
    "1 KB × 8": (1024, 8, 320),
    "100 KB": (100 * 1024, 1, 100),
    "10 MB": (10 * 1024**2, 1, 5),
}
PAUSE_S = 5.0
SCHEMA = {"name": "echo", "parameters": {"type": "object", "properties": {"data": {}}, "required": ["data"]}}
Echo = Callable[[bytes], Awaitable[Any]]


class App:
    """The app: one method."""

    def reconfigure(self, record: Any) -> None: ...

    async def echo(self, data: bytes) -> bytes:
        return data


class Proxy:
    """The old way: every app brings a process that registers the app's service and hands its calls on."""

    async def __init__(self, url: str, token_file: str, app_id: str, handle: Any) -> None:
        token = await asyncio.to_thread(Path(token_file).read_text)
        config = {"server_url": url, "token": token, "client_id": f"proxy-{app_id}", "logger": None}
        self._server = await connect_to_server(config)

        async def echo(data: bytes, context: Any = None) -> bytes:  # noqa: ARG001 - hypha-rpc passes it by name
            return await handle.echo.remote(data)

        service = {"id": app_id, "config": {"visibility": "public", "require_context": True}, "echo": echo}
        await self._server.register_service(service)


@dataclass(frozen=True)
class Speed:
    """Of one way, at one size."""

    per_second: float
    p50_ms: float
    p99_ms: float


async def measure(echo: Echo, size: int, at_once: int, calls: int) -> Speed:
    """A closed loop of `at_once` callers."""
    data, times = os.urandom(size), list[float]()

    async def caller() -> None:
        for _ in range(calls // at_once):
            began = time.perf_counter()
            await echo(data)
            times.append(time.perf_counter() - began)

    await echo(data)
    begin = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return Speed(len(times) / (time.perf_counter() - begin), cuts[49] * 1e3, cuts[98] * 1e3)


@asynccontextmanager
async def straight(local: Embedded) -> AsyncIterator[None]:
    """The method without Serve, in a process of its own as in the other ways."""
    arguments = ("--provide", local.server_url, str(local.token_file))
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), 60)
        yield
    finally:
        process.kill()
        await process.wait()


async def provide(url: str, token_file: str) -> None:
    """Be the process of `straight`, until killed."""
    token = await asyncio.to_thread(Path(token_file).read_text)
    server = await connect_to_server({"server_url": url, "token": token, "client_id": "straight", "logger": None})

    async def echo(data: bytes, context: Any = None) -> bytes:  # noqa: ARG001 - hypha-rpc passes it by name
        return data

    options = {"visibility": "public", "require_context": True}
    await server.register_service({"id": "straight", "config": options, "echo": echo})
    print("ready", flush=True)
    await asyncio.Event().wait()


def memory_mb(title: str) -> float:
    """Unique memory of all Serve replicas whose title holds this."""
    found = [one for one in psutil.process_iter(["cmdline"]) if title in " ".join(one.info["cmdline"] or ())]
    return sum(process.memory_full_info().uss for process in found) / 1024**2


async def run_gateway(local: Embedded, apps: int) -> float:
    """Deploy the apps behind a gateway; MB that one more app costs it."""
    from bioengine_runtime.gateway.deploy import GatewaySettings, ensure_gateway, refresh_gateway

    await ensure_gateway(
        GatewaySettings(local.server_url, local.workspace, local.token_file, "bench-gateway", WORKER), []
    )
    await asyncio.to_thread(deploy, [recorded(f"gated-{number}") for number in range(1)])
    await until_offered(refresh_gateway, 1)
    before = memory_mb("ServeReplica:bioengine-gateway")
    await asyncio.to_thread(deploy, [recorded(f"gated-{number}") for number in range(1, apps + 1)])
    await until_offered(refresh_gateway, apps + 1)
    return (memory_mb("ServeReplica:bioengine-gateway") - before) / apps


async def until_offered(refresh: Any, number: int) -> None:
    for _ in range(240):
        if len(await refresh(WORKER)) >= number:
            return
        await asyncio.sleep(0.5)
    raise TimeoutError("the gateway does not offer the apps")


def recorded(app_id: str) -> Any:
    """A Serve application that carries the record the gateway reads."""
    from ray import serve

    from bioengine_runtime.apps.record import RECORD_KEY, AppRecord
    from bioengine_runtime.contract.app import AppSpec
    from bioengine_runtime.contract.status import Provenance

    spec = AppSpec(app_id=app_id, artifact_id="bench/echo", version="1", authorized_users=["*"])
    record = AppRecord(
        spec=spec,
        digest=spec.digest(),
        code_digest=spec.code_digest(),
        provenance=Provenance(owner="bench", source="none", commit="none"),
        name=app_id,
        entry="App",
        methods=[{"name": "echo", "schema": SCHEMA}],
        started_at=0.0,
        last_updated_at=0.0,
        blueprint="none",
        worker=WORKER,
    )
    configured = app_deployment(user_config={RECORD_KEY: record.model_dump(mode="json")})
    return serve.RunTarget(configured.bind(), name=app_id, route_prefix=None)


def proxied(local: Embedded, app_id: str) -> Any:
    """The same app behind a proxy of its own."""
    from ray import serve

    proxy = serve.deployment(name="Proxy", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=100)(Proxy)
    bound = proxy.bind(local.server_url, str(local.token_file), app_id, app_deployment().bind())
    return serve.RunTarget(bound, name=app_id, route_prefix=None)


def app_deployment(**options: Any) -> Any:
    from ray import serve

    return serve.deployment(name="App", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=100, **options)(App)


def deploy(targets: list[Any]) -> None:
    from ray import serve

    serve.run_many(targets)


async def compare(local: Embedded, apps: int) -> tuple[dict[str, dict[str, Speed]], float, float]:
    """Speeds by way and size, and MB per further app with the gateway and with proxies."""
    os.environ.update(local.ray_environment)
    import ray
    from ray import serve

    ray.init(address=local.ray_address, namespace="bioengine", log_to_driver=False, configure_logging=False)
    try:
        serve.start(proxy_location="Disabled")
        return await compared(local, apps)
    finally:
        ray.shutdown()


async def compared(local: Embedded, apps: int) -> tuple[dict[str, dict[str, Speed]], float, float]:
    with_gateway = await run_gateway(local, apps)
    await asyncio.to_thread(deploy, [proxied(local, f"proxied-{number}") for number in range(2)])
    with_proxies = memory_mb(":Proxy") / 2
    token = local.token_file.read_text()
    config = {"server_url": local.server_url, "token": token, "logger": None}
    speeds: dict[str, dict[str, Speed]] = {}
    async with straight(local), connect_to_server(config) as caller:
        for way, service in {"straight": "straight", "gateway": "gated-0", "proxy per app": "proxied-0"}.items():
            called = await caller.get_service(f"{local.workspace}/{service}")
            speeds[way] = {}
            for name, (size, at_once, calls) in SIZES.items():
                await asyncio.sleep(PAUSE_S)
                speeds[way][name] = await measure(called.echo, size, at_once, calls)
    return speeds, with_gateway, with_proxies


def show(speeds: dict[str, dict[str, Speed]], with_gateway: float, with_proxies: float) -> None:
    print(f"{'payload':<10} {'way':<14} {'calls/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'throughput':>11} {'p50':>6}")
    for size in SIZES:
        base = speeds["straight"][size]
        for way, by_size in speeds.items():
            one = by_size[size]
            share, times = one.per_second / base.per_second, one.p50_ms / base.p50_ms
            print(
                f"{size:<10} {way:<14} {one.per_second:>8.1f} {one.p50_ms:>8.2f} {one.p99_ms:>8.2f} "
                f"{share:>10.2f}× {times:>5.2f}×"
            )
    print(f"memory per further app beside its own replica: gateway {with_gateway:.1f} MB, proxy {with_proxies:.1f} MB")


async def main(apps: int) -> None:
    with tempfile.TemporaryDirectory(prefix="bgb", dir="/tmp", ignore_cleanup_errors=True) as home:
        async with embedded(Path(home), progress=lambda _: None, with_worker=False) as local:
            show(*await compare(local, apps))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", type=int, default=10, help="further apps to measure memory with")
    parser.add_argument("--provide", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    asyncio.run(provide(*given.provide) if given.provide else main(given.apps))
