"""A bound on how many steps run at once that lets what was begun be finished first.

Uploads of all apps before the first deploy would leave Ray idle while Hypha stores, and Hypha idle while Ray starts.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Slots:
    """Like a semaphore, but who waits is served by rank (higher first), then in order of arrival."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._arrivals = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def taken(self, rank: int) -> AsyncGenerator[None]:
        """Hold a slot."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrivals += 1
        heapq.heappush(self._waiting, (-rank, self._arrivals, turn))
        self._serve()
        try:
            await turn
            yield
        finally:
            # A turn that was given must be given back, also by one that was cancelled before it could use it.
            if turn.done() and not turn.cancelled():
                self._free += 1
            turn.cancel()
            self._serve()

    def _serve(self) -> None:
        while self._free and self._waiting:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.cancelled():
                self._free -= 1
                turn.set_result(None)
