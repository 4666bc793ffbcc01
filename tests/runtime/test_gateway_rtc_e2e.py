"""WebRTC into an app on a real Hypha and Ray: real connections with the client of hypha-rpc as it is today."""

from __future__ import annotations

import asyncio
import io
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import numpy
import psutil
import pytest
import pytest_asyncio
from hypha_rpc import get_rtc_service

from bioengine_runtime.local.state import read_state
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
            await deploy(running)

            async def takes_peers() -> bool:
                return await (await server.get_service(f"{running.workspace}/demo")).get_rtc_service_id() is not None

            await eventually(takes_peers, 120)
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def vanished(stack: Stack) -> float:
    """When the process of a connected peer was killed. Noticing it takes half a minute, so it happens first."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", VANISHING, stack.url, f"{stack.workspace}/demo-rtc"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"here\n"
    assert await number_of_peers(stack) == 1
    process.kill()
    await process.wait()
    return time.monotonic()


async def deploy(stack: Stack, **options: Any) -> None:
    users = {"*": ["*"], "secret": ["alice@lab.example"], "fail": []}
    async with stack.connected() as server:
        worker = await server.get_service(stack.worker_id)
        await worker.deploy_app(artifact_id="demo", application_id="demo", authorized_users=users, **options)


@asynccontextmanager
async def a_peer(stack: Stack, user: str) -> AsyncIterator[Any]:
    async with stack.connected(user) as server:
        peer = await get_rtc_service(server, f"{stack.workspace}/demo-rtc")
        try:
            yield peer
        finally:
            await peer.disconnect()


async def number_of_peers(stack: Stack) -> int:
    return await stack.post("demo", "get_num_pcs", {})


@pytest.mark.usefixtures("vanished")
async def test_an_app_is_called_over_webrtc(stack: Stack) -> None:
    async with a_peer(stack, "bob") as peer:
        app = await peer.get_service("demo")
        assert (await app.version())["version"] == "1.0.0"
        assert (app["type"], app.version.__schema__["name"]) == ("bioengine-app", "version")
        assert await app.who() == "bob@lab.example"
        assert [number async for number in await app.count(3)] == [0, 1, 2]
        assert await app.get_num_pcs() >= 1


async def test_beyond_loopback_there_are_the_replicas_ports_and_webrtc_alone(stack: Stack) -> None:
    async with a_peer(stack, "bob") as peer:
        assert await (await peer.get_service("demo")).who() == "bob@lab.example"
        outward = {
            (socket.SocketKind(one.type), process.pid)
            for process in started_by(stack)
            for one in process.net_connections("inet")
            if not one.raddr and one.laddr and one.laddr.ip.removeprefix("::ffff:") not in ("127.0.0.1", "::1")
        }
    streams = {pid for kind, pid in outward if kind is socket.SOCK_STREAM}
    assert streams == stack.pids_of("ServeReplica:")
    assert outward - {(socket.SOCK_STREAM, pid) for pid in streams} == {
        (socket.SOCK_DGRAM, pid) for pid in stack.pids_of("bioengine-gateway")
    }


def started_by(stack: Stack) -> list[psutil.Process]:
    """All there is of it."""
    known = [psutil.Process(one.pid) for one in read_state(stack.home.state_file).processes]
    return known + [child for one in known for child in one.children(recursive=True)]


async def test_20_mib_pass_in_both_directions(stack: Stack) -> None:
    async with a_peer(stack, "bob") as peer:
        image = numpy.random.default_rng(0).random((1024, 2560))
        assert (await (await peer.get_service("demo")).echo(image) == image).all()


async def test_6_2_1_a_peer_is_who_hypha_says_whatever_it_sends(stack: Stack) -> None:
    async with a_peer(stack, "bob") as peer:
        app = await peer.get_service("demo")
        assert await app.who(context=FORGED) == "bob@lab.example"
        with pytest.raises(Exception, match=r"user bob@lab\.example may not call secret"):
            await app.secret(context=FORGED)
        forge_every_message(peer.rpc)
        assert await app.who() == "bob@lab.example"
        with pytest.raises(Exception, match=r"user bob@lab\.example may not call secret"):
            await app.secret()
    async with a_peer(stack, "alice") as peer:
        assert await (await peer.get_service("demo")).secret() == "42"


def forge_every_message(rpc: Any) -> None:
    """Say in the head of each message, where hypha-rpc looks for what the server adds, that it comes from alice."""
    emit = rpc._emit_message

    async def forged(data: bytes) -> None:
        unpacker = msgpack.Unpacker(io.BytesIO(data))
        head = unpacker.unpack()
        head |= {**FORGED, "ctx": {**head, **FORGED}}
        await emit(b"".join((msgpack.Packer().pack(head), data[unpacker.tell() :])))

    rpc._emit_message = forged


async def test_what_is_closed_to_a_caller_is_closed_over_webrtc_too(stack: Stack) -> None:
    async with a_peer(stack, "anonymous") as peer:
        app = await peer.get_service("demo")
        assert await app.echo(1) == 1
        for method in (app.secret, app.fail):
            with pytest.raises(Exception, match="PermissionError: an anonymous user may not call"):
                await method()


async def test_a_peer_reaches_its_own_app_and_nothing_else_of_the_gateway(stack: Stack) -> None:
    async with a_peer(stack, "bob") as peer:
        for other in ("demo-rtc", "default", "other"):
            with pytest.raises(Exception, match="Service not found"):
                await peer.get_service(other)


@pytest.mark.parametrize(
    ("offer", "said"),
    [
        ("hello", "an offer is"),
        ({"sdp": "v=0\r\n", "type": "answer"}, "an offer is"),
        ({"sdp": "x" * 70_000, "type": "offer"}, "70000 characters"),
        ({"sdp": "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n", "type": "offer"}, "no media; this one has audio"),
    ],
)
async def test_what_is_no_offer_is_refused_in_words(stack: Stack, offer: Any, said: str) -> None:
    async with stack.connected("bob") as server:
        with pytest.raises(Exception, match=f"ValueError: .*{said}"):
            await (await server.get_service(f"{stack.workspace}/demo-rtc")).offer(offer)


async def test_a_peer_lives_through_an_update_and_finds_the_new_methods(stack: Stack) -> None:
    async with a_peer(stack, "bob") as peer, stack.connected() as server:
        app = await peer.get_service("demo")
        worker = await server.get_service(stack.worker_id)
        await worker.upload_app(files=demo_files("1.1.0", more=True))
        await deploy(stack)

        async def is_new() -> bool:
            return (await app.version())["version"] == "1.1.0"

        async def has_more() -> bool:
            return await (await peer.get_service("demo")).extra() == "extra"

        await eventually(is_new, 60)
        await eventually(has_more, 20)


async def test_a_peer_that_vanished_is_swept(stack: Stack, vanished: float) -> None:
    async def none_is_left() -> bool:
        return await number_of_peers(stack) == 0

    await eventually(none_is_left, max(5.0, vanished + 60 - time.monotonic()))


async def test_the_peers_of_an_app_that_is_stopped_are_closed(stack: Stack) -> None:
    async with a_peer(stack, "bob") as peer, stack.connected() as server:
        await (await server.get_service(stack.worker_id)).stop_app("demo")

        async def is_closed() -> bool:
            return peer.connectionState == "closed"

        await eventually(is_closed, 30)
        with pytest.raises(Exception, match="demo-rtc"):
            await server.get_service(f"{stack.workspace}/demo-rtc")
