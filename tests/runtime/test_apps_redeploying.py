"""When an app that fails is sent again: not at once, not together, not for ever."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bioengine_runtime.apps.record import Running
from bioengine_runtime.apps.redeploying import (
    FIRST_PAUSE_S,
    LIMIT,
    LONGEST_PAUSE_S,
    SPREAD,
    WELL_S,
    Again,
    Enough,
    Later,
    Recovered,
    Tries,
    decide,
    in_words,
)
from tests.runtime.apps_world import a_spec
from tests.runtime.test_apps_parts import a_record

RECORD = a_record().model_copy(update={"spec": a_spec(auto_redeploy=True)})
GOOD = RECORD.release()


def an_app(status: Any = "DEPLOY_FAILED", record: Any = RECORD) -> Running:
    return Running("plain", status, "", record, (), deployed_at=1.0)


def test_an_app_is_left_alone_unless_it_is_ours_asked_for_it_and_was_good():
    without = RECORD.model_copy(update={"spec": a_spec()})
    for app, good in (
        (an_app(record=None), GOOD),
        (an_app(record=without), GOOD),
        (an_app(), None),
        (an_app(), "other"),
    ):
        assert decide(app, good, Tries(), since=0, now=1e9) is None


def test_one_that_comes_up_or_runs_is_left_alone():
    for status in ("DEPLOYING", "DELETING", "NOT_STARTED", "RUNNING"):
        assert decide(an_app(status), GOOD, Tries(), since=0, now=1e9) is None


def test_the_first_pause_is_counted_from_the_failure():
    assert decide(an_app(), GOOD, Tries(), since=100, now=100 + FIRST_PAUSE_S - 1) == Later()
    assert decide(an_app("UNHEALTHY"), GOOD, Tries(), since=100, now=100 + FIRST_PAUSE_S) == Again(
        Tries(count=1, at=100 + FIRST_PAUSE_S)
    )


def test_6_1_11_it_is_tried_ever_more_slowly_and_not_for_ever():
    tries, now, pauses = Tries(), 0.0, []
    while not isinstance(decision := decide(an_app(), GOOD, tries, since=0, now=now), Enough):
        if isinstance(decision, Again):
            pauses.append(now - tries.at)
            tries = decision.tries
        now += 1
        assert now < 1e5
    assert tries.count == len(pauses) == LIMIT
    assert all(later >= 2 * earlier or later >= LONGEST_PAUSE_S for earlier, later in itertools.pairwise(pauses))
    assert decide(an_app(), GOOD, tries, since=0, now=1e9) == Enough()


def test_being_well_for_long_is_a_new_beginning_and_for_short_is_not():
    tried = Tries(count=LIMIT, at=50)
    assert decide(an_app("RUNNING"), GOOD, tried, since=100, now=100 + WELL_S - 1) is None
    assert decide(an_app("RUNNING"), GOOD, tried, since=100, now=100 + WELL_S) == Recovered()


@given(st.integers(0, LIMIT - 1), st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6), st.floats(-1, 1))
def test_no_try_comes_before_its_pause(count: int, at: float, since: float, waited: float, spread: float):
    now = max(at, since) + waited
    decision = decide(an_app(), GOOD, Tries(count=count, at=at), since, now, spread)
    shortest = min(FIRST_PAUSE_S * 2**count, LONGEST_PAUSE_S) * (1 - SPREAD)
    assert isinstance(decision, Later) or waited >= shortest - 1e-3


def test_the_status_says_how_often_it_was_tried():
    assert in_words(Tries()) == ""
    assert in_words(Tries(count=2)) == "deployed again 2 of 5 times, once more soon"
    assert in_words(Tries(count=LIMIT)).endswith("not again until it is deployed anew")
