"""How the author's methods are called, and how one look serves many."""

from __future__ import annotations

import asyncio
import inspect
import logging
import pickle
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypha_rpc.utils.schema import schema_method
from ray.exceptions import ActorUnavailableError

from bioengine_runtime.apps.calling import AsRaised, as_gateway_calls_it, as_serve_calls_it, call
from bioengine_runtime.apps.sharing import Shared


class App:
    """One method of each kind."""

    def blocks(self, seconds: float) -> int:
        time.sleep(seconds)
        return threading.get_ident()

    async def waits(self) -> int:
        return threading.get_ident()

    @schema_method
    def counts(self, to: int) -> Iterator[int]:
        """Numbers."""
        yield from range(to)
        yield threading.get_ident()

    @schema_method
    async def streams(self, to: int) -> AsyncIterator[int]:
        """Numbers."""
        for number in range(to):
            yield number

    def fails(self, secret: str) -> None:
        raise ValueError(f"not {secret}")


def offered(name: str, *, debug: bool = False) -> Any:
    return as_serve_calls_it(getattr(App(), name), debug=debug)


async def test_a_method_that_blocks_does_not_hold_the_loop():
    began = time.monotonic()
    long = asyncio.create_task(offered("blocks")(0.5))
    await asyncio.sleep(0.05)
    assert time.monotonic() - began < 0.4
    assert await long != threading.get_ident()


async def test_an_async_method_runs_on_the_loop():
    assert await offered("waits")() == threading.get_ident()


async def test_generators_stream_and_the_ones_that_block_do_it_elsewhere():
    *numbers, thread = [item async for item in offered("counts")(3)]
    assert numbers == [0, 1, 2]
    assert thread != threading.get_ident()
    assert [item async for item in offered("streams")(3)] == [0, 1, 2]


async def test_a_stream_that_nobody_wants_any_more_is_closed():
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    stream = as_serve_calls_it(endless, debug=False)()
    assert await anext(stream) == 1
    await stream.aclose()
    assert closed.is_set()


async def test_the_lifecycle_has_a_thread_even_when_calls_use_all_of_theirs():
    from anyio import to_thread

    limiter = to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 1
    try:
        long = asyncio.create_task(offered("blocks")(0.5))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(0.3):
            assert await call(lambda: "well") == "well"
        await long
    finally:
        limiter.total_tokens = before


async def test_debug_tells_the_method_and_its_time_but_never_its_arguments(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "ray.serve"):
        with pytest.raises(ValueError, match="canary"):
            await offered("fails", debug=True)("canary")
        assert [item async for item in offered("streams", debug=True)(1)] == [0]
    assert "method=fails" in caplog.messages[0]
    assert caplog.messages[0].endswith("outcome=ValueError")
    assert caplog.messages[1].endswith("outcome=ok")
    assert "canary" not in caplog.text


async def test_the_gateway_gives_arguments_whole_and_gets_errors_that_it_can_open():
    waits, fails, streams = (as_gateway_calls_it(offered(name)) for name in ("blocks", "fails", "streams"))
    assert await waits((), {"seconds": 0.0}) != threading.get_ident()
    with pytest.raises(AsRaised) as raised:
        await fails(("this",), {})
    opened = pickle.loads(pickle.dumps(raised.value))
    assert (opened.name, opened.text) == ("ValueError", "not this")
    assert inspect.isasyncgenfunction(streams)


async def test_of_another_deployment_that_is_lost_no_address_is_told():
    async def asks_another() -> None:
        raise ActorUnavailableError("the actor at ipv4:10.0.0.7:43211 is unavailable", b"0" * 16)

    with pytest.raises(AsRaised) as raised:
        await as_gateway_calls_it(asks_another)((), {})
    assert raised.value.text == "another deployment of the app, or the way to it, was lost"


async def test_one_look_serves_all_who_ask_while_another_is_under_way():
    asked, world = 0, 0

    async def look() -> int:
        nonlocal asked
        asked += 1
        seen = world
        await asyncio.sleep(0.05)
        return seen

    shared = Shared(look)
    early = asyncio.create_task(shared())
    await asyncio.sleep(0.01)
    world = 1
    late = await asyncio.gather(*(shared() for _ in range(20)))
    assert await early == 0
    assert late == [1] * 20
    assert asked == 2


async def test_a_look_that_fails_fails_for_those_who_asked_and_no_one_else():
    answers: list[Any] = [OSError("away"), 1]

    async def look() -> int:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    shared = Shared(look)
    assert [type(one) for one in await asyncio.gather(shared(), shared(), return_exceptions=True)] == [OSError, OSError]
    assert await shared() == 1
