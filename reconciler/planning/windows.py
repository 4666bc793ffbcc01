"""Maintenance windows: whether one is open, and when the next edge comes. Times are seconds since the epoch.

A window is said in the wall-clock time of its zone, so on the night of a clock change it is longer or shorter. A time
that is skipped that night is the moment at which the clocks change: a window within the skipped hour does not open.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from typing import get_args
from zoneinfo import ZoneInfo

from bioengine_runtime.contract.cluster import Day, Window

DAYS: tuple[str, ...] = get_args(Day)
_DAYS_AHEAD = 15
"""A week, and one more for a window whose only night of this week skips it."""


def is_open(windows: Sequence[Window], now: float) -> bool:
    """Whether changes may be made; without windows always."""
    return not windows or any(opens <= now < closes for window in windows for opens, closes in _spans(window, now))


def next_opening(windows: Sequence[Window], now: float) -> datetime | None:
    """In the time zone of the window that opens next; None when there is none."""
    found = [(opens, window) for window in windows for opens, _ in _spans(window, now) if opens > now]
    if not found:
        return None
    opens, window = min(found, key=lambda one: one[0])
    return datetime.fromtimestamp(opens, ZoneInfo(window.timezone))


def next_edge(windows: Sequence[Window], now: float) -> float | None:
    """Seconds until a window opens or closes; None when there is none."""
    edges = [edge for window in windows for span in _spans(window, now) for edge in span if edge > now]
    return min(edges) - now if edges else None


def _spans(window: Window, now: float) -> Iterator[tuple[float, float]]:
    """(opens, closes) from yesterday on, which may still be open today."""
    zone = ZoneInfo(window.timezone)
    start, end = time.fromisoformat(window.start), time.fromisoformat(window.end)
    today = datetime.fromtimestamp(now, zone).date()
    for day in (today + timedelta(days) for days in range(-1, _DAYS_AHEAD)):
        if DAYS[day.weekday()] in window.days:
            last = day + timedelta(end <= start)
            opens, closes = _at(day, start, zone), _at(last, end, zone)
            if opens < closes:
                yield opens, closes


def _at(day: date, clock: time, zone: ZoneInfo) -> float:
    said = datetime.combine(day, clock, zone)
    before, after = said.timestamp(), said.replace(fold=1).timestamp()
    if before <= after:
        return before  # there is such a time, and of two the first
    return _clock_change(zone, after, before)


def _clock_change(zone: ZoneInfo, start: float, end: float) -> float:
    """The first second from `start` to `end` at which the clocks show as much more as they do at `end`."""
    seconds, then = range(int(start), int(end) + 1), datetime.fromtimestamp(end, zone).utcoffset()
    return seconds[bisect_left(seconds, True, key=lambda at: datetime.fromtimestamp(at, zone).utcoffset() == then)]
