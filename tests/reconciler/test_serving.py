"""One address for webhook, page and metrics: its places are few, and are kept for those who ask."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from reconciler import serving as server
from reconciler.serving import CONNECTIONS, serving

PATIENCE_S = 0.4


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    async def slow(_: Request) -> PlainTextResponse:
        await asyncio.sleep(1.5 * PATIENCE_S)
        return PlainTextResponse("done")

    monkeypatch.setattr(server, "ASKS_WITHIN_S", PATIENCE_S)
    async with serving(Starlette(routes=[Route("/", slow)]), "127.0.0.1", 0, option="--port") as bound:
        yield bound


async def until_hung_up(port: int, *pieces: bytes) -> bytes:
    """What is answered to these pieces, of which the last is sent again and again."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def trickle() -> None:
        writer.write(b"".join(pieces))
        while True:
            await asyncio.sleep(PATIENCE_S / 4)
            writer.write(pieces[-1])

    trickling = asyncio.create_task(trickle())
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:
        return b""
    finally:
        trickling.cancel()
        writer.close()


async def test_SW_07_who_sends_half_a_header_keeps_nobody_out(port: int) -> None:
    crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
    for _, writer in crowd:
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\n")
    assert {await asyncio.wait_for(reader.read(), 20) for reader, _ in crowd} == {b""}
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/")).text == "done"
    for _, writer in crowd:
        writer.close()


@pytest.mark.parametrize(
    ("pieces", "answer"),
    [
        pytest.param((b"",), b"", id="nothing"),
        pytest.param((b"GET / HTTP/1.1\r\n", b"x: y\r\n"), b"", id="header by header"),
        pytest.param((b"GET /no HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\n", b"x: y\r\n"), b"404", id="the second"),
        pytest.param(
            (b"GET /no HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\n\r\n", b"x"), b"404", id="a body unread"
        ),
    ],
)
async def test_SW_07_who_goes_on_slowly_is_hung_up_on_as_well(
    port: int, pieces: tuple[bytes, ...], answer: bytes
) -> None:
    assert answer in await until_hung_up(port, *pieces)


async def test_an_answer_may_take_longer_than_the_question(port: int) -> None:
    async with httpx.AsyncClient() as client:
        for _ in range(2):
            assert (await client.get(f"http://127.0.0.1:{port}/")).text == "done"


async def test_it_listens_as_soon_as_its_port_is_known() -> None:
    async with serving(Starlette(), "127.0.0.1", 0, option="--port") as port:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
