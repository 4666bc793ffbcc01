"""What time it is for a version that is coming up: times are noted by the wall clock, and what passes is measured.

Law: a clock that is set, forward or back, neither ends anybody's time nor adds to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass

from bioengine_runtime.apps.record import AppRecord


@dataclass(frozen=True, slots=True)
class _Seen:
    """A try of a release, and what both clocks said when it was first seen."""

    which: Hashable
    wall: float
    steady: float


class Clocks:
    """One for each app, begun with each release and each new try of one; `steady` is never set."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._steady = steady
        self._seen: dict[str, _Seen] = {}

    def now(self, record: AppRecord) -> float:
        """Seconds since the epoch, as they go on from when this was first seen."""
        app_id, which = record.spec.app_id, (record.release(), record.sent_at)
        seen = self._seen.get(app_id)
        if seen is None or seen.which != which:
            seen = self._seen[app_id] = _Seen(which, self._wall(), self._steady())
        return seen.wall + self._steady() - seen.steady

    def forget_all_but(self, apps: Collection[str]) -> None:
        """What is gone from Serve is gone here."""
        self._seen = {app_id: seen for app_id, seen in self._seen.items() if app_id in apps}
