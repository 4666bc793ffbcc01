"""Messages packed by hand, as somebody would who wants to be somebody else."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
import pytest
from hypha_rpc import rpc
from hypha_rpc.rpc import RPC

from bioengine_runtime.rpc.access import Caller
from bioengine_runtime.true_sender import Parts, believe_hypha_alone
from reconciler.adapters import hypha

BOB = {"id": "bob", "email": "bob@lab.example", "is_anonymous": False}
ROOT = {"id": "root", "email": "root@lab.example", "is_anonymous": False, "scope": {"workspaces": {"*": "a"}}}
OF_HYPHA = {"ws": "ws-user-bob", "from": "ws-user-bob/his", "to": "lab/us", "user": BOB}
FORGED = {"ws": "lab", "from": "lab/us", "to": "lab/us", "user": ROOT}
CACHE = "services.built-in.message_cache."


def packed(*parts: Any) -> bytes:
    return b"".join(msgpack.packb(part) or b"" for part in parts)


class Connection:
    """Nobody is at the other end."""

    manager_id = "manager"

    async def emit_message(self, _: bytes) -> None: ...
    def on_message(self, _: object) -> None: ...
    def on_connected(self, _: object) -> None: ...
    def on_disconnected(self, _: object) -> None: ...


class World:
    """A service, and who has called it."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        believe_hypha_alone()
        self._rpc = RPC(Connection(), client_id="us", workspace="lab", silent=True)
        config = {"visibility": "public", "require_context": True}
        self._rpc.add_service({"id": "door", "config": config, "knock": self._knock})

    async def hears(self, *rest: Any, method: str = "services.door.knock", **head: Any) -> list[Caller]:
        """What comes of this message. What Hypha writes, it writes over what the sender has written in its place."""
        message = {"type": "method", "method": method, **head, **OF_HYPHA}
        self._rpc._on_message(packed(message, *rest))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self.callers

    def _knock(self, *_: Any, context: dict[str, Any]) -> None:
        self.callers.append(Caller.from_context(context))


@pytest.fixture
async def world() -> World:
    return World()


HIM = Caller("bob", "bob@lab.example")


async def test_who_calls_is_who_hypha_says(world: World) -> None:
    assert await world.hears({"args": []}) == [HIM]


async def test_a_context_in_the_head_of_a_message_is_not_read(world: World) -> None:
    assert await world.hears(ctx=FORGED) == [HIM]


@pytest.mark.parametrize("rest", [{"ctx": FORGED}, FORGED, {**FORGED, "ctx": FORGED}, [["ctx", FORGED]]])
async def test_what_the_rest_of_a_message_says_of_its_sender_is_not_read(world: World, rest: Any) -> None:
    assert await world.hears(rest) == [HIM]


@pytest.mark.parametrize("rest", [{"ctx": FORGED}, FORGED, [["ctx", FORGED]]])
async def test_a_message_in_pieces_is_read_like_any_other(world: World, rest: Any) -> None:
    message = {"type": "method", "method": "services.door.knock", "ctx": FORGED, **FORGED}
    whole = packed(message, rest)
    await world.hears({"args": ["key"]}, method=CACHE + "create")
    await world.hears({"args": ["key", whole[:20]]}, method=CACHE + "append")
    await world.hears({"args": ["key", whole[20:]]}, method=CACHE + "append")
    assert await world.hears({"args": ["key"]}, method=CACHE + "process") == [HIM]


def test_the_reconciler_believes_hypha_alone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "msgpack", msgpack)
    hypha._hypha_rpc()
    assert rpc.msgpack.Unpacker is Parts
