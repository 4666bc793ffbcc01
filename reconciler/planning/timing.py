"""How long things take, learned from what earlier deployments of the same app took. Seconds throughout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median

from reconciler.planning.live import LiveState
from reconciler.planning.steps import DeployApp, Impact, Plan, Step, StopApp, UpdateApp


def usual_s(app_id: str, live: LiveState) -> float | None:
    """The median of what is remembered, else what its newest version took; None for an app that was never timed."""
    known = live.remembered.seconds.get(app_id, ()) if live.remembered else ()
    running = live.apps.get(app_id)
    return median(known) if known else running.last_deploy_s if running else None


def waves(plan: Plan) -> dict[str, int]:
    """App id → 1 if it waits for no other app of the plan, 2 if it waits for one of these, and so on."""
    found: dict[str, int] = {}
    by_address = {step.address: step for step in plan.steps}
    for step in plan.steps:
        if step.app_id and is_of_app(step):
            before = [found[app_id] for address in step.needs if (app_id := _app_of(by_address[address])) in found]
            found[step.app_id] = 1 + max(before, default=0)
    return found


def first_wave(plan: Plan) -> Plan:
    """What can be done without waiting for an app of the same plan to come up. Uploads and environments are among it,
    also those of later waves, so that these find theirs ready."""
    waiting: set[str] = set()  # addresses after which an app has to come up first, and what needs them
    steps: list[Step] = []
    for step in plan.steps:
        if waiting.intersection(step.needs):
            waiting.add(step.address)
            continue
        steps.append(step)
        if is_of_app(step) and step.effect.impact is not Impact.IN_PLACE:
            waiting.add(step.address)
    return replace(plan, steps=tuple(steps))


@dataclass(frozen=True, slots=True)
class LongestPath:
    """The longest chain of apps that wait for each other. `unknown`: apps in the plan that were never timed, which may
    take longer still."""

    seconds: float
    unknown: tuple[str, ...]


def longest_path(plan: Plan) -> LongestPath:
    ends: dict[str, float] = {}
    unknown: list[str] = []
    for step in plan.steps:
        takes_s = 0.0
        if step.app_id and is_of_app(step) and step.effect.impact not in (Impact.IN_PLACE, Impact.DELETE):
            takes_s = step.effect.takes_s or 0.0
            if step.effect.takes_s is None:
                unknown.append(step.app_id)
        ends[step.address] = takes_s + max((ends[address] for address in step.needs), default=0.0)
    return LongestPath(max(ends.values(), default=0.0), tuple(unknown))


def is_of_app(step: Step) -> bool:
    return isinstance(step.verb, DeployApp | UpdateApp | StopApp)


def _app_of(step: Step) -> str:
    return step.app_id if step.app_id and is_of_app(step) else ""
