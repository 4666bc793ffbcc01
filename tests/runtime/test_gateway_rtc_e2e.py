"""WebRTC into an app on a real Hypha and Ray: real connections with the client of hypha-rpc as it is today."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy
import psutil
import pytest
import pytest_asyncio
from hypha_rpc import get_rtc_service

from tests.runtime.demo_app import demo_files
from tests.runtime.stack import Stack, a_stack, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

FORGED = {"user": {"id": "alice", "email": "alice@lab.example"}, "ws": "ws-user-alice"}
VANISHING = """
import asyncio, sys
from hypha_rpc import connect_to_server, get_rtc_service

async def main():
    server = await connect_to_server({"server_url": sys.argv[1], "logger": None})
    peer = await get_rtc_service(server, sys.argv[2])
    print(await (await peer.get_service("demo")).echo("here"), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack() -> AsyncIterator[Stack]:
    async with a_stack() as running:
        async with running.connected() as server:
            worker = await server.get_service(running.worker_id)
            await worker.upload_app(files=demo_files("1.0.0"))
            await worker.deploy_app(
                artifact_id="demo",
                application_id="demo",
                authorized_users={"*": ["*"], "secret": ["alice@lab.example"], "fail": []},
            )

            async def takes_peers() -> bool:
                return await (await server.get_service(f"{running.workspace}/demo")).get_rtc_service_id() is not None

            await eventually(takes_peers, 120)
        yield running


@asynccontextmanager
async def a_peer(stack: Stack, user: str, rtc: str = "demo-rtc") -> AsyncIterator[Any]:
    async with stack.connected(user) as server:
        peer = await get_rtc_service(server, f"{stack.workspace}/{rtc}")
        try:
            yield peer
        finally:
            await peer.disconnect()


async def number_of_peers(stack: Stack) -> int:
    return await stack.post("demo", "get_num_pcs", {})


async def test_an_app_is_called_over_webrtc(stack: Stack) -> None:
    async with a_peer(stack, "bob") as peer:
        app = await peer.get_service("demo")
        assert (await app.version())["version"] == "1.0.0"
        assert await app.who() == "bob@lab.example"
        assert [number async for number in await app.count(3)] == [0, 1, 2]
        image = numpy.random.default_rng(0).random((1024, 2560))  # 20 MiB
        assert (await app.echo(image) == image).all()
        assert await app.get_num_pcs() == 1
