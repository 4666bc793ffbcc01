"""How the gateway's process ends: every call that has begun is answered first, whoever asks it to go, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bioengine_runtime.gateway import replica
from bioengine_runtime.gateway.replica import Gateway


class Hypha:
    """The connection, and the lease on it; `events` says what became of them."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.lost = asyncio.Event()
        self.ping = self.service_id = self.start = lambda *_: None

    async def take(self) -> None: ...

    async def until_lost(self) -> None:
        await self.lost.wait()

    async def stop(self) -> None:
        self.events.append("disconnected")

    async def let_go(self) -> None:
        self.events.append("let go")


class Apps:
    """One call that is worked on."""

    in_flight = 1

    def __init__(self, events: list[str]) -> None:
        self._events = events

    async def follow(self, _: Any) -> None: ...

    async def close_peers(self) -> None:
        self._events.append("peers closed")


@pytest.fixture
def hypha(monkeypatch: pytest.MonkeyPatch) -> Hypha:
    made = Hypha()

    async def nothing_runs() -> dict[str, Any]:
        return {}

    monkeypatch.setattr(replica, "HyphaSession", lambda _: made)
    monkeypatch.setattr(replica, "Lease", lambda _: made)
    monkeypatch.setattr(replica, "Services", lambda *_: Apps(made.events))
    monkeypatch.setattr(replica, "read_records", nothing_runs)
    return made


@pytest_asyncio.fixture
async def gateway(hypha: Hypha) -> AsyncIterator[Any]:  # noqa: ARG001
    made: Any = object.__new__(Gateway)
    await made.__init__("http://hypha.example", "w", "token", "gateway", "w/c:bioengine-worker", 1.0)
    yield made
    made.__class__ = type("Gone", (), {})  # Python would call `__del__`, which is Serve's to call, and to wait for


@pytest.mark.parametrize("when", ["before the lease is lost", "after the lease was lost"])
async def test_a_call_in_flight_is_answered_before_the_gateway_goes(hypha: Hypha, gateway: Any, when: str) -> None:
    await asyncio.sleep(0)
    if when == "after the lease was lost":
        hypha.lost.set()
        await asyncio.sleep(0.02)
    going = asyncio.create_task(gateway.__del__())
    await asyncio.sleep(0.1)
    assert not going.done() and hypha.events == []
    gateway._services.in_flight = 0
    await asyncio.wait_for(going, 5)
    assert hypha.events == ["peers closed", "disconnected", "let go"]
