"""What a plan that was shown would bring about, and a later plan cut down to that.

Law: a yes is to what was shown. What comes up later is held, whoever asked for it, until it was shown as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import assert_never

from reconciler.planning.desired import DesiredState
from reconciler.planning.diff import WORKERS
from reconciler.planning.steps import (
    Action,
    DeployApp,
    Held,
    Plan,
    PrepareRuntimeEnv,
    Reason,
    ScaleWorkers,
    Step,
    StopApp,
    UpdateApp,
    UploadArtifact,
    Verb,
)

Aim = tuple[str, str]
"""An app id, or (workers), and how it is to be: the digest to run with, the bounds, or "" for gone."""

WAITS = frozenset({Reason.DEPENDENCY_NOT_READY, Reason.UPDATING})
"""Held until something else has come up: part of what was asked for."""


def aims(plan: Plan, desired: DesiredState) -> frozenset[Aim]:
    """What the plan brings about, now or when that for which it waits has come up."""
    waiting = {held.app_id: held for held in plan.held if held.reason in WAITS}
    later = {(app_id, desired.apps[app_id].spec.digest()) for app_id in waiting.keys() & desired.apps.keys()}
    later |= {(app_id, "") for app_id, held in waiting.items() if held.action is Action.STOP}
    return frozenset(aim for step in plan.steps if (aim := _aim(step))) | later


def within(plan: Plan, agreed: Collection[Aim]) -> Plan:
    """The plan without the steps that lead elsewhere, or need one that does. Its id stays."""
    return only(plan, lambda step: _aim(step) in agreed, "reconcile apply")


def only(plan: Plan, meant: Callable[[Step], bool], fix: str) -> Plan:
    """The plan without the steps that are not meant, or need one that is not; they are held. `meant` is asked of each
    step that brings something about; `fix`: how to say yes to the others. Its id stays."""
    refused: list[Step] = []
    for step in plan.steps:
        stranger = _aim(step) is not None and not meant(step)
        if stranger or {other.address for other in refused}.intersection(step.needs):
            refused.append(step)
    if not refused:
        return plan
    kept = _used([step for step in plan.steps if step not in refused])
    held = (*plan.held, *(_held(step, aim[0], fix) for step in refused if (aim := _aim(step))))
    return replace(
        plan,
        steps=kept,
        held=tuple(sorted(held, key=lambda one: one.app_id)),
        gate=plan.gate if kept else None,
    )


def _aim(step: Step) -> Aim | None:
    """None for what is only done so that another step can be."""
    match step.verb:
        case DeployApp(spec) | UpdateApp(spec):
            return spec.app_id, spec.digest()
        case StopApp(app_id):
            return app_id, ""
        case ScaleWorkers(minimum, maximum):
            return WORKERS, f"{minimum} {maximum}"
        case UploadArtifact() | PrepareRuntimeEnv():
            return None
        case _:
            assert_never(step.verb)


def _used(steps: list[Step]) -> tuple[Step, ...]:
    """Without uploads and environments that nothing needs any more."""
    needed: set[str] = set()
    kept: list[Step] = []
    for step in reversed(steps):  # a step needs only earlier ones
        if _aim(step) or step.address in needed:
            needed.update(step.needs)
            kept.append(step)
    return tuple(reversed(kept))


def _held(step: Step, subject: str, fix: str) -> Held:
    message = "it came up after the plan that was agreed to"
    action = _ACTIONS[type(step.verb)]
    return Held(subject, Reason.APPROVAL_REQUIRED, message, fix, action, step.changes, step.drift)


_ACTIONS: Mapping[type[Verb], Action] = {
    DeployApp: Action.CREATE,
    UpdateApp: Action.UPDATE,
    StopApp: Action.STOP,
    ScaleWorkers: Action.SCALE,
}
