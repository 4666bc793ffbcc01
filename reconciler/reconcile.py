"""One pass: source → desired → observe → diff → plan → apply → report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from reconciler.apply import Means, Tell, apply, manifests_of
from reconciler.errors import ReconcilerError, Unreachable
from reconciler.observe import observe
from reconciler.planning import conditions, drift
from reconciler.planning.declare import declare
from reconciler.planning.desired import DesiredState
from reconciler.planning.live import LiveState
from reconciler.planning.planner import plan
from reconciler.planning.source import SourceTree
from reconciler.planning.steps import Outcome, Plan, PlanOptions, Result
from reconciler.ports import Hypha, Told, World

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Look:
    """The first half of a pass: what git says, what runs, and what would be done about it."""

    tree: SourceTree
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

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.result is not Result.DONE)


async def reconcile(world: World, options: PlanOptions, *, tell: Tell = lambda _: None) -> Pass:
    """The whole picture, once."""
    return await carry_out(world, await look(world, options), tell=tell)


async def look(world: World, options: PlanOptions) -> Look:
    """What would be done. Writes nothing. Raises InvalidDesiredState, SourceUnusable or Unreachable (of the source)."""
    tree = await world.source.fetch()
    hypha = world.hypha(declare(tree).cluster)
    desired = declare(tree, workspace=await _workspace(hypha))
    live = await observe(hypha)
    fingerprints = {app_id: world.secrets.fingerprints(app_id, app.secrets) for app_id, app in desired.apps.items()}
    return Look(tree, desired, live, plan(desired, live, fingerprints, options), hypha)


async def carry_out(world: World, seen: Look, *, tell: Tell = lambda _: None) -> Pass:
    """Do what the look says, and report. Failed steps are outcomes, not exceptions."""
    means = Means(seen.hypha, world.secrets, seen.tree.read, manifests_of(seen.desired))
    outcomes = await apply(seen.plan, means, parallel=seen.desired.cluster.policy.parallel, tell=tell)
    report = drift.report(seen.plan, seen.live, outcomes, observed_at=_now())
    world.told.reports = seen.hypha.reports
    report = await _tell(world.told, report, conditions.of_report(report))
    return Pass(seen, outcomes, report)


async def tell_trouble(world: World, error: ReconcilerError) -> None:
    """Let the last report say that there is no newer one, and why: it must not be read as how things are now."""
    if world.told.report:
        stale = {**world.told.report, "complete": False, "observed_at": _now()}
        await _tell(world.told, stale, conditions.of_trouble(str(error)))


async def _workspace(hypha: Hypha) -> str | None:
    """None while nobody can tell; then live is unseen as well, and everything is held."""
    try:
        return await hypha.artifacts.workspace()
    except Unreachable:
        return None


async def _tell(told: Told, report: Mapping[str, Any], judged: tuple[conditions.Judged, ...]) -> Mapping[str, Any]:
    told.conditions = conditions.since(judged, told.conditions, revision=report["revision"], now=report["observed_at"])
    told.report = {**report, "conditions": [one.document() for one in told.conditions]}
    if told.reports is not None:
        try:
            await told.reports.publish(told.report)
        except Unreachable as error:
            log.warning("event=report_not_published why=%s", error)
    return told.report


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
