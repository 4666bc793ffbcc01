"""WebRTC connections into one app, without Hypha and Ray: handshake, limits, and who is swept."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import aiortc
import pytest
from aiortc.rtcicetransport import RTCIceGatherer
from hypha_rpc import get_rtc_service

from bioengine_runtime.contract.app import IceServer
from bioengine_runtime.gateway import rtc
from bioengine_runtime.gateway.calls import AppCalls
from bioengine_runtime.gateway.errors import TooManyRequests
from bioengine_runtime.gateway.offer import Offer, OfferedMethod
from bioengine_runtime.gateway.rtc import Peers
from bioengine_runtime.rpc.callers import Callers
from bioengine_runtime.rpc.door import Invalid

BOB = {"user": {"id": "bob", "email": "bob@lab.example"}, "ws": "ws-user-bob", "from": "b/c", "to": "w/gateway"}


def some_peers(most: int = 3) -> Peers:
    async def who(context: Any = None) -> str:
        return context["user"]["id"]

    return Peers("demo", lambda: "w", lambda: {"id": "demo", "who": who}, most=most)


async def connect(peers: Peers) -> Any:
    """As a client does it that reaches the offer through Hypha as bob."""

    async def get_service(_: str) -> Any:
        return SimpleNamespace(offer=lambda params: peers.answer(params, BOB, []))

    server = SimpleNamespace(get_service=get_service, config={"workspace": "ws-user-bob"})
    return await get_rtc_service(server, "w/demo-rtc")


async def an_offer() -> dict[str, str]:
    """An offer whose maker is gone before it is answered."""
    connection = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
    connection.createDataChannel("label")
    await connection.setLocalDescription(await connection.createOffer())
    made = connection.localDescription
    await connection.close()
    return {"sdp": made.sdp, "type": made.type}


async def test_a_peer_that_says_goodbye_is_closed_at_the_next_sweep() -> None:
    peers = some_peers()
    client = await connect(peers)
    assert await (await client.get_service("demo")).who() == "bob"
    assert len(peers) == 1
    await client.disconnect()
    await asyncio.sleep(0.2)
    assert len(peers) == 0
    await peers.sweep()
    await peers.close()


async def test_an_offer_that_is_never_taken_up_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = some_peers(most=1)
    await peers.answer(await an_offer(), BOB, [])
    await peers.sweep()
    assert len(peers) == 1
    monkeypatch.setattr(rtc, "LOST_AFTER_S", 0.0)
    await peers.sweep()
    assert len(peers) == 0


async def test_there_are_no_more_peers_than_the_limit() -> None:
    peers = some_peers(most=1)
    client = await connect(peers)
    with pytest.raises(TooManyRequests, match="demo has 1 WebRTC connections, which is its limit"):
        await peers.answer(await an_offer(), BOB, [])
    await client.disconnect()
    await asyncio.sleep(0.2)
    await (await connect(peers)).disconnect()  # who has gone does not count
    await peers.close()


async def test_an_offer_that_cannot_be_answered_leaves_nothing_behind() -> None:
    peers = some_peers()
    with pytest.raises(Invalid, match="no media; this one has audio, application"):
        await peers.answer({"type": "offer", "sdp": "m=audio 9 x\r\nm=application 9 x\r\n"}, BOB, [])
    with pytest.raises(Invalid, match="cannot be understood"):
        await peers.answer({"type": "offer", "sdp": "m=application 9 nonsense\r\n"}, BOB, [])
    assert len(peers) == 0


async def test_closing_ends_the_calls_in_flight() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    def wait(context: Any = None) -> asyncio.Future[None]:  # noqa: ARG001
        begun.set()
        answer = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda _: ended.set())
        return answer

    peers = Peers("demo", lambda: "w", lambda: {"id": "demo", "wait": wait})
    client = await connect(peers)
    waiting = asyncio.ensure_future((await client.get_service("demo")).wait())
    await asyncio.wait_for(begun.wait(), 5)
    await peers.close()
    await asyncio.wait_for(ended.wait(), 5)
    with pytest.raises(Exception, match="closed"):
        await waiting
    await client.disconnect()


@pytest.mark.parametrize("asked", [[], [IceServer(urls="turn:turn.lab.example", username="u", credential="c")]])
async def test_only_the_ice_servers_of_the_app_are_asked(
    asked: list[IceServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    real = RTCIceGatherer.__init__

    def noting(self: RTCIceGatherer, iceServers: Any = None, **_: Any) -> None:
        seen.append(iceServers)
        real(self, iceServers=[])

    offer = await an_offer()
    monkeypatch.setattr(RTCIceGatherer, "__init__", noting)
    peers = some_peers()
    await peers.answer(offer, BOB, asked)
    await peers.close()
    assert [[(one.urls, one.username, one.credential) for one in servers] for servers in seen] == [
        [(one.urls, one.username, one.credential) for one in asked]
    ]


def some_calls(**changes: Any) -> AppCalls:
    method = OfferedMethod("run", {"name": "run"}, wants_context=False)
    given = {"app_id": "demo", "entry": "Demo", "code_digest": "d", "name": "Demo", "description": ""}
    more = {"methods": (method,), "authorized_users": ["bob@lab.example"], "owner": "lab", "capacity": 1}
    offer = Offer(**{**given, **more, **changes})
    return AppCalls(offer, lambda: (), lambda service: f"w/gateway:{service}", Callers(AsyncMock()))


def test_callers_are_told_the_ice_servers_and_the_service() -> None:
    servers = (IceServer(urls=["stun:a", "turn:b"], username="u", credential="c"),)
    calls = some_calls(ice_servers=servers)
    service = calls.rtc_service()
    assert (service["id"], service["config"]["require_context"]) == ("demo-rtc", True)
    assert service["config"]["ice_servers"] == [{"urls": ["stun:a", "turn:b"], "username": "u", "credential": "c"}]
    assert "ice_servers" not in some_calls().rtc_service()["config"]
    assert calls.service()["get_rtc_service_id"]() is None
    calls.takes_peers = True
    assert calls.service()["get_rtc_service_id"]() == "w/gateway:demo-rtc"


async def test_who_may_call_nothing_of_an_app_gets_no_connection() -> None:
    offer = some_calls().rtc_service()["offer"]
    stranger = {**BOB, "user": {"id": "eve", "email": "eve@lab.example"}}
    with pytest.raises(Exception, match=r"user eve@lab\.example may not call demo") as caught:
        await offer({}, context=stranger)
    assert type(caught.value).__name__ == "PermissionError"
    with pytest.raises(Exception, match="an offer is"):
        await offer({}, context=BOB)


async def test_without_aiortc_the_app_is_offered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bioengine_runtime.gateway.rtc")
    monkeypatch.setitem(sys.modules, "aiortc", None)
    calls = some_calls()
    assert calls.peers is None
    service = calls.service()
    assert callable(service["run"])
    assert (service["get_rtc_service_id"](), service["get_num_pcs"]()) == (None, 0)
