"""Messages on their way to one listener, in order. What does not arrive now waits for a later try, and what came after
it waits behind it; the listener knows what it has heard already by its delivery id.

Law: adding never waits, and what waits is bounded.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from reconciler.telling.outgoing import NotDelivered

log = logging.getLogger(__name__)

WAITING = 100
"""Messages that may wait; the oldest go first."""

Send = Callable[[], Awaitable[None]]
"""Raises NotDelivered."""


class Line:
    """To one listener, called `to` where people read it. `arrived` is told after each try whether it went well."""

    def __init__(self, to: str, arrived: Callable[[str, bool], None]) -> None:
        self._to = to
        self._arrived = arrived
        self._waiting: deque[Send] = deque()
        self._due = asyncio.Event()
        self._resting = asyncio.Event()
        self._resting.set()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def add(self, send: Send) -> None:
        """Behind all that waits; returns at once."""
        if len(self._waiting) >= WAITING:
            self._waiting.popleft()
            log.warning("event=notification_dropped to=%s why=%d are waiting", self._to, WAITING)
        self._waiting.append(send)
        self.again()

    def again(self) -> None:
        """Try now what waits; returns at once."""
        if self._waiting:
            self._due.set()
            self._resting.clear()

    async def rest(self) -> None:
        """Until all has arrived, or what comes next just did not."""
        await self._resting.wait()

    async def run(self) -> None:
        """Send, for ever."""
        while True:
            await self._due.wait()
            self._due.clear()
            while self._waiting:
                send = self._waiting.popleft()
                if not await self._gone(send):
                    self._waiting.appendleft(send)
                    break
            self._resting.set()

    async def _gone(self, send: Send) -> bool:
        """Whether it is off our hands: it arrived, or never will."""
        try:
            await send()
        except NotDelivered as error:
            self._arrived(self._to, False)
            log.warning("event=notification_failed to=%s again=%s why=%s", self._to, error.for_now, error)
            return not error.for_now
        except Exception:  # nothing that is told may end what tells
            self._arrived(self._to, False)
            log.exception("event=notification_crashed to=%s", self._to)
            return True
        self._arrived(self._to, True)
        return True
