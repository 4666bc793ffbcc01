"""How fast the gateway may send."""

from __future__ import annotations

from bioengine_runtime.pace import Pace


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_goes_out_at_once_and_what_is_beyond_it_waits_its_turn() -> None:
    pace = Pace(per_second=10, reserve=3, clock=Clock())
    assert [pace.wait_s() for _ in range(5)] == [0.0, 0.0, 0.0, 0.1, 0.2]


def test_over_any_time_no_more_is_sent_than_reserve_and_rate_allow() -> None:
    clock = Clock()
    pace, sent_at = Pace(per_second=10, reserve=20, clock=clock), []
    for step in range(500):
        clock.now = step * 0.01
        sent_at.append(clock.now + pace.wait_s())
    for begin in range(0, 45, 5):
        assert sum(begin <= at < begin + 5 for at in sent_at) <= 20 + 10 * 5


def test_a_pause_fills_the_reserve_and_never_more() -> None:
    clock = Clock()
    pace = Pace(per_second=10, reserve=3, clock=clock)
    for _ in range(3):
        pace.wait_s()
    clock.now = 1000.0
    assert [pace.wait_s() for _ in range(4)] == [0.0, 0.0, 0.0, 0.1]
