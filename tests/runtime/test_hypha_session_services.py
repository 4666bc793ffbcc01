"""The services of a session: one that fails is its own matter, and what is believed to be offered is what is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from bioengine_runtime import hypha_session
from bioengine_runtime.hypha_session import HyphaAddress, HyphaSession


class Server:
    """A connection as hypha-rpc gives it, and what the server and hypha-rpc each know of our services."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(workspace="w", get=lambda _: None)
        self.rpc = self
        self.listed: dict[str, Any] = {}
        self.kept: dict[str, Any] = {}
        self.refuses: set[str] = set()
        self.silent: set[str] = set()
        self.alive = True
        self.echoes = asyncio.Event()
        """Whether it answers at this moment."""
        self.echoes.set()

    async def _emit_message(self, message: bytes) -> None: ...

    async def echo(self, text: str) -> str:
        if not self.alive:
            await asyncio.Event().wait()
        await self.echoes.wait()
        return text

    async def list_services(self, _: Any) -> list[dict[str, str]]:
        return [{"id": f"w/me:{one}@*"} for one in self.listed]

    def add_service(self, service: Any, overwrite: bool) -> None:
        assert overwrite
        self.kept[service["id"]] = service

    async def register_service(self, service: Any, options: Any) -> None:
        self.add_service(service, **options)
        await self._answers(service["id"])
        self.listed[service["id"]] = service

    async def get_manager_service(self, _: Any) -> Any:
        return SimpleNamespace(unregister_service=self._unregister)

    async def unregister_service(self, service_id: str, notify: bool) -> None:
        assert not notify
        if self.kept.pop(service_id, None) is None:
            raise Exception(f"Service not found: {service_id}")

    async def _unregister(self, full_id: str) -> None:
        service_id = full_id.removeprefix("w/me:")
        await self._answers(service_id)
        if self.listed.pop(service_id, None) is None:
            raise Exception(f"RemoteError: KeyError: 'Service not found: {full_id}@*'")

    async def _answers(self, service_id: str) -> None:
        if service_id in self.silent or not self.alive:
            await asyncio.Event().wait()
        if service_id in self.refuses:
            raise Exception(f"refused {service_id}")

    async def disconnect(self) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()

    async def connect(_: Any) -> Server:
        made.listed.clear()
        return made

    monkeypatch.setattr(hypha_session, "connect_to_server", connect)
    for name in ("PROBE_EVERY_S", "VERIFY_EVERY_S"):
        monkeypatch.setattr(hypha_session, name, 0.01)
    for name in ("PROBE_TIMEOUT_S", "GIVE_UP_AFTER_S"):
        monkeypatch.setattr(hypha_session, name, 0.1)
    return made


@pytest_asyncio.fixture
async def session(tmp_path: Path) -> AsyncIterator[HyphaSession]:
    token = tmp_path / "token"
    token.write_text("t")
    made = HyphaSession(HyphaAddress("http://hypha.example", "w", token, "me"))
    yield made
    await made.stop()


def a_service(service_id: str, version: int = 1) -> dict[str, Any]:
    return {"id": service_id, "version": version}


async def until(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never was")


@pytest.mark.parametrize("fault", ["refuses", "silent"])
async def test_a_service_that_fails_keeps_neither_the_others_nor_the_connection(
    server: Server, session: HyphaSession, fault: str
) -> None:
    getattr(server, fault).add("bad")
    for service_id in ("bad", "good"):
        await session.put(a_service(service_id))
    session.start()
    await asyncio.wait_for(session.connected(), 5)
    assert set(server.listed) == {"good"}
    await asyncio.sleep(0.5)
    assert (session.is_connected, session.connections) == (True, 1)
    getattr(server, fault).clear()
    await until(lambda: "bad" in server.listed)


async def test_a_server_that_answers_nothing_any_more_is_given_up(server: Server, session: HyphaSession) -> None:
    await session.put(a_service("good"))
    session.start()
    await session.connected()
    server.alive = False
    await until(lambda: not session.is_connected)
    server.alive = True
    await asyncio.wait_for(session.connected(), 5)
    assert session.connections == 2


@pytest.mark.parametrize("fault", ["refuses", "silent"])
async def test_what_could_not_be_put_is_not_offered_and_hypha_rpc_does_not_know_it(
    server: Server, session: HyphaSession, fault: str
) -> None:
    session.start()
    await session.connected()
    await session.put(a_service("good"))
    getattr(server, fault).update({"bad", "good"})
    for service in (a_service("bad"), a_service("good", 2)):
        with pytest.raises(Exception, match=r"refused|^$"):
            await session.put(service)
    assert session.services() == ("good",)
    assert server.kept == {"good": a_service("good")}


async def test_what_could_not_be_withdrawn_is_still_offered_until_it_can(server: Server, session: HyphaSession) -> None:
    session.start()
    await session.connected()
    await session.put(a_service("app"))
    server.silent.add("app")
    with pytest.raises(TimeoutError):
        await session.withdraw("app")
    assert session.services() == ("app",) == tuple(server.listed)
    server.silent.clear()
    await session.withdraw("app")
    assert (session.services(), server.listed, server.kept) == ((), {}, {})


async def test_a_service_that_the_server_took_without_our_knowing_can_be_withdrawn(
    server: Server, session: HyphaSession
) -> None:
    session.start()
    await session.connected()
    server.silent.add("app")
    with pytest.raises(TimeoutError):
        await session.put(a_service("app"))
    server.listed["app"] = a_service("app")
    server.silent.clear()
    await session.withdraw("app")
    assert not server.listed
    await session.withdraw("app")  # that it is not there is what was wanted


@pytest.mark.parametrize("moment", range(5))
async def test_a_session_stops_also_when_an_answer_comes_at_that_moment(
    server: Server, session: HyphaSession, moment: int
) -> None:
    session.start()
    await session.connected()
    server.echoes.clear()
    await asyncio.sleep(0.05)
    server.echoes.set()
    for _ in range(moment):
        await asyncio.sleep(0)
    stopping = asyncio.create_task(session.stop())
    assert (await asyncio.wait({stopping}, timeout=1))[0]


async def test_a_session_that_was_stopped_is_not_connected_and_offers_what_it_is_given_to_nobody(
    server: Server, session: HyphaSession
) -> None:
    session.start()
    await session.connected()
    await session.stop()
    assert not session.is_connected
    await session.put(a_service("late"))
    assert "late" not in server.listed
