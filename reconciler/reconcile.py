"""One pass: source → desired → observe → diff → plan → apply → report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from reconciler.apply import Means, Tell, apply, manifests_of
from reconciler.errors import ReconcilerError, Unreachable
from reconciler.observe import observe
from reconciler.planning import conditions, drift, plan_file
from reconciler.planning.declare import declare
from reconciler.planning.desired import DesiredState
from reconciler.planning.live import LiveState
from reconciler.planning.planner import plan
from reconciler.planning.source import SourceTree
from reconciler.planning.steps import Outcome, Plan, PlanOptions, Result
from reconciler.planning.story import explain
from reconciler.ports import Hypha, Said, Told, World

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
    said = Said(report, plan_file.to_json(seen.plan, report["observed_at"]), _stories(seen))
    said = await _tell(world.told, said, conditions.of_report(report))
    return Pass(seen, outcomes, said.report)


async def tell_trouble(world: World, error: ReconcilerError) -> None:
    """Let the last report say that there is no newer one, and why: it must not be read as how things are now."""
    if last := world.told.said:
        stale = {**last.report, "complete": False, "observed_at": _now()}
        await _tell(world.told, replace(last, report=stale), conditions.of_trouble(str(error)))


async def _workspace(hypha: Hypha) -> str | None:
    """None while nobody can tell; then live is unseen as well, and everything is held."""
    try:
        return await hypha.artifacts.workspace()
    except Unreachable:
        return None


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
