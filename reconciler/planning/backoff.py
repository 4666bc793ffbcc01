"""Apps whose last try failed rest before the next: each for itself, ever longer, until git says something new."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reconciler.planning.steps import DeployApp, Outcome, Plan, Rest, Result, Step, StopApp, UpdateApp

SHORTEST_S = 5.0
LONGEST_S = 600.0
_DOUBLINGS = 30
"""More of them change nothing, and a trouble may last so long that the number would be too large for a float."""


def wait_s(tries: int, shortest_s: float = SHORTEST_S) -> float:
    """How long to wait after so many failures in a row: each time twice as long, up to LONGEST_S."""
    return min(shortest_s * 2.0 ** min(tries - 1, _DOUBLINGS), LONGEST_S)


def after(before: Mapping[str, Rest], plan: Plan, outcomes: Iterable[Outcome], now: float) -> Mapping[str, Rest]:
    """Who rests from now on. What was done, or is asked for no more, rests no more."""
    outcomes = tuple(outcomes)
    results, waiting = {outcome.address: outcome for outcome in outcomes}, untried(plan, outcomes)
    resting = {app_id: rest for app_id, rest in before.items() if any(held.app_id == app_id for held in plan.held)}
    for step in plan.steps:
        if not isinstance(step.verb, DeployApp | UpdateApp | StopApp) or step.app_id is None:
            continue
        failed, last = _cause(step, plan, results), before.get(step.app_id)
        if failed is None:
            if last is not None and step.app_id in waiting:
                resting[step.app_id] = last  # how often it failed is not forgotten while it is tried
            continue
        digest, why = digest_of(step), failed.message
        if isinstance(step.verb, StopApp) and failed.address != step.address:
            why = f"{failed.address}: {why}"
        tries = last.tries + 1 if last and last.digest == digest else 1
        resting[step.app_id] = Rest(tries, now + wait_s(tries), digest, why)
    return resting


def untried(plan: Plan, outcomes: Iterable[Outcome]) -> frozenset[str]:
    """Apps that differ, and of which nothing was carried out, well or not: they are held, or something came between."""
    results = {outcome.address: outcome for outcome in outcomes}
    found = {held.app_id for held in plan.held}
    for step in plan.steps:
        if isinstance(step.verb, DeployApp | UpdateApp | StopApp) and step.app_id is not None:
            ended = results.get(step.address)
            if not (ended and ended.result is Result.DONE) and _cause(step, plan, results) is None:
                found.add(step.app_id)
    return frozenset(found)


def digest_of(step: Step) -> str:
    """The content that a step is to bring; "" when it is to stop something."""
    return step.verb.spec.digest() if isinstance(step.verb, DeployApp | UpdateApp) else ""


def _cause(step: Step, plan: Plan, results: Mapping[str, Outcome]) -> Outcome | None:
    """The failure that kept this step from being done; None when it was done, or waits for another app's. A removal
    rests with those that come in its place, so that it is not done while they do."""
    steps = {one.address: one for one in plan.steps}
    waiting, seen = [step], set[str]()
    while waiting:
        one = waiting.pop()
        seen.add(one.address)
        outcome = results.get(one.address)
        if outcome is not None and outcome.result is Result.FAILED:
            another = one.address != step.address and isinstance(one.verb, DeployApp | UpdateApp)
            return None if another and not isinstance(step.verb, StopApp) else outcome
        waiting += [steps[need] for need in one.needs if need in steps and need not in seen]
    return None
