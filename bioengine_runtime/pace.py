"""No more messages to Hypha than it takes: one client that sends faster than its limit is disconnected, not slowed.

Hypha's defaults are 200 messages per second with 2,000 in reserve, per client. A call costs the side that answers one
message (a long one two, with its sign of life), a look-up two more, large payloads one or two per chunk. We stay a
tenth below.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

PER_SECOND = 180.0


@dataclass(slots=True)
class Pace:
    """A bucket that fills steadily; each message takes one, and waits in order when there is none."""

    per_second: float = PER_SECOND
    reserve: float | None = None
    """Messages that may go out at once; left out: ten seconds' worth, as in Hypha."""
    clock: Callable[[], float] = time.monotonic
    _level: float = 0.0
    _at: float = 0.0
    _most: float = 0.0

    def __post_init__(self) -> None:
        self._most = 10 * self.per_second if self.reserve is None else self.reserve
        self._level, self._at = self._most, self.clock()

    def wait_s(self) -> float:
        """Take one; the seconds to wait before it may be sent. Messages that came before have taken theirs."""
        now = self.clock()
        self._level = min(self._most, self._level + (now - self._at) * self.per_second) - 1
        self._at = now
        return max(0.0, -self._level / self.per_second)

    async def __call__(self) -> None:
        if wait_s := self.wait_s():
            await asyncio.sleep(wait_s)
