"""Maintenance windows in the time of their zone, through nights on which the clocks change (RR-06)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioengine_runtime.contract.cluster import Window
from reconciler.planning.windows import is_open, next_edge, next_opening

HOUR = 3600.0
NIGHT = Window(days=["fri"], start="22:00", end="02:00", timezone="Europe/Stockholm")
ZONES = ("UTC", "Europe/Stockholm", "America/St_Johns", "Pacific/Chatham", "Australia/Lord_Howe")


def when(text: str) -> float:
    """Seconds since the epoch of an ISO time with its offset."""
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("now", "is_so"),
    [
        ("2026-11-20T21:59:59+01:00", False),  # a Friday
        ("2026-11-20T22:00:00+01:00", True),
        ("2026-11-21T01:59:59+01:00", True),  # over midnight it is Friday's still
        ("2026-11-21T02:00:00+01:00", False),
        ("2026-11-21T23:00:00+01:00", False),  # not on Saturdays
    ],
)
def test_rr_06_a_window_over_midnight_belongs_to_the_day_on_which_it_opens(now: str, is_so: bool) -> None:
    assert is_open([NIGHT], when(now)) is is_so


@pytest.mark.parametrize(
    ("night", "hours"),
    [("2026-03-28T22:00+01:00", 4), ("2026-10-24T22:00+02:00", 6), ("2026-11-21T22:00+01:00", 5)],
)
def test_rr_06_on_the_night_of_a_clock_change_it_ends_at_the_hour_that_it_says(night: str, hours: int) -> None:
    until_three = NIGHT.model_copy(update={"days": ["sat"], "end": "03:00"})
    assert next_edge([until_three], when(night)) == hours * HOUR


def test_rr_06_an_hour_that_is_skipped_opens_no_window() -> None:
    for start, end in (("02:10", "02:50"), ("02:00", "03:00"), ("02:00", "02:59"), ("02:30", "03:00")):
        window = Window(days=["sun"], start=start, end=end, timezone="Europe/Stockholm")
        opening = next_opening([window], when("2026-03-29T00:00+01:00"))
        assert opening is not None and opening.isoformat() == f"2026-04-05T{start}:00+02:00"


@pytest.mark.parametrize(
    ("start", "end", "opens", "closes"),
    [
        ("01:30", "02:30", "2026-03-29T01:30+01:00", "2026-03-29T03:00+02:00"),
        ("02:30", "04:00", "2026-03-29T03:00+02:00", "2026-03-29T04:00+02:00"),
    ],
)
def test_rr_06_a_skipped_time_is_when_the_clocks_change(start: str, end: str, opens: str, closes: str) -> None:
    window = Window(days=["sun"], start=start, end=end, timezone="Europe/Stockholm")
    opening = next_opening([window], when("2026-03-29T00:00+01:00"))
    assert opening is not None and opening.timestamp() == when(opens)
    assert next_edge([window], when(opens)) == when(closes) - when(opens)


def test_rr_06_where_the_clocks_change_by_half_an_hour() -> None:
    window = Window(days=["sun"], start="01:45", end="02:15", timezone="Australia/Lord_Howe")
    opening = next_opening([window], when("2026-10-04T00:00+10:30"))
    assert opening is not None and opening.isoformat() == "2026-10-04T01:45:00+10:30"
    assert next_edge([window], opening.timestamp()) == 15 * 60


def test_without_windows_it_is_always_open() -> None:
    assert is_open([], 0.0)
    assert next_edge([], 0.0) is None and next_opening([], 0.0) is None


def test_the_next_opening_is_the_earliest_of_all_in_its_own_time() -> None:
    tokyo = Window(days=["sat"], start="00:30", end="01:00", timezone="Asia/Tokyo")
    opening = next_opening([NIGHT, tokyo], when("2026-11-20T12:00+01:00"))
    assert opening is not None and opening.isoformat() == "2026-11-21T00:30:00+09:00"


def test_a_window_from_a_time_to_itself_is_a_whole_day() -> None:
    window = Window(days=["mon"], start="06:00", end="06:00")
    assert is_open([window], when("2026-11-24T05:59+00:00"))
    assert not is_open([window], when("2026-11-24T06:00+00:00"))


CLOCK = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.sampled_from([0, 15, 30, 59]))
WINDOWS = st.lists(
    st.builds(
        Window,
        days=st.lists(st.sampled_from(["mon", "wed", "sat", "sun"]), min_size=1, max_size=3),
        start=CLOCK,
        end=CLOCK,
        timezone=st.sampled_from(ZONES),
    ),
    min_size=1,
    max_size=3,
)


@given(WINDOWS, st.floats(when("2026-01-01T00:00+00:00"), when("2027-01-01T00:00+00:00")))
def test_rr_06_between_two_edges_nothing_changes(windows: list[Any], now: float) -> None:
    """So a loop that wakes at each edge misses none. Caught: yesterday's window forgotten."""
    edge = next_edge(windows, now)
    assert edge is not None and edge > 0
    just_before = now + edge - max(1e-3, edge / 1e6)
    for moment in (now + edge / 3, now + edge / 2, just_before):
        assert is_open(windows, moment) is is_open(windows, now)
    opening = next_opening(windows, now)
    assert opening is not None and is_open(windows, opening.timestamp())
    if not is_open(windows, now):
        assert opening.timestamp() == pytest.approx(now + edge)
