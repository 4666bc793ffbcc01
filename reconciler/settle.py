"""Repeats passes until what they are to keep is settled: healthy, rejected, gone, or out of time.

A step is done when the runtime has accepted it. Whether the app then came up is for later looks, and these are them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from bioengine_runtime.contract.status import AppState, Rejection, WorkerState
from reconciler.apply import Tell
from reconciler.errors import Unreachable
from reconciler.planning.agreed import WAITS, Aim
from reconciler.planning.steps import DeployApp, Outcome, Plan, PlanOptions, Reason, Result, StopApp, UpdateApp
from reconciler.planning.timing import is_of_app
from reconciler.ports import Runtime, World
from reconciler.reconcile import Pass, reconcile

PASSES = 20
"""More passes than this that do nothing new would mean that we undo our own work."""


class Verdict(StrEnum):
    """How an app ended up. WAITING is the only one that may still change."""

    HEALTHY = "healthy"
    GONE = "gone"
    REJECTED = "rejected"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Settled:
    """One app after its step: `why` and `log_lines` when it did not come up, and which version `serves` instead:
    one that was there all the time, or that was brought back (`rolled_back`)."""

    app_id: str
    verdict: Verdict
    why: str = ""
    log_lines: tuple[str, ...] = ()
    serves: str = ""
    rolled_back: bool = False


@dataclass(frozen=True, slots=True)
class Waited:
    """The last pass, and how every app that was touched, or was as it should be, ended up. `outcomes` are those of all
    passes; of a step that was done more than once, how it ended."""

    last: Pass
    passes: int
    apps: Mapping[str, Settled] = field(default_factory=dict[str, Settled])
    outcomes: tuple[Outcome, ...] = ()

    @property
    def left(self) -> tuple[str, ...]:
        """What is not done because nobody said yes to it, because what it waits for did not come, or because its turn
        did not, in sentences."""
        plan = self.last.look.plan
        gate = (plan.gate.message,) if plan.gate and not self.last.outcomes else ()
        missing = WAITS | {Reason.APPROVAL_REQUIRED}
        tried = {outcome.address for outcome in self.last.outcomes}
        unbegun = () if gate else (step for step in plan.steps if is_of_app(step) and step.address not in tried)
        return (
            *gate,
            *(f"{held.app_id}: {held.message}" for held in plan.held if held.reason in missing),
            *(f"{step.app_id}: its turn did not come; the next apply goes on with it" for step in unbegun),
        )

    @property
    def ok(self) -> bool:
        done = all(outcome.result is Result.DONE for outcome in self.outcomes)
        well = all(app.verdict in (Verdict.HEALTHY, Verdict.GONE) for app in self.apps.values())
        return done and well and not self.left


async def reconcile_until_settled(
    world: World,
    options: PlanOptions,
    first: Pass,
    *,
    timeout_s: float,
    tell: Tell,
    approved: bool = False,
    agreed: Collection[Aim] | None = None,
    waiting: Callable[[Iterable[Settled]], None] = lambda _: None,
    every_s: float = 1.0,
) -> Waited:
    """Passes after `first` until nothing is left that time alone would change. They do nothing but what was `agreed`;
    None: whatever git asks for by then."""
    deadline = time.monotonic() + timeout_s
    done, passes, wanted = first, 1, to_wait_for(first)
    outcomes = {outcome.address: outcome for outcome in first.outcomes}
    while True:
        apps = await _until_settled(done.look.hypha.runtime, wanted, deadline, waiting, every_s)
        finished = time.monotonic() > deadline or passes >= PASSES or not _more_to_come(done)
        if finished:
            return Waited(done, passes, apps, tuple(outcomes.values()))
        options = replace(options, tried=options.tried | wanted.keys())
        done = await reconcile(world, options, tell=tell, approved=approved, agreed=agreed)
        passes += 0 if _goes_on(done) or _is_new(done, outcomes) else 1  # to ask again undoes nothing
        outcomes |= {outcome.address: outcome for outcome in done.outcomes}
        wanted |= to_wait_for(done)
        if done.look.plan.empty and _waits(done.look.plan):
            await asyncio.sleep(every_s)


def to_wait_for(done: Pass) -> dict[str, str]:
    """app id → the digest it is to run with, "" when it is to be gone.

    It is what the worker has accepted, now or before; of what differs only as `ignore` allows, that is what runs. What
    failed, was skipped or is held will not come up by waiting.
    """
    accepted = {outcome.address for outcome in done.outcomes if outcome.result is Result.DONE}
    apps, owner = done.look.desired.apps, done.look.desired.cluster.name
    running = ((app_id, done.look.live.apps.get(app_id)) for app_id in done.look.plan.unchanged)
    wanted = {app_id: app.digest for app_id, app in running if app and app.digest}
    for app in done.look.live.apps.values():
        # What is being stopped may have lost its record already; only another owner's is certainly not ours.
        foreign = app.provenance is not None and app.provenance.owner != owner
        if app.status == "DELETING" and not foreign and app.app_id not in apps:
            wanted[app.app_id] = ""
    for step in done.look.plan.steps:
        match step.verb:
            case DeployApp(spec) | UpdateApp(spec) if step.address in accepted:
                wanted[spec.app_id] = spec.digest()
            case StopApp(app_id) if step.address in accepted:
                wanted[app_id] = ""
            case _:
                pass
    return wanted


def judge(app_id: str, digest: str, app: AppState | None) -> Settled:
    """How one app stands, against the digest it is to run with."""
    if app is None:
        return Settled(app_id, Verdict.WAITING if digest else Verdict.GONE, "" if not digest else "not there yet")
    if digest and app.rejected and app.rejected.digest == digest:
        return _rejected(digest, app, app.rejected)
    if digest and app.digest == digest and app.status == "DEPLOY_FAILED":
        return Settled(app_id, Verdict.REJECTED, app.message or "it did not come up")
    up = app.digest == digest and app.status == "RUNNING" and not app.updating and app.service_id is not None
    return Settled(app_id, Verdict.HEALTHY if up else Verdict.WAITING, app.message or app.status)


def _rejected(digest: str, app: AppState, rejected: Rejection) -> Settled:
    if rejected.rollback == "under way":
        return Settled(app.app_id, Verdict.WAITING, f"going back to the last good version: {rejected.reason}")
    instead = app.status == "RUNNING" and app.digest != digest and app.spec is not None
    serves = app.spec.version if app.spec and instead else ""
    lines, back = tuple(rejected.log_lines), rejected.rollback == "done"
    return Settled(app.app_id, Verdict.REJECTED, rejected.reason, lines, serves, back)


async def _until_settled(
    runtime: Runtime,
    wanted: Mapping[str, str],
    deadline: float,
    waiting: Callable[[Iterable[Settled]], None],
    every_s: float,
) -> dict[str, Settled]:
    if not wanted:
        return {}
    while True:
        state = await _observed(runtime)
        running = {app.app_id: app for app in state.apps} if state else {}
        apps = {
            app_id: judge(app_id, digest, running.get(app_id))
            if state
            else Settled(app_id, Verdict.WAITING, "the worker does not answer")
            for app_id, digest in wanted.items()
        }
        waiting(apps.values())
        if time.monotonic() > deadline or all(app.verdict is not Verdict.WAITING for app in apps.values()):
            return apps
        await asyncio.sleep(every_s)


async def _observed(runtime: Runtime) -> WorkerState | None:
    try:
        return await runtime.observe()
    except Unreachable:
        return None


def _more_to_come(done: Pass) -> bool:
    """Whether another pass could do something that this one could not."""
    did_something = any(outcome not in done.failed for outcome in done.outcomes)
    return did_something or (not done.outcomes and _waits(done.look.plan))


def _goes_on(done: Pass) -> bool:
    """Whether something is being done over there that takes longer than one pass."""
    return any(outcome.result is Result.WAITING for outcome in done.outcomes)


def _is_new(done: Pass, before: Mapping[str, Outcome]) -> bool:
    """Whether something was done that no pass had done before."""
    finished = {address for address, outcome in before.items() if outcome.result is Result.DONE}
    return any(outcome.result is Result.DONE and outcome.address not in finished for outcome in done.outcomes)


def _waits(plan: Plan) -> bool:
    return any(held.reason in WAITS for held in plan.held)
