"""What the gateway sends where: light calls straight to a replica, signs of life only for calls that last."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
import numpy
import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata
from ray.exceptions import ActorUnavailableError, RayError, UnserializableException
from ray.serve.exceptions import RayServeException

from bioengine_runtime.apps.calling import FOR_GATEWAY, AsRaised
from bioengine_runtime.gateway import calls
from bioengine_runtime.gateway.calls import AppCalls
from bioengine_runtime.gateway.offer import Offer, OfferedMethod
from bioengine_runtime.gateway.weight import LIGHT_BYTES, is_light
from bioengine_runtime.rpc.callers import Callers
from bioengine_runtime.signs_of_life import SignsOfLife


def a_message(method: str, *rest: Any) -> bytes:
    head = {"type": "method", "from": "w/me", "to": "w/you", "method": method}
    return b"".join(msgpack.packb(part) or b"" for part in (head, rest))


async def test_no_sign_of_life_is_sent_for_a_call_that_is_answered_soon() -> None:
    signs = SignsOfLife()
    held = asyncio.create_task(signs.needless(a_message("s1.heartbeat")))
    other = asyncio.create_task(signs.needless(a_message("s2.heartbeat")))
    await asyncio.sleep(0)
    assert not await signs.needless(a_message("s1.resolve", 1))
    assert await held
    assert not other.done()
    assert not await signs.needless(a_message("s2.reject", 1))
    assert await other


async def test_a_call_that_lasts_has_its_signs_of_life() -> None:
    signs = SignsOfLife(soon_s=0.01)
    assert [await signs.needless(a_message("s1.heartbeat")) for _ in range(2)] == [False, False]
    assert not await signs.needless(a_message("s1.resolve"))


@pytest.mark.parametrize("message", [b"", b"\xc1", msgpack.packb(7), msgpack.packb({"method": None}),
                                     a_message("services.x.echo", "s1.heartbeat"), a_message("x" * 5000)])  # fmt: skip
async def test_all_other_messages_are_sent_at_once(message: bytes) -> None:
    assert not await asyncio.wait_for(SignsOfLife(soon_s=60).needless(message), 1)


@pytest.mark.parametrize(
    ("value", "light"),
    [
        ({"a": [1, 2.5, None, True, "x"], "b": (b"y",)}, True),
        (b"x" * LIGHT_BYTES, False),
        ("x" * LIGHT_BYTES, False),
        ([b"x" * (LIGHT_BYTES // 3)] * 3, False),
        ({"deep": {"down": [b"x" * LIGHT_BYTES]}}, False),
        ([0] * LIGHT_BYTES, False),
        (numpy.zeros(10), True),
        (numpy.zeros(LIGHT_BYTES), False),
        (print, False),
    ],
)
def test_only_small_plain_values_are_light(value: Any, light: bool) -> None:
    assert is_light((value,), {}) is light


class Handle:
    """Serve's, of an app with the method `say`; `old`: of a release that knows no messages."""

    def __init__(self, old: bool = False) -> None:
        self.old = old
        self.asked: list[tuple[str, bool]] = []
        self._how: dict[str, Any] = {}

    def options(self, **how: Any) -> Handle:
        made = Handle(self.old)
        made.asked, made._how = self.asked, how
        return made

    async def remote(self, *args: Any, **kwargs: Any) -> Any:
        name, by_reference = self._how["method_name"], self._how["_by_reference"]
        self.asked.append((name, by_reference))
        if name.startswith(FOR_GATEWAY):
            if self.old:
                raise RayServeException(f"Tried to call a method '{name}' that does not exist. Available methods: []")
            args, kwargs = args
        if kwargs.get("fail"):
            raise AsRaised("NoSuchImage", "no image")
        if "lost" in kwargs:
            raise kwargs["lost"]
        return [*args, kwargs]


def an_app(monkeypatch: pytest.MonkeyPatch, handle: Handle, code: str = "1") -> AppCalls:
    monkeypatch.setattr(calls, "_router", lambda _: handle)

    async def ping(client: str) -> None:
        """It is there."""

    return AppCalls(an_offer(code), lambda: (), lambda service: f"w/gateway:{service}", Callers(ping))


def an_offer(code: str) -> Offer:
    return Offer("talk", "Talk", code, "Talk", "", (OfferedMethod("say", {}, True),), ["*"], "user:x", 1)


async def say(app: AppCalls, *args: Any, **kwargs: Any) -> Any:
    return await app.service()["say"](*args, context={"user": {"id": "bob"}, "from": "w/c"}, **kwargs)


async def test_light_calls_go_in_a_message_and_heavy_ones_through_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Handle()
    app = an_app(monkeypatch, handle)
    value, named = await say(app, 1, request_metadata=2)
    assert (value, named["request_metadata"], named["context"]["user"]) == (1, 2, {"id": "bob"})
    await say(app, b"x" * LIGHT_BYTES)
    assert handle.asked == [("gateway.say", False), ("say", True)]
    with pytest.raises(Exception, match="no image") as failed:
        await say(app, fail=True)
    assert type(failed.value).__name__ == "NoSuchImage"


async def test_replicas_of_an_older_release_are_asked_as_they_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Handle(old=True)
    app = an_app(monkeypatch, handle)
    assert [(await say(app, number))[0] for number in range(3)] == [0, 1, 2]
    assert handle.asked == [("gateway.say", False), *[("say", True)] * 3]
    app.take_over(an_offer("2"))
    handle.asked.clear()
    await say(app, 3)
    assert handle.asked[0] == ("gateway.say", False)


def the_wire_broke() -> AioRpcError:
    details = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.7:43211: Connection refused"
    return AioRpcError(StatusCode.UNAVAILABLE, Metadata(), Metadata(), details=details)


def a_node_went() -> RayError:
    return ActorUnavailableError("worker on 10.0.0.7:43211 is gone", b"1" * 16)


@pytest.mark.parametrize(
    ("lost", "kind"), [(the_wire_broke(), "UNAVAILABLE"), (a_node_went(), "ActorUnavailableError")]
)
async def test_nobody_is_told_the_address_of_a_replica_that_was_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lost: Exception, kind: str
) -> None:
    caplog.set_level("WARNING", "ray.serve")
    with pytest.raises(Exception, match=rf"talk could not answer: .* was lost \({kind}\)") as failed:
        await say(an_app(monkeypatch, Handle()), lost=lost)
    assert "10.0.0.7" not in str(failed.value) and "10.0.0.7" in caplog.text


async def test_an_error_of_a_class_that_only_the_app_has_is_told_by_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = UnserializableException("Traceback (most recent call last):\n  in say\nNoSuchImage: no image x.tif\n")
    with pytest.raises(Exception, match=r"^NoSuchImage: no image x\.tif$"):
        await say(an_app(monkeypatch, Handle()), lost=lost)
