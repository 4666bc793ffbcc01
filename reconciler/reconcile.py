"""One pass: source → desired → observe → diff → plan → apply → report."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

from reconciler import learning
from reconciler.apply import PATIENCE_S, Means, Tell, apply, manifests_of
from reconciler.brake import Brake
from reconciler.errors import KeptElsewhere, ReconcilerError, Unreachable
from reconciler.history import entries_of
from reconciler.lease import change
from reconciler.mask import masked_live
from reconciler.observe import observe
from reconciler.planning import conditions, drift, meanwhile, plan_file
from reconciler.planning.agreed import Aim, within
from reconciler.planning.declare import declare
from reconciler.planning.desired import DesiredState
from reconciler.planning.live import LiveState, Unseen
from reconciler.planning.memory import Holder, Order, Remembered
from reconciler.planning.pins import pinned, pins
from reconciler.planning.planner import plan
from reconciler.planning.rights import anchored
from reconciler.planning.source import SourceTree
from reconciler.planning.steps import Outcome, Plan, PlanOptions, Reason, Result, Step
from reconciler.planning.story import explain
from reconciler.planning.timing import first_wave
from reconciler.ports import Hypha, OrderRefused, Said, Told, World
from reconciler.telling.runs import new_id, run_id

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Look:
    """The first half of a pass: what git says, what runs, and what would be done about it. `asked` is what git says at
    this commit; `desired` is the same but for apps that somebody rolled back."""

    tree: SourceTree
    asked: DesiredState
    desired: DesiredState
    live: LiveState
    plan: Plan
    hypha: Hypha


@dataclass(frozen=True, slots=True)
class Pass:
    """A whole pass."""

    look: Look
    outcomes: tuple[Outcome, ...]
    report: Mapping[str, Any]
    run: str = field(default_factory=lambda: run_id.get() or new_id())
    """Its name in the history."""

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """What will not be done without another try."""
        return tuple(outcome for outcome in self.outcomes if outcome.result in (Result.FAILED, Result.SKIPPED))


async def reconcile(
    world: World,
    options: PlanOptions,
    *,
    tell: Tell = lambda _: None,
    approved: bool = False,
    agreed: Collection[Aim] | None = None,
    woken: Callable[[], bool] = lambda: False,
) -> Pass:
    """The whole picture, once of many times, by the one who has the lease: what waits for an app to come up is left to
    a later pass. Nothing but what was `agreed` is done; None: all that git asks for. Raises what `look` and `carry_out`
    raise, and KeptElsewhere."""
    seen = await look(world, options)
    if agreed is not None:
        seen = replace(seen, plan=within(seen.plan, agreed))
    if seen.live.remembered is not None:
        await _hold(world, seen.hypha)
    elif world.told.reports is None:  # we never had the lease
        await _refuse_a_second(seen)
    done = await carry_out(world, seen, tell=tell, approved=approved, one_wave=True, woken=woken)
    await _remember_commit(world, seen)
    return done


async def look(world: World, options: PlanOptions) -> Look:
    """What would be done. Writes nothing. Raises InvalidDesiredState, SourceUnusable or Unreachable (of the source)."""
    tree = await world.source.fetch()
    hypha = world.hypha(anchored(declare(tree), world.anchor).cluster)
    workspace, nowhere = await _workspace(hypha)
    asked = anchored(declare(tree, workspace=workspace), world.anchor)
    # Before anybody is asked: what was read is masked in what they answer.
    known = {app_id: world.secrets.fingerprints(app_id, app.secrets) for app_id, app in asked.apps.items()}
    live = await observe(hypha)
    if nowhere and not asked.cluster.hypha.workspace:
        live = _unplaced(live, nowhere)
    live = masked_live(live, world.secrets.masked)
    asked = learning.with_history(asked, tree, live)
    desired = pinned(asked, await _older(world, pins(asked, live), workspace))
    fingerprints = {
        app_id: known[app_id] if app is asked.apps.get(app_id) else world.secrets.fingerprints(app_id, app.secrets)
        for app_id, app in desired.apps.items()
    }
    return Look(tree, asked, desired, live, plan(desired, live, fingerprints, options), hypha)


async def carry_out(
    world: World,
    seen: Look,
    *,
    tell: Tell = lambda _: None,
    approved: bool = False,
    one_wave: bool = False,
    woken: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.time,
) -> Pass:
    """Do what the look says, report it, and note it. Failed steps are outcomes, not exceptions.

    A gate of the plan holds back all of it but for who `approved` it; one that closes meanwhile, what is not begun, and
    an order for an app, what is not begun of that. With `one_wave` apps wait until those they depend on are up, which a
    later pass sees; else until these were accepted. When `woken` says that there is news, and it is another commit,
    what is begun is finished and the rest is left to the next pass. Raises HeldElsewhere before any
    step, LeaseLost after the last one, or Unreachable when nobody can tell who has the lease.
    """
    do = seen.plan if approved or not seen.plan.gate else replace(seen.plan, steps=())
    do = first_wave(do) if one_wave else do
    holder = await _hold(world, seen.hypha) if do.steps else None
    against = _against(seen, clock, approved=approved)
    brake = Brake(world.lease, seen.hypha.memory, lambda: _newer_commit(world, seen, woken), against)
    patience_s = _patience_s(world.told) if one_wave else math.inf
    means = Means(seen.hypha, world.secrets, seen.tree.read, manifests_of(seen.desired), brake, patience_s)
    outcomes = await apply(do, means, parallel=seen.desired.cluster.policy.parallel, tell=tell)
    before = world.told.said
    done = Pass(seen, outcomes, drift.report(seen.plan, seen.live, outcomes, observed_at=_now()))
    if not brake.lost:
        done = await _published(world, done)
        await _learn(world, done, before)
    await _note(world, done, by=holder.name if holder else "reconcile", superseded_by=brake.newer)
    if brake.lost:
        raise brake.lost
    return done


def _patience_s(told: Told) -> float:
    """What was begun by the pass before is only asked for, so that nothing that comes meanwhile waits for it."""
    before = told.said.report["apps"] if told.said else ()
    return 0.0 if any(app["reason"] == Reason.UPDATING for app in before) else PATIENCE_S


async def tell_trouble(world: World, error: Exception) -> None:
    """Let the last report say that there is no newer one, and why: it must not be read as how things are now."""
    if last := world.told.said:
        stale = {**last.report, "complete": False, "observed_at": _now()}
        await _tell(world.told, replace(last, report=stale), conditions.of_trouble(error))


async def _hold(world: World, hypha: Hypha) -> Holder | None:
    return await world.lease.hold(hypha.memory) if world.lease and hypha.memory else None


async def _refuse_a_second(seen: Look) -> None:
    """Raises KeptElsewhere when another one answers for this cluster, and we would offer the same service."""
    cluster, running = seen.desired.cluster.name, seen.hypha.running
    if seen.hypha.reports is None or running is None:
        return
    try:
        status: object = await running.order("get_status", {})
    except (Unreachable, OrderRefused):
        return
    if isinstance(status, Mapping) and cast("Mapping[str, Any]", status).get("target") == cluster:
        raise KeptElsewhere(cluster)


def _against(seen: Look, clock: Callable[[], float], *, approved: bool) -> Callable[[Step, Remembered | None], str]:
    policy = seen.desired.cluster.policy

    def against(step: Step, remembered: Remembered | None) -> str:
        ordered = meanwhile.ordered_otherwise(step, seen.live, remembered) if remembered else ""
        return ordered or ("" if approved else meanwhile.closed(seen.plan, policy, seen.live, clock()))

    return against


async def _newer_commit(world: World, seen: Look, woken: Callable[[], bool]) -> str:
    """Its id; "" when the source has none, or cannot be read: then this plan is as good as any."""
    if not woken():
        return ""
    try:
        newest = (await world.source.fetch()).revision.id
    except ReconcilerError:
        return ""
    return newest if newest != seen.tree.revision.id else ""


async def _published(world: World, done: Pass) -> Pass:
    seen, report = done.look, done.report
    if world.lease is None or seen.live.remembered is not None:
        # Who cannot see whether another one has the lease must not answer in its place; who had it once goes on.
        world.told.reports = seen.hypha.reports
    said = Said(report, plan_file.to_json(seen.plan, report["observed_at"]), _stories(seen))
    said = await _tell(world.told, said, conditions.of_report(report))
    return replace(done, report=said.report)


async def _learn(world: World, done: Pass, before: Said | None) -> None:
    seen = done.look
    took = learning.came_up(before.report if before else {}, seen.live)
    gone = learning.gone(done.outcomes, seen.plan, seen.asked, seen.live)
    over = learning.over(seen.asked, seen.live)
    if (took or gone or over) and world.lease and seen.hypha.memory:
        try:
            await change(seen.hypha.memory, world.lease, lambda now: learning.learned(now, took, gone, over))
        except ReconcilerError as error:  # the next pass learns it, too
            log.warning("event=not_remembered what=learned why=%s", error)


async def _remember_commit(world: World, seen: Look) -> None:
    commit, live = seen.tree.revision.commit, seen.live
    if live.remembered is None or live.remembered.commit == commit or world.lease is None or seen.hypha.memory is None:
        return
    if learning.carried_on(seen.plan, seen.desired, live):
        try:
            await change(seen.hypha.memory, world.lease, lambda now: replace(now, commit=commit))
        except ReconcilerError as error:  # the next pass does it, too
            log.warning("event=not_remembered what=commit why=%s", error)


async def _note(world: World, done: Pass, *, by: str, superseded_by: str) -> None:
    """What cannot be noted now goes with what the next pass notes."""
    seen = done.look
    if seen.hypha.memory is None:
        return
    masked = world.secrets.masked
    entries = entries_of(
        seen.plan, seen.live, done.outcomes, by=by, run=done.run, masked=masked, superseded_by=superseded_by
    )
    try:
        await seen.hypha.memory.append(entries)
    except Unreachable as error:
        log.warning("event=history_not_written why=%s", error)


async def _workspace(hypha: Hypha) -> tuple[str | None, str]:
    """None while nobody can tell, and why."""
    try:
        return await hypha.artifacts.workspace(), ""
    except Unreachable as error:
        return None, f"{error}. {error.hint}".rstrip(". ") + "."


def _unplaced(live: LiveState, why: str) -> LiveState:
    """Seen a moment after nobody could tell our workspace. The ids of what is wanted are not known then, so what runs
    cannot be held against them."""
    unseen = {what: Unseen(what, why) for what in ("apps", "artifacts")} | {one.what: one for one in live.unseen}
    return replace(live, worker=None, artifacts=None, unseen=tuple(unseen.values()))


async def _older(world: World, pins: Mapping[str, Order], workspace: str | None) -> Mapping[str, DesiredState]:
    """App id → what git said at the commit it is to go back to. An app whose commit cannot be read is left out: it
    is held as it runs, since going forward would undo what somebody ordered, and the others go on."""
    if world.at is None:
        return {}
    then: dict[str, DesiredState] = {}
    for revision in sorted({order.revision for order in pins.values()}):
        try:
            then[revision] = declare(await world.at(revision).fetch(), workspace=workspace)
        except ReconcilerError as error:
            log.warning("event=pin_not_read revision=%s why=%s", revision[:7], error)
    return {app_id: then[order.revision] for app_id, order in pins.items() if order.revision in then}


def _stories(seen: Look) -> Callable[[str], Mapping[str, Any]]:
    def story(app_id: str) -> Mapping[str, Any]:
        return explain(app_id, seen.desired, seen.live, seen.plan).document()

    return story


async def _tell(told: Told, said: Said, judged: tuple[conditions.Judged, ...]) -> Said:
    revision, now = said.report["revision"], said.report["observed_at"]
    told.conditions = conditions.since(judged, told.conditions, revision=revision, now=now)
    told.said = replace(said, report={**said.report, "conditions": [one.document() for one in told.conditions]})
    if told.reports is not None:
        try:
            await told.reports.publish(told.said)
        except Unreachable as error:
            log.warning("event=report_not_published why=%s", error)
    return told.said


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
