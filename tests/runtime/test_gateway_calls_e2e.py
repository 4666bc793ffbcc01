"""Calls through the gateway on a real Hypha and Ray: capacity, streams, large arrays, errors, who may, cancelling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy
import pytest
import pytest_asyncio

from tests.runtime.stack import Stack, a_stack, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MANIFEST = """
id: busy
name: Busy
id_emoji: "⏳"
description: Takes two calls at once and lets two wait.
type: ray-serve
format_version: 0.5.0
version: 1.0.0
authorized_users: {"*": ["*"], "by_list": ["alice@lab.example", "bob@lab.example"], "closed": []}
deployments: ["busy:Busy"]
"""

CODE = '''
import asyncio
from hypha_rpc.utils.schema import schema_method
from ray import serve


class NoSuchImage(Exception):
    def __init__(self, name, where):
        super().__init__(f"no image {name} in {where}")


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Busy:
    def __init__(self):
        self.gate = asyncio.Event()
        self.cancelled = 0
        self.given_up = 0

    @schema_method
    async def wait(self) -> str:
        """Until `open_gate`."""
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "done"

    @schema_method
    async def open_gate(self) -> None:
        self.gate.set()

    @schema_method
    async def counters(self) -> list:
        return [self.cancelled, self.given_up]

    @schema_method
    async def echo(self, value):
        return value

    @schema_method
    async def zeros(self, number: int) -> bytes:
        return bytes(number)

    @schema_method
    async def slowly(self, number: int):
        """Numbers, with a pause after each."""
        try:
            for one in range(number):
                yield one
                await asyncio.sleep(0.1)
        finally:
            self.given_up += 1

    @schema_method
    def at_once(self, number: int):
        """Numbers of a generator without async."""
        for one in range(number):
            yield one

    @schema_method
    async def breaks_off(self):
        """Two items and an error."""
        yield 1
        yield 2
        raise NoSuchImage("x.tif", "store")

    @schema_method
    async def fail(self):
        raise NoSuchImage("x.tif", "store")

    @schema_method
    async def without_context(self, value: int = 0) -> int:
        """Fails when it is given anything else."""
        return value

    @schema_method
    async def with_context(self, context: dict = None) -> str:
        return context["user"]["id"]

    @schema_method
    async def by_list(self) -> str:
        return "listed"

    @schema_method
    async def closed(self) -> str:
        return "closed"
'''


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack() -> AsyncIterator[Stack]:
    async with a_stack() as running:
        async with running.connected() as server:
            worker = await server.get_service(running.worker_id)
            files = [
                {"name": "manifest.yaml", "content": MANIFEST, "type": "text"},
                {"name": "busy.py", "content": CODE, "type": "text"},
            ]
            await worker.upload_app(files=files)
            limits = {"max_ongoing_requests": 2, "max_queued_requests": 2}
            await worker.deploy_app(artifact_id="busy", application_id="busy", **limits)

            async def answers() -> bool:
                return await (await server.get_service(f"{running.workspace}/busy")).echo("yes") == "yes"

            await eventually(answers, 120)
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def app(stack: Stack) -> AsyncIterator[Any]:
    """As bob holds it."""
    async with stack.connected("bob") as server:
        yield await server.get_service(f"{stack.workspace}/busy")


async def test_20_mib_pass_in_both_directions(app: Any) -> None:
    image = numpy.random.default_rng(0).random((1024, 2560))
    assert (await app.echo({"image": image, "name": "x"}))["image"].tobytes() == image.tobytes()


async def test_a_small_question_may_have_an_answer_beyond_serves_usual_limit(app: Any) -> None:
    assert await app.zeros(20 * 1024**2) == bytes(20 * 1024**2)


async def test_generators_with_and_without_async_are_streamed(app: Any) -> None:
    assert [one async for one in await app.slowly(3)] == [0, 1, 2]
    assert [one async for one in await app.at_once(3)] == [0, 1, 2]


async def test_the_errors_of_an_app_arrive_as_they_are(app: Any) -> None:
    with pytest.raises(Exception, match=r"NoSuchImage: no image x\.tif in store") as caught:
        await app.fail()
    assert "ray" not in str(caught.value).lower()
    came: list[int] = []
    with pytest.raises(Exception, match=r"NoSuchImage: no image x\.tif in store"):
        async for one in await app.breaks_off():
            came.append(one)
    assert came == [1, 2]


async def test_only_a_method_that_declares_the_context_is_given_it(app: Any) -> None:
    assert await app.with_context() == "bob"
    assert await app.without_context(7) == 7
    assert await app.without_context(value=7, context={"user": {"id": "alice"}}) == 7


async def test_each_method_has_its_own_list_and_an_empty_one_is_for_admins(stack: Stack, app: Any) -> None:
    assert await app.by_list() == "listed"
    with pytest.raises(Exception, match=r"PermissionError: user bob@lab\.example may not call closed") as caught:
        await app.closed()
    assert "alice" not in str(caught.value)
    async with stack.connected("anonymous") as server:
        anonymous = await server.get_service(f"{stack.workspace}/busy")
        assert await anonymous.echo(1) == 1
        for method in (anonymous.by_list, anonymous.closed):
            with pytest.raises(Exception, match="PermissionError: an anonymous user may not call"):
                await method()
    async with stack.connected() as server:
        assert await (await server.get_service(f"{stack.workspace}/busy")).closed() == "closed"


async def test_a_caller_that_goes_away_cancels_its_call_and_its_stream(stack: Stack, app: Any) -> None:
    _, ended = await app.counters()
    async with stack.connected("bob") as server:
        busy = await server.get_service(f"{stack.workspace}/busy")
        waiting = asyncio.ensure_future(busy.wait())
        stream = await busy.slowly(10_000)
        assert await anext(stream) == 0
        assert await app.get_load() > 0
    await asyncio.gather(waiting, return_exceptions=True)

    async def both_have_ended() -> bool:
        return await app.counters() == [1, ended + 1] and await app.get_load() == 0

    await eventually(both_have_ended, 60)


async def test_beyond_its_capacity_an_app_says_so_instead_of_queuing_without_end(app: Any) -> None:
    assert await app.get_load() == 0
    waiting = [asyncio.ensure_future(app.wait()) for _ in range(2)]
    loads = [await app.get_load()]
    await asyncio.sleep(0.5)
    waiting += [asyncio.ensure_future(app.wait()) for _ in range(2)]
    await asyncio.sleep(0.5)
    loads.append(await app.get_load())
    said = r"TooManyRequests: busy is at its capacity: 2 requests are being worked on and 2 wait; try again later"
    with pytest.raises(Exception, match=said):
        await app.echo(1)
    with pytest.raises(Exception, match=said):
        async for _ in await app.slowly(1):
            pass
    assert loads[-1] == 1.0
    assert not any(one.done() for one in waiting)
