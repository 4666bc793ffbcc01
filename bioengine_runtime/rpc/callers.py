"""Whose calls go on: the calls of a client that has left Hypha end, instead of keeping something busy for nobody.

Hypha tells no one that a client of another workspace has gone, but it says so when that client is asked something. A
client that is merely silent is left alone, and one that lost its connection for a moment comes back under its id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

ASK_EVERY_S = 5.0
GONE_FOR_S = 15.0
GONE = "is not connected"
ASK_TIMEOUT_S = 4.0


class Callers:
    """The calls in flight by client. `ping` asks a client for a sign of life and raises what Hypha says."""

    def __init__(self, ping: Callable[[str], Awaitable[object]], clock: Callable[[], float] = time.monotonic) -> None:
        self._ping = ping
        self._clock = clock
        self._ends: dict[str, set[Callable[[], object]]] = {}
        self._gone_since: dict[str, float] = {}

    @contextmanager
    def calling(self, client: str, end: Callable[[], object]) -> Iterator[None]:
        """While this lasts, `end` is what is called when the client has gone."""
        ends = self._ends.setdefault(client, set())
        ends.add(end)
        try:
            yield
        finally:
            ends.discard(end)
            if not ends:
                self._ends.pop(client, None)
                self._gone_since.pop(client, None)

    async def ending_with(self, client: str, work: Coroutine[Any, Any, Any]) -> Any:
        """What the work returns; the task that waits for it is cancelled when the client goes before that."""
        task = asyncio.current_task()
        assert task is not None
        with self.calling(client, task.cancel):
            return await work

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(ASK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Ask every client that has a call in flight, and end the calls of those that have gone for long enough."""
        await asyncio.gather(*(self._ask(client) for client in tuple(self._ends)))

    async def _ask(self, client: str) -> None:
        try:
            await asyncio.wait_for(self._ping(client), ASK_TIMEOUT_S)
        except Exception as error:  # anything but Hypha's word that it has gone tells nothing
            if GONE in str(error):
                since = self._gone_since.setdefault(client, self._clock())
                if self._clock() - since >= GONE_FOR_S:
                    for end in tuple(self._ends.get(client, ())):
                        end()
            return
        self._gone_since.pop(client, None)
