"""Work that several ask for at once is done once, and its result serves those who ask soon after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Fresh(Generic[T]):
    """One task per key. A result is kept for a while, a failure is not: who asks again tries again. With
    `keeps_failures` it is, until who has heard of it forgets it: nobody need wait at the moment at which work fails."""

    def __init__(self, kept_for_s: float, *, keeps_failures: bool = False) -> None:
        self._kept_for_s = kept_for_s
        self._keeps_failures = keeps_failures
        self._kept: dict[Hashable, _Kept[T]] = {}

    def get(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The task that runs, the one whose result is fresh, or a new one. Shield it: others may wait for it too."""
        now = time.monotonic()
        self._kept = {other: kept for other, kept in self._kept.items() if self._serves(kept, now)}
        if key not in self._kept:
            self._kept[key] = _Kept(asyncio.create_task(work()))
        return self._kept[key].task

    def forget(self, is_meant: Callable[[Hashable], bool]) -> None:
        """Who asks for one of these keys from now on gets new work."""
        self._kept = {key: kept for key, kept in self._kept.items() if not is_meant(key)}

    async def stop(self) -> None:
        tasks = [kept.task for kept in self._kept.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._kept.clear()

    def _serves(self, kept: _Kept[T], now: float) -> bool:
        if kept.ended_at is None:
            return True
        return (kept.succeeded or self._keeps_failures) and now - kept.ended_at < self._kept_for_s


class _Kept(Generic[T]):
    """One piece of work, and when it ended (monotonic seconds); None while it is under way."""

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.ended_at: float | None = None
        self.succeeded = False
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[T]) -> None:
        self.ended_at = time.monotonic()
        self.succeeded = not task.cancelled() and task.exception() is None
