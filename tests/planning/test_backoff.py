"""A failed app rests for itself: ever longer, until git says something new; nobody else waits for it."""

from __future__ import annotations

from dataclasses import replace

from reconciler.planning.backoff import LONGEST_S, SHORTEST_S, after, untried
from reconciler.planning.planner import plan
from reconciler.planning.steps import Outcome, Plan, PlanOptions, Reason, Rest, Result
from tests.builders import a_desired, a_live, an_app

NOW = 1000.0


def planned(*apps: str, resting: dict[str, Rest] | None = None, now: float = NOW, size: int = 1) -> Plan:
    desired = a_desired(*(an_app(app_id, max_ongoing_requests=size) for app_id in apps))
    return plan(desired, replace(a_live(), observed_at=now), {}, PlanOptions(resting=resting or {}))


def ended(of: Plan, failing: str) -> list[Outcome]:
    """What is said to fail fails; what needs it is skipped."""
    results: dict[str, Result] = {}
    for step in of.steps:
        bad = [need for need in step.needs if results[need] is not Result.DONE]
        failed = step.address == failing
        results[step.address] = Result.SKIPPED if bad else Result.FAILED if failed else Result.DONE
    return [Outcome(address, result, "no space left") for address, result in results.items()]


def test_it_is_held_until_its_time_and_the_others_go_on() -> None:
    first = planned("one", "two")
    resting = after({}, first, ended(first, "deploy one"), NOW)
    second = planned("one", "two", resting=dict(resting), now=NOW + 1)
    assert [held.reason for held in second.held] == [Reason.BACKING_OFF] and "no space left" in second.held[0].message
    assert {step.app_id for step in second.steps if step.address.startswith("deploy")} == {"two"}
    assert not planned("one", resting=dict(resting), now=NOW + SHORTEST_S).held


def test_it_rests_ever_longer_while_it_fails_and_no_more_when_it_is_done() -> None:
    resting, waits, now = dict[str, Rest](), list[float](), NOW
    for _ in range(12):
        tried = planned("one", resting=resting, now=now)
        resting = dict(after(resting, tried, ended(tried, "deploy one"), now))
        waits.append(resting["one"].until - now)
        now = resting["one"].until
    assert waits == sorted(waits) and (waits[0], waits[-1]) == (SHORTEST_S, LONGEST_S)
    tried = planned("one", resting=resting, now=now)
    assert after(resting, tried, ended(tried, ""), now) == {}


def test_one_that_failed_for_weeks_rests_like_any_other() -> None:
    tried = planned("one")
    before = after({}, tried, ended(tried, "deploy one"), NOW)["one"]
    again = after({"one": replace(before, tries=100_000)}, tried, ended(tried, "deploy one"), NOW)
    assert again["one"] == replace(before, tries=100_001, until=NOW + LONGEST_S)


def test_new_content_is_tried_at_once() -> None:
    first = planned("one")
    resting = dict(after({}, first, ended(first, "deploy one"), NOW))
    assert not planned("one", resting=resting, now=NOW + 1, size=2).held


def test_a_look_in_between_does_not_forget_who_rests() -> None:
    first = planned("one")
    resting = dict(after({}, first, ended(first, "deploy one"), NOW))
    look = planned("one", resting=resting, now=NOW + 1)
    assert after(resting, look, (), NOW + 1) == resting


def test_what_an_app_needs_fails_for_it_but_another_apps_failure_does_not() -> None:
    desired = a_desired(an_app("one"), an_app("two", depends_on=("one",)))
    both = plan(desired, a_live(), {}, PlanOptions())
    assert after({}, both, ended(both, "deploy one"), NOW).keys() == {"one"}
    alone = planned("one")
    needs = next(step for step in alone.steps if step.address == "deploy one").needs
    assert after({}, alone, ended(alone, needs[0]), NOW).keys() == {"one"}


def test_what_is_held_or_waits_for_another_apps_step_was_not_tried() -> None:
    desired = a_desired(an_app("one"), an_app("two", depends_on=("one",)))
    both = plan(desired, a_live(), {}, PlanOptions())
    assert untried(both, ended(both, "deploy one")) == {"two"}
    assert untried(both, ended(both, "")) == set() and untried(both, ()) == {"one", "two"}
    resting = after({}, both, ended(both, "deploy one"), NOW)
    held = plan(desired, replace(a_live(), observed_at=NOW), {}, PlanOptions(resting=resting))
    assert "one" in untried(held, ())
