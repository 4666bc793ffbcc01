"""What a long run is measured with: memory and descriptors over time, calls and their excuses, a table at the end."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

MIB = 1024 * 1024
WARM_UP_S = 30.0
"""Of each process, not counted: modules are loaded and first connections made."""
ENOUGH_S = 45.0
"""Of one process, from which a line is drawn."""


@dataclass
class Gauge:
    """Memory and descriptors of the processes that do one job, one after the other."""

    name: str
    pid: Callable[[], int | None]
    samples: dict[int, list[tuple[float, float, int]]] = field(default_factory=lambda: defaultdict(list))
    """pid → (seconds, MiB, descriptors)"""

    def look(self) -> None:
        pid = self.pid()
        if pid is None:
            return
        try:
            process = psutil.Process(pid)
            age = time.time() - process.create_time()
            rss, files = process.memory_info().rss / MIB, process.num_fds()
        except psutil.Error:
            return
        if age >= WARM_UP_S:
            self.samples[pid].append((time.monotonic(), rss, files))

    @property
    def lives(self) -> list[list[tuple[float, float, int]]]:
        """Those of which there is enough; of a long one without its first third, in which caches fill and allocators
        find their size."""
        enough = [life for life in self.samples.values() if life[-1][0] - life[0][0] >= ENOUGH_S]
        return [life[len(life) // 3 :] if life[-1][0] - life[0][0] >= 3 * ENOUGH_S else life for life in enough]

    def rise_per_s(self, what: int) -> float:
        """Slope of one line through all lives, each at a height of its own (least squares)."""
        above = below = 0.0
        for life in self.lives:
            middle_t = sum(sample[0] for sample in life) / len(life)
            middle_v = sum(sample[what] for sample in life) / len(life)
            above += sum((sample[0] - middle_t) * (sample[what] - middle_v) for sample in life)
            below += sum((sample[0] - middle_t) ** 2 for sample in life)
        return above / below if below else 0.0

    @property
    def seconds(self) -> float:
        """Of the longest life, as far as it was measured."""
        return max((life[-1][0] - life[0][0] for life in self.lives), default=0.0)

    def top(self, what: int) -> float:
        return max((sample[what] for life in self.samples.values() for sample in life), default=0.0)


@dataclass
class Calls:
    """Every call, and the times in which one may fail: those that were announced."""

    made: int = 0
    failed: list[tuple[str, float, float, str]] = field(default_factory=list)
    """(app, from, to, error)"""
    announced: list[tuple[str, float, float]] = field(default_factory=list)
    """(app or "" for all, from, to)"""

    @contextmanager
    def interruption(self, app: str = "") -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.announced.append((app, began, time.monotonic()))

    async def keep_calling(self, app: str, call: Callable[[], Awaitable[object]], every_s: float) -> None:
        """Until cancelled; what is then under way does not count."""
        while True:
            began = time.monotonic()
            self.made += 1
            try:
                await asyncio.wait_for(call(), 20)
            except Exception as error:  # whatever goes wrong is a lost call, and is counted
                self.failed.append((app, began, time.monotonic(), f"{type(error).__name__}: {str(error)[-160:]}"))
            await asyncio.sleep(max(0.0, began + every_s - time.monotonic()))

    @property
    def lost(self) -> list[tuple[str, float, float, str]]:
        """Failed calls that no announced interruption touches."""
        return [
            one
            for one in self.failed
            if not any(
                app in ("", one[0]) and one[1] <= until and one[2] >= since for app, since, until in self.announced
            )
        ]


@dataclass
class Table:
    """Rows of what was asked, what was measured, and whether it is so."""

    rows: list[tuple[str, str, bool]] = field(default_factory=list)

    def add(self, what: str, measured: object, *, ok: bool) -> None:
        self.rows.append((what, str(measured), ok))

    @property
    def ok(self) -> bool:
        return all(ok for *_, ok in self.rows)

    def show(self) -> None:
        width = max(len(what) for what, *_ in self.rows)
        for what, measured, ok in self.rows:
            print(f"{'ok' if ok else 'NO':3} {what:{width}}  {measured}")
