"""Plan × Hypha → Outcomes. Independent chains run side by side; what needs a failed step is skipped.

Law: every step is safe to repeat, and a step that fails stops only the steps that need it. Each step carries what must
still be so (`expected`), which the runtime checks where it acts: nothing is overwritten that changed since the look.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.status import Prepared
from reconciler.errors import Unreachable
from reconciler.planning.desired import DesiredState
from reconciler.planning.steps import (
    DeployApp,
    Outcome,
    Plan,
    PrepareRuntimeEnv,
    Result,
    ScaleWorkers,
    Step,
    StopApp,
    UpdateApp,
    UploadArtifact,
)
from reconciler.ports import Hypha, Progress, Secrets, SecretUnavailable, StepFailed
from reconciler.slots import Slots

log = logging.getLogger(__name__)

PATIENCE_S = 20.0
"""So long the first pass of several waits for an environment; nothing else is looked at meanwhile."""


class StillGoing(Exception):
    """A step is not done, and goes on without us."""


@dataclass(frozen=True, slots=True)
class Started:
    """Work on a step began."""

    step: Step


@dataclass(frozen=True, slots=True)
class Progressed:
    """A step that takes long says where it is."""

    step: Step
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A step is done, failed, or skipped."""

    step: Step
    outcome: Outcome


Event = Started | Progressed | Ended
Tell = Callable[[Event], None]


async def go_on(step: Step) -> str:  # noqa: ARG001 - as a brake
    """Nothing speaks against it."""
    return ""


@dataclass(frozen=True, slots=True)
class Means:
    """What steps are done with: the outside, the bytes of git's blobs, and the folders' manifests by tree. `brake` is
    asked before each step: "", or why it may not begin. `patience_s`: what takes longer is left to a later pass."""

    hypha: Hypha
    secrets: Secrets
    read: Callable[[str], bytes]
    manifests: Mapping[str, Mapping[str, Any]]
    brake: Callable[[Step], Awaitable[str]] = go_on
    patience_s: float = math.inf


def manifests_of(desired: DesiredState) -> Mapping[str, Mapping[str, Any]]:
    """What each folder's author wrote, by git tree."""
    codes = (app.code for app in desired.apps.values())
    return {code.folder.tree: code.manifest.model_dump(mode="json", exclude_unset=True) for code in codes if code}


async def apply(plan: Plan, means: Means, *, parallel: int, tell: Tell) -> tuple[Outcome, ...]:
    """Carry out the plan; outcomes come in the plan's order. Whether anybody listens changes nothing."""
    slots, depth, tell = Slots(parallel), _depths(plan), _to_whoever_listens(tell)
    ended: dict[str, asyncio.Task[Outcome]] = {}

    async def run(step: Step) -> Outcome:
        needed = [await ended[address] for address in step.needs]
        if missing := [outcome for outcome in needed if outcome.result is not Result.DONE]:
            outcome = _left_out(step, missing)
        else:
            async with slots.taken(rank=depth[step.address]):
                outcome = await _attempt(step, plan.cluster, means, tell)
        tell(Ended(step, outcome))
        return outcome

    async with asyncio.TaskGroup() as group:
        for step in plan.steps:  # a step needs only earlier ones, so their tasks are there
            ended[step.address] = group.create_task(run(step))
    return tuple(task.result() for task in ended.values())


def _to_whoever_listens(tell: Tell) -> Tell:
    def told(event: Event) -> None:
        try:
            tell(event)
        except (OSError, SystemExit):  # rich ends the process for a reader that went away
            log.debug("event=nobody_listens address=%s", event.step.address)
        except Exception:  # a listener's boundary: a bug in it must not stop a step
            log.exception("event=not_told address=%s", event.step.address)

    return told


def _depths(plan: Plan) -> Mapping[str, int]:
    """How many steps come before each: the deeper one is nearer to a running app, and goes first."""
    depth: dict[str, int] = {}
    for step in plan.steps:
        depth[step.address] = 1 + max((depth[address] for address in step.needs), default=-1)
    return depth


async def _attempt(step: Step, owner: str, means: Means, tell: Tell) -> Outcome:
    started = time.monotonic()
    try:
        if reason := await means.brake(step):
            return Outcome(step.address, Result.SKIPPED, reason)
        tell(Started(step))
        message = await _do(step, owner, means, lambda text: tell(Progressed(step, text)))
        result = Result.DONE
    except StillGoing as going:
        result, message = Result.WAITING, str(going)
    except (StepFailed, SecretUnavailable) as error:
        result, message = Result.FAILED, str(error)
    except Unreachable as error:
        result, message = Result.FAILED, f"{error}. {error.hint}".strip()
    except Exception as error:  # one step's boundary: a bug in it must not stop the others
        log.exception("event=step_crashed address=%s", step.address)
        result, message = Result.FAILED, f"unexpected {type(error).__name__}: {error}"
    return Outcome(step.address, result, means.secrets.masked(message), round(time.monotonic() - started, 3))


async def _do(step: Step, owner: str, means: Means, progress: Progress) -> str:
    """Carry out one step; returns what is worth saying about it."""
    runtime, artifacts = means.hypha.runtime, means.hypha.artifacts
    expected = dict(step.pre).get("app.digest")
    match step.verb:
        case ScaleWorkers(minimum, maximum):
            await runtime.scale(minimum, maximum)
            return ""
        case UploadArtifact(folder=folder) as upload:
            await artifacts.upload(upload, means.manifests[folder.tree], means.read, progress)
            return ""
        case PrepareRuntimeEnv(spec):
            prepared = await _prepared(spec, means, progress)
            if not prepared.ok:
                raise StepFailed(prepared.message or "the environment could not be built")
            return prepared.message
        case DeployApp(spec, table, provenance) | UpdateApp(spec, table, provenance):
            values = means.secrets.resolve(spec.app_id, table)
            await runtime.apply(spec, values, provenance, expected=expected)
            return ""
        case StopApp(app_id):
            await runtime.remove(app_id, owner=owner, expected=expected)
            return ""
        case _:
            assert_never(step.verb)


async def _prepared(spec: AppSpec, means: Means, progress: Progress) -> Prepared:
    begun = time.monotonic()
    while not (prepared := await means.hypha.runtime.prepare(spec)).done:
        message = prepared.message or "building the environment"
        if time.monotonic() - begun >= means.patience_s:
            raise StillGoing(f"{message}; the next pass asks again")
        progress(message)
    return prepared


def _left_out(step: Step, missing: Sequence[Outcome]) -> Outcome:
    """A step that needs these, which are not done: it waits if they all may be done yet."""
    lost = next((outcome for outcome in missing if outcome.result is not Result.WAITING), None)
    if lost is None:
        return Outcome(step.address, Result.WAITING, f"needs {missing[0].address}, which is not done yet")
    became = "was skipped" if lost.result is Result.SKIPPED else "failed"
    return Outcome(step.address, Result.SKIPPED, f"needs {lost.address}, which {became}")
