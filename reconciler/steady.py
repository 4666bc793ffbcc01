"""The source as the loop sees it: fetched when that is due, the last commit in between, and also while it is away.

Law: a source that cannot be read stops nothing that the last good commit asks for; that it cannot is said, not hidden.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from reconciler.errors import ReconcilerError
from reconciler.planning.backoff import wait_s
from reconciler.planning.source import SourceTree
from reconciler.ports import Source

log = logging.getLogger(__name__)

SHORTEST_RETRY_S = 3.0


class SteadySource:
    """Implements ports.Source. `interval_s` between two fetches; `again()` makes the next one due at once."""

    def __init__(self, source: Source, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.interval_s = interval_s
        self._source = source
        self._clock = clock
        self._last: SourceTree | None = None
        self._due = clock()
        self._troubles = 0
        self._read = asyncio.Event()

    def again(self) -> None:
        self._due = self._clock()

    @property
    def due_in_s(self) -> float:
        return max(0.0, self._due - self._clock())

    async def first(self) -> SourceTree:
        """The newest commit that was read, as soon as one was; asks nobody."""
        await self._read.wait()
        assert self._last is not None
        return self._last

    async def fetch(self) -> SourceTree:
        """Raises SourceUnusable or Unreachable only as long as no commit was ever read."""
        if self._last is not None and self._clock() < self._due:
            return self._last
        try:
            self._last = await self._source.fetch()
            self._read.set()
            self._troubles = 0
            self._due = self._clock() + self.interval_s
        except ReconcilerError as error:
            self._troubles += 1
            again_in_s = wait_s(self._troubles, SHORTEST_RETRY_S)
            self._due = self._clock() + again_in_s
            if self._last is None:
                raise
            log.warning("event=source_away tries=%d again_in_s=%.0f why=%s", self._troubles, again_in_s, error)
            away = replace(self._last.revision, away=str(error))
            self._last = replace(self._last, revision=away)
        return self._last
