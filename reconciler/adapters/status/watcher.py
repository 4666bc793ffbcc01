"""Whoever watches: first everything, then what changed, for as long as they go on asking.

Law: a watcher holds one status and no queue, so one that is slow gets several changes as one; one that stopped asking
is let go.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from reconciler import views
from reconciler.board import Board
from reconciler.errors import ReconcilerError, Remedy
from reconciler.views import Document

SIGN_OF_LIFE_S = 10.0
"""Well below the time after which a caller gives a question up."""
LET_GO_AFTER_S = 120.0
WATCHERS = 64


class TooManyWatchers(ReconcilerError):
    """Nobody more can watch at the moment."""

    remedy = Remedy.OPERATOR


class Watcher:
    """An async iterator of events: `snapshot`, then `changes`, and `alive` when for a while there were none."""

    def __init__(self, board: Board, clock: Callable[[], float], sign_of_life_s: float) -> None:
        self._board = board
        self._clock = clock
        self._sign_of_life_s = sign_of_life_s
        self._last: Document | None = None
        self._version = -1
        self.asked_at = clock()
        self.asking = False
        self.ended = False

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> Document:
        if self.ended:
            raise StopAsyncIteration
        self.asking = True
        try:
            turned = await self._board.turned(self._version, self._sign_of_life_s)
        finally:
            self.asking, self.asked_at = False, self._clock()
        if self.ended:
            raise StopAsyncIteration
        return self._event() if turned else {"event": "alive", "age_s": self._board.age_s}

    async def aclose(self) -> None:
        """Let go of what is held."""
        self.ended, self._last = True, None

    def _event(self) -> Document:
        before, now = self._last, self._board.status()
        self._last, self._version = now, self._board.version
        return {"event": "snapshot", **now} if before is None else {"event": "changes", **views.changes(before, now)}


class Watchers:
    """All of them, a bounded number."""

    def __init__(
        self, board: Board, clock: Callable[[], float] = time.monotonic, *, sign_of_life_s: float = SIGN_OF_LIFE_S
    ) -> None:
        self._board = board
        self._clock = clock
        self._sign_of_life_s = sign_of_life_s
        self._all: list[Watcher] = []

    async def join(self) -> Watcher:
        """One more. Raises TooManyWatchers."""
        await self.sweep()
        if len(self._all) >= WATCHERS:
            raise TooManyWatchers(f"{WATCHERS} watch already", hint="Ask get_status now and then instead.")
        watcher = Watcher(self._board, self._clock, self._sign_of_life_s)
        self._all.append(watcher)
        return watcher

    async def sweep(self) -> int:
        """Let go of those who stopped asking; how many still watch."""
        limit = self._clock() - LET_GO_AFTER_S
        for watcher in self._all:
            if not watcher.asking and watcher.asked_at < limit:
                await watcher.aclose()
        self._all = [watcher for watcher in self._all if not watcher.ended]
        return len(self._all)
