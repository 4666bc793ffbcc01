"""The session under gateway and worker: same id, same services, whatever happens to either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
import pytest_asyncio
from hypha_rpc import connect_to_server

from bioengine_runtime.hypha_session import HyphaAddress, HyphaSession
from bioengine_runtime.local.workspace import ADMIN_ID
from bioengine_runtime.rpc.access import Caller
from tests.runtime.stack import Stack, a_stack, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack() -> AsyncIterator[Stack]:
    async with a_stack(with_worker=False) as running:
        yield running


@asynccontextmanager
async def a_session(stack: Stack, client_id: str, **changes: Any) -> AsyncIterator[HyphaSession]:
    address = HyphaAddress(stack.url, stack.workspace, stack.home.secrets.admin_token, client_id)
    session = HyphaSession(replace(address, **changes))
    session.start()
    try:
        yield session
    finally:
        await session.stop()


def a_service(answer: str, *more: str) -> dict[str, object]:
    def saying() -> Any:
        async def say() -> str:
            return answer

        return say

    return {"id": "talk", "config": {"visibility": "public"}, **{name: saying() for name in ("say", *more)}}


async def test_a_new_session_of_the_same_id_takes_over_from_one_that_has_stopped(stack: Stack) -> None:
    async with a_session(stack, "one") as first, stack.connected("bob") as server:
        await first.put(a_service("first"))
        await asyncio.wait_for(first.connected(), 20)
        assert await (await server.get_service(f"{stack.workspace}/talk")).say() == "first"
        await first.stop()
        async with a_session(stack, "one") as second:
            await second.put(a_service("second"))
            await asyncio.wait_for(second.connected(), 20)
            assert await (await server.get_service(f"{stack.workspace}/talk")).say() == "second"


async def test_a_held_handle_works_while_its_service_is_replaced_again_and_again(stack: Stack) -> None:
    answers: set[str] = set()
    async with a_session(stack, "two") as session, stack.connected("bob") as server:
        await session.connected()
        await session.put(a_service("0"))
        held = await server.get_service(f"{stack.workspace}/talk")

        async def keep_asking() -> None:
            while True:
                answers.add(await held.say())

        asking = asyncio.create_task(keep_asking())
        for number in range(1, 20):
            await session.put(a_service(str(number), f"extra{number}"))
            await asyncio.sleep(0.05)
        assert not asking.done(), asking.exception()
        asking.cancel()
        assert "extra19" in await server.get_service(f"{stack.workspace}/talk")
    assert len(answers) > 10


async def test_a_service_the_server_has_lost_is_put_back(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bioengine_runtime.hypha_session.VERIFY_EVERY_S", 0.5)
    monkeypatch.setattr("bioengine_runtime.hypha_session.PROBE_EVERY_S", 0.5)
    async with a_session(stack, "three") as session:
        server = await session.connected()
        await session.put(a_service("here"))
        manager = await server.rpc.get_manager_service({"case_conversion": "snake"})
        await manager.unregister_service(f"{stack.workspace}/three:talk")

        async def is_back() -> bool:
            return await (await server.get_service(f"{stack.workspace}/three:talk")).say() == "here"

        await eventually(is_back, 20)


async def test_one_service_that_hypha_refuses_takes_no_other_off_hypha(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither at connecting nor later, and once it is gone nothing is left of it."""
    monkeypatch.setattr("bioengine_runtime.hypha_session.VERIFY_EVERY_S", 0.2)
    monkeypatch.setattr("bioengine_runtime.hypha_session.PROBE_EVERY_S", 0.2)
    monkeypatch.setattr("bioengine_runtime.hypha_session.GIVE_UP_AFTER_S", 0.5)
    refused = {**a_service("never"), "id": "refused", "description": "x" * 1025}
    async with a_session(stack, "three") as session:
        await session.put(refused)
        await session.put(a_service("good"))
        server = await asyncio.wait_for(session.connected(), 20)
        assert await (await server.get_service(f"{stack.workspace}/three:talk")).say() == "good"
        with pytest.raises(Exception, match="Failed to notify"):
            await session.put({**a_service("bad"), "description": "x" * 1025})
        await asyncio.sleep(1)
        assert (session.is_connected, session.connections) == (True, 1)
        assert await (await server.get_service(f"{stack.workspace}/three:talk")).say() == "good"
        assert set(server.rpc._services) == {"built-in", "talk"}  # or hypha-rpc never comes back from a lost connection
        await session.withdraw("refused")
        assert session.services() == ("talk",)


async def test_ro_16_of_two_services_with_one_id_each_is_found_by_its_client_and_withdrawn_alone(stack: Stack) -> None:
    """The short id means both, so nobody is called by it; who holds a handle keeps calling the one it is of."""
    short, mine_id, theirs_id = (f"{stack.workspace}/{one}" for one in ("talk", "mine:talk", "theirs:talk"))
    async with a_session(stack, "mine") as mine, a_session(stack, "theirs") as theirs, stack.connected("bob") as server:
        await asyncio.gather(mine.connected(), theirs.connected())
        await mine.put(a_service("mine"))
        held = await server.get_service(short)
        await theirs.put(a_service("theirs"))
        with pytest.raises(Exception, match="Multiple services found"):
            await server.get_service(short)
        with pytest.raises(AssertionError, match="Multiple services found"):
            await stack.post("talk", "say", {})
        assert [await (await server.get_service(one)).say() for one in (mine_id, theirs_id)] == ["mine", "theirs"]
        assert await stack.post("theirs:talk", "say", {}) == "theirs" and await held.say() == "mine"
        await mine.withdraw("talk")
        assert await (await server.get_service(short)).say() == "theirs" == await stack.post("talk", "say", {})
        with pytest.raises(Exception, match="not found"):
            await server.get_service(mine_id)


async def test_a_token_file_that_is_mended_is_read_again(stack: Stack, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("not a token")
    async with a_session(stack, "four", token_file=token) as session:
        await asyncio.sleep(1.5)
        assert not session.is_connected
        assert not session.has_died
        token.write_text(stack.home.secrets.admin_token.read_text())
        await asyncio.wait_for(session.connected(), 20)


async def test_more_calls_than_hypha_takes_of_one_client_are_slowed_and_not_cut_off(stack: Stack) -> None:
    async with a_session(stack, "five") as session, AsyncExitStack() as callers:
        await session.connected()
        await session.put(a_service("paced"))

        async def call_often() -> int:
            caller = await callers.enter_async_context(stack.connected("bob"))
            held = await caller.get_service(f"{stack.workspace}/talk")
            return sum([await held.say() == "paced" for _ in range(900)])

        done = await asyncio.gather(*(call_often() for _ in range(3)))
        assert (sum(done), session.connections) == (2700, 1)


async def test_a_server_that_stays_away_is_waited_for_and_finds_the_same_services(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with ten minutes, in small: far longer than hypha-rpc's own patience, and many attempts in vain."""
    monkeypatch.setattr("bioengine_runtime.hypha_session.GIVE_UP_AFTER_S", 1.0)
    monkeypatch.setattr("bioengine_runtime.hypha_session.PROBE_EVERY_S", 0.5)
    monkeypatch.setattr("bioengine_runtime.hypha_session.PROBE_TIMEOUT_S", 1.0)
    monkeypatch.setattr("bioengine_runtime.hypha_session.LONGEST_WAIT_S", 0.5)
    async with a_session(stack, "six") as session:
        await session.connected()
        await session.put(a_service("here"))
        await stack.stop_hypha()
        await asyncio.sleep(8)
        assert not session.is_connected and not session.has_died and session.services() == ("talk",)
        await stack.start_hypha()
        await asyncio.wait_for(session.connected(), 20)
        async with stack.connected("bob") as server:
            assert await (await server.get_service(f"{stack.workspace}/six:talk")).say() == "here"


async def test_nobody_becomes_somebody_else_by_a_message_packed_by_hand(stack: Stack) -> None:
    root = {"id": "root", "email": "root@lab.example", "roles": [], "is_anonymous": False}
    forged = {"user": {**root, "scope": {"workspaces": {"*": "a"}, "extra_scopes": []}}, "ws": stack.workspace}
    callers: asyncio.Queue[str] = asyncio.Queue()

    async def knock(context: Any = None) -> None:
        callers.put_nowait(context["user"]["email"])

    async with a_session(stack, "door") as session, stack.connected("bob") as bob:
        config = {"visibility": "public", "require_context": True}
        await session.put({"id": "door", "config": config, "knock": knock})
        await asyncio.wait_for(session.connected(), 20)
        send = bob.rpc._emit_message

        async def send_forged(message: bytes) -> None:
            unpacker = msgpack.Unpacker()
            unpacker.feed(message)
            head, rest = unpacker.unpack(), unpacker.unpack()
            context = {"ctx": {**forged, "from": head["from"], "to": head["to"]}}
            await send(b"".join(msgpack.packb(part | context) or b"" for part in (head, rest)))

        door = await bob.get_service(f"{stack.workspace}/door:door")
        bob.rpc._emit_message = send_forged
        await door.knock()
        assert await callers.get() == "bob@lab.example"
        with pytest.raises(Exception, match="do not have any permission"):  # of Hypha itself
            await bob.generate_token({"workspace": stack.workspace, "permission": "admin"})


@pytest.mark.parametrize(("permission", "given_away"), [("read", True), ("read_write", False), ("admin", False)])
async def test_what_a_made_token_may_is_told_with_each_call(stack: Stack, permission: str, given_away: bool) -> None:
    callers: asyncio.Queue[Caller] = asyncio.Queue()

    async def knock(context: Any = None) -> None:
        callers.put_nowait(Caller.from_context(context))

    async with a_session(stack, "told") as session, stack.connected() as admin:
        config = {"visibility": "public", "require_context": True}
        await session.put({"id": "told", "config": config, "knock": knock})
        await asyncio.wait_for(session.connected(), 20)
        token = await admin.generate_token({"workspace": stack.workspace, "permission": permission})
        async with connect_to_server({"server_url": stack.url, "token": token, "logger": None}) as child:
            await (await child.get_service(f"{stack.workspace}/told:told")).knock()
        caller = await callers.get()
        assert (caller.user_id, caller.given_away) == (ADMIN_ID, given_away)
