"""Work that several ask for at once is done once, and its result serves those who ask soon after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Fresh(Generic[T]):
    """One task per key. A result is kept for a while, a failure is not: who asks again tries again."""

    def __init__(self, kept_for_s: float) -> None:
        self._kept_for_s = kept_for_s
        self._tasks: dict[Hashable, tuple[float, asyncio.Task[T]]] = {}

    def get(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The task that runs, the one whose result is fresh, or a new one. Shield it: others may wait for it too."""
        now = time.monotonic()
        self._tasks = {
            other: (begun, task)
            for other, (begun, task) in self._tasks.items()
            if not task.done() or (_succeeded(task) and now - begun < self._kept_for_s)
        }
        if key not in self._tasks:
            task = asyncio.create_task(work())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._tasks[key] = (now, task)
        return self._tasks[key][1]

    def forget(self, is_meant: Callable[[Hashable], bool]) -> None:
        """Who asks for one of these keys from now on gets new work."""
        self._tasks = {key: kept for key, kept in self._tasks.items() if not is_meant(key)}

    async def stop(self) -> None:
        tasks = [task for _, task in self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()


def _succeeded(task: asyncio.Task[Any]) -> bool:
    return not task.cancelled() and task.exception() is None
