"""One connection for many callers: what ends it, and what does not."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.adapters import hypha
from reconciler.adapters.hypha import Address, HyphaSession, RemoteError
from reconciler.errors import Unreachable


class Service(dict[str, str]):
    def __init__(self, server: Server, full_id: str) -> None:
        super().__init__(id=full_id)
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return lambda: self._server.answer(self._server.answers[name])


class Server:
    """A connection as hypha-rpc gives it; services answer what they are told to, or never."""

    def __init__(self) -> None:
        self.alive, self.closed, self.looked_up = True, False, 0
        self.config = SimpleNamespace(workspace="ws", user={"id": "me"})
        self.rpc = self
        self.answers: dict[str, Any] = {}
        self._handlers: list[Any] = []
        self._pending: list[asyncio.Future[Any]] = []

    def on(self, event: str, handler: Any) -> None:
        assert event == "manager_refreshed"
        self._handlers.append(handler)

    def come_back(self) -> None:
        for handler in self._handlers:
            handler({})

    async def get_service(self, service_id: str) -> Any:
        self.looked_up += 1
        return Service(self, f"ws/client:{service_id}")

    def answer(self, answer: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if isinstance(answer, Exception):
            future.set_exception(answer)
        elif answer is None:
            self._pending.append(future)
        else:
            future.set_result(answer)
        return future

    async def echo(self, text: str) -> str:
        if not self.alive:
            await asyncio.Event().wait()
        return text

    async def disconnect(self) -> None:
        self.closed = True
        for future in self._pending:
            if not future.done():
                future.set_exception(ConnectionError("RPC connection closed"))


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[Server]:
    """Those that were connected to, in turn."""
    made: list[Server] = []

    async def connect(_: dict[str, Any]) -> Server:
        made.append(Server())
        made[-1].answers = {"slow": None, "quick": "answer"}
        return made[-1]

    monkeypatch.setattr(hypha, "_hypha_rpc", lambda: SimpleNamespace(connect_to_server=connect))
    monkeypatch.setattr(hypha, "_AFTER_RESTART_S", 0.05)
    monkeypatch.setattr(hypha, "_ALIVE_WITHIN_S", 0.5)
    return made


async def asked_something(servers: list[Server]) -> None:
    deadline = time.monotonic() + 5
    while not (servers and servers[-1]._pending):
        assert time.monotonic() < deadline, "nobody has asked"
        await asyncio.sleep(0)


@pytest.fixture
def session() -> HyphaSession:
    return HyphaSession(lambda: Address("http://hypha.example"))


@pytest.mark.parametrize(
    "said",
    [
        RuntimeError("Target peer ws/w is not connected"),
        ConnectionError("Client disconnected: ws/w"),
        RuntimeError("Session not found: ab"),
        RuntimeError("Method expired or not found"),
    ],
)
async def test_a_peer_that_is_gone_takes_nobody_else_along(
    session: HyphaSession, servers: list[Server], said: Exception
) -> None:
    other = asyncio.create_task(session.ask("w", "slow", timeout_s=5))
    await asked_something(servers)
    servers[0].answers["gone"] = said
    with pytest.raises(Unreachable, match=r"connected|found"):
        await session.ask("w", "gone", timeout_s=5)
    assert not servers[0].closed and not other.done()
    assert await session.ask("w", "quick", timeout_s=5) == "answer"
    assert len(servers) == 1 and servers[0].looked_up > 1  # its successor has another address
    other.cancel()


async def test_a_slow_answer_ends_only_a_connection_that_is_dead(session: HyphaSession, servers: list[Server]) -> None:
    with pytest.raises(Unreachable, match=r"no answer in 0\.02 s"):
        await session.ask("w", "slow", timeout_s=0.02)
    assert not servers[0].closed
    servers[0].alive = False
    with pytest.raises(Unreachable, match="no answer"):
        await session.ask("w", "slow", timeout_s=0.02)
    assert servers[0].closed
    assert await session.ask("w", "quick", timeout_s=5) == "answer" and len(servers) == 2


async def test_rc_10_what_was_asked_before_a_restart_of_the_server_fails_soon_after_it(
    session: HyphaSession, servers: list[Server]
) -> None:
    began = time.monotonic()
    asked = asyncio.create_task(session.ask("w", "slow", timeout_s=60))
    await asked_something(servers)
    servers[0].come_back()
    with pytest.raises(Unreachable, match="restarted meanwhile"):
        await asked
    assert session.restarts == 1
    assert time.monotonic() - began < 5 and not servers[0].closed
    assert await session.ask("w", "quick", timeout_s=5) == "answer"


async def test_a_late_trouble_of_an_older_connection_leaves_the_newer_one(
    session: HyphaSession, servers: list[Server]
) -> None:
    late = asyncio.create_task(session.ask("w", "slow", timeout_s=0.1))
    await asked_something(servers)
    older = servers[0]
    older.alive, older._pending = False, []
    await session.close()
    assert await session.ask("w", "quick", timeout_s=5) == "answer"
    with pytest.raises(Unreachable):
        await late
    assert not servers[1].closed


async def test_a_connection_that_is_lost_is_made_again(session: HyphaSession, servers: list[Server]) -> None:
    await session.connection()
    servers[0].answers["lost"] = ConnectionError("Connection is closed")
    servers[0].alive = False
    with pytest.raises(Unreachable, match="connection lost"):
        await session.ask("w", "lost", timeout_s=5)
    assert servers[0].closed and await session.ask("w", "quick", timeout_s=5) == "answer"


async def test_a_no_of_the_other_side_is_not_trouble_of_the_wire(session: HyphaSession, servers: list[Server]) -> None:
    await session.connection()
    servers[0].answers["refused"] = RuntimeError("ValueError: no such version")
    with pytest.raises(RemoteError, match="no such version"):
        await session.ask("w", "refused", timeout_s=5)
    assert not servers[0].closed
