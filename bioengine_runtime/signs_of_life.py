"""The sign of life that hypha-rpc sends for every call: held back, and not sent at all when the answer is soon there.

It tells a caller that somebody works on the call, so that it waits for longer than its timeout (30 s, unless it says
otherwise). For a call of a millisecond it only doubles the messages that the server, its limits and the caller see.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack

SOON_S = 0.5
"""Shorter than any timeout a caller could have a use for."""
HEAD_BYTES = 1024
"""A message begins with a map that says whom it is for; what is called is the last of its usual fields."""
ANSWERS = ("resolve", "reject")


class SignsOfLife:
    """Those that wait, by the call they are for."""

    def __init__(self, soon_s: float = SOON_S) -> None:
        self._soon_s = soon_s
        self._held: dict[str, asyncio.Future[None]] = {}

    async def needless(self, message: bytes) -> bool:
        """Whether this message need not be sent. Of a sign of life that is known a little later, of others at once."""
        call, what = _addressed(message)
        if what in ANSWERS:
            if (held := self._held.pop(call, None)) and not held.done():
                held.set_result(None)
            return False
        return what == "heartbeat" and await self._answered_soon(call)

    async def _answered_soon(self, call: str) -> bool:
        held = self._held[call] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._soon_s):
                await held
        except TimeoutError:
            return False
        finally:
            if self._held.get(call) is held:
                del self._held[call]
        return True


def _addressed(message: bytes) -> tuple[str, str]:
    """The session and the function in it that a message calls."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(message[:HEAD_BYTES])
    try:
        head: Any = unpacker.unpack()
    except (msgpack.OutOfData, ValueError):
        return "", ""
    call, _, what = str(head.get("method") if isinstance(head, dict) else "").rpartition(".")
    return call, what
