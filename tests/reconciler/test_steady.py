"""The source between two fetches, and while it is away: the last good commit, and a word about it (RR-07)."""

from __future__ import annotations

import pytest

from reconciler.errors import SourceUnusable, Unreachable
from reconciler.steady import SteadySource
from tests.fakes import FakeSource, a_repository


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> FakeSource:
    return FakeSource(a_repository("one"))


async def test_it_is_fetched_when_due_and_at_once_when_somebody_pushed(source: FakeSource, clock: Clock) -> None:
    steady = SteadySource(source, 60.0, clock)
    first = await steady.fetch()
    source.commit({"apps/one/main.py": "# new\n"})
    clock.now += 59
    assert (await steady.fetch()).revision == first.revision and steady.due_in_s == 1
    steady.again()
    assert (await steady.fetch()).revision.commit != first.revision.commit
    source.commit({"apps/one/main.py": "# newer\n"})
    clock.now += 60
    assert source.calls.count("fetch") == 2
    await steady.fetch()
    assert source.calls.count("fetch") == 3


@pytest.mark.parametrize("trouble", [Unreachable("git.example does not answer"), SourceUnusable("main is gone")])
async def test_rr_07_while_it_is_away_the_last_commit_stands_and_says_so(
    source: FakeSource, clock: Clock, trouble: Exception
) -> None:
    steady = SteadySource(source, 60.0, clock)
    first = await steady.fetch()
    source.fail("fetch", trouble)
    clock.now += 60
    away = await steady.fetch()
    assert away.revision.commit == first.revision.commit and str(trouble) in away.revision.away
    source.heal()
    clock.now += 60
    assert not (await steady.fetch()).revision.away


async def test_a_source_that_is_away_is_asked_ever_more_slowly(source: FakeSource, clock: Clock) -> None:
    steady = SteadySource(source, 60.0, clock)
    await steady.fetch()
    source.fail("fetch", Unreachable("away"))
    clock.now += 60
    waits: list[float] = []
    for _ in range(10):
        await steady.fetch()
        waits.append(steady.due_in_s)
        clock.now += steady.due_in_s
    assert waits == sorted(waits) and waits[0] < 10 and waits[-1] == 600


async def test_a_source_that_is_away_for_weeks_still_has_its_last_commit(source: FakeSource, clock: Clock) -> None:
    steady = SteadySource(source, 60.0, clock)
    first = await steady.fetch()
    source.fail("fetch", Unreachable("away"))
    for _ in range(1100):
        clock.now += 600
        assert (await steady.fetch()).revision.commit == first.revision.commit
    assert steady.due_in_s == 600


async def test_before_the_first_commit_its_trouble_is_everybodys(source: FakeSource, clock: Clock) -> None:
    source.fail("fetch", Unreachable("away"))
    with pytest.raises(Unreachable):
        await SteadySource(source, 60.0, clock).fetch()
