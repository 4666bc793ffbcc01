"""Work that several ask for at once is done once, and its result serves those who ask soon after."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Fresh(Generic[T]):
    """One task per key. A result is kept for a while, a failure is not: who asks again tries again. With
    `keeps_failures` it is, until who has heard of it forgets it: nobody need wait at the moment at which work fails."""

    def __init__(self, kept_for_s: float, *, keeps_failures: bool = False) -> None:
        self._kept_for_s = kept_for_s
        self._keeps_failures = keeps_failures
        self._tasks: dict[Hashable, asyncio.Task[T]] = {}

    def get(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The task that runs, the one whose result is fresh, or a new one. Shield it: others may wait for it too."""
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(work())
            self._tasks[key].add_done_callback(functools.partial(self._ended, key))
        return self._tasks[key]

    def forget(self, is_meant: Callable[[Hashable], bool]) -> None:
        """Who asks for one of these keys from now on gets new work."""
        self._tasks = {key: task for key, task in self._tasks.items() if not is_meant(key)}

    async def stop(self) -> None:
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    def _ended(self, key: Hashable, task: asyncio.Task[T]) -> None:
        succeeded = not task.cancelled() and task.exception() is None
        if self._kept_for_s and (succeeded or self._keeps_failures):
            # By the clock and not when somebody asks next: that may be never, and a result may be large.
            asyncio.get_running_loop().call_later(self._kept_for_s, self._drop, key, task)
        else:
            self._drop(key, task)

    def _drop(self, key: Hashable, task: asyncio.Task[T]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
