"""The commands that only ask about apps: explain, trace, diff, wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.table import Table

from reconciler.cli.place import Place, opened
from reconciler.cli.show import Screen
from reconciler.cli.verbs import looked, show_unseen, way_to_see
from reconciler.errors import Unreachable
from reconciler.planning import drift, render_text
from reconciler.planning.conditions import TIME_HELPS
from reconciler.planning.problems import Problem
from reconciler.planning.shown import plain
from reconciler.planning.steps import PlanOptions, Reason
from reconciler.planning.story import Story
from reconciler.planning.story import explain as explained
from reconciler.planning.story import trace as traced
from reconciler.reconcile import Look

TIMED_OUT = 124
"""As timeout(1) has it."""
LOOK_EVERY_S = 2.0
MAY_PASS = TIME_HELPS | {Reason.INSUFFICIENT_CAPACITY}
"""Reasons that waiting may end. Room comes when others leave it, and who waits says for how long."""
AS_IT_SHOULD_BE = ("Synced Healthy", "RolledBack Healthy")
"""As git says, or as somebody ordered who rolled it back."""


async def explain(place: Place, app_id: str, screen: Screen, *, as_json: bool) -> int:
    seen = await _seen(place, {app_id}, screen)
    return _tell(explained(app_id, seen.desired, seen.live, seen.plan), screen, as_json=as_json)


async def trace(place: Place, app_id: str, screen: Screen, *, as_json: bool) -> int:
    seen = await _seen(place, {app_id}, screen)
    return _tell(traced(app_id, seen.desired, seen.live), screen, as_json=as_json)


async def diff(place: Place, screen: Screen) -> int:
    """Exit 0: no difference; 1: some; 2: not everything could be seen or read. As diff(1)."""
    seen = await _seen(place, (), screen)
    for line in render_text.differences(seen.plan):
        screen.result(line)
    if seen.plan.unseen:
        show_unseen(seen.plan, screen)
        screen.note(f"\nNext: {screen.typed(way_to_see(seen.plan))}")
    if seen.desired.problems or seen.plan.unseen:
        return 2
    return 1 if seen.plan.steps or seen.plan.held else 0


async def wait(place: Place, app_ids: Collection[str], screen: Screen, *, timeout_s: float) -> int:
    """Exit 0 when all are in sync and healthy, 1 when one cannot become so by itself, 124 when time is out."""
    deadline = time.monotonic() + timeout_s
    seen: Look | None = None
    shown: Sequence[Problem] = ()
    told: Sequence[str] = ()
    async with opened(place, writes=False) as world:
        screen.masked = world.secrets.masked
        while True:
            try:
                seen = await looked(world, PlanOptions(), screen, named=app_ids, option="", shown=shown)
                shown, states = seen.desired.problems, _states(seen, app_ids)
                now = [_in_a_line(states), *(f"Not seen: {one.what}: {one.why}" for one in seen.plan.unseen)]
            except Unreachable as error:
                seen, states, now = None, {}, [str(error), *([f"fix: {error.hint}"] if error.hint else [])]
            if now != told:
                for line in now:
                    screen.note(plain(screen.typed(line)))
            told = now
            if seen and all(state in AS_IT_SHOULD_BE for state in states.values()):
                return 0
            if seen and any(held.reason not in MAY_PASS for held in seen.plan.held if held.app_id in states):
                explain = (screen.typed(f"reconcile explain {app_id}") for app_id in _unwell(states))
                screen.result("\nNext: " + " or ".join(explain))
                return 1
            if time.monotonic() > deadline:
                screen.result(f"\nNot within {timeout_s:g} s. Next: {screen.typed(_after_waiting(seen, states))}")
                return TIMED_OUT
            await asyncio.sleep(min(LOOK_EVERY_S, max(0.0, deadline - time.monotonic())))


def _in_a_line(states: Mapping[str, str]) -> str:
    told = ", ".join(f"{app_id} {state}" for app_id, state in sorted(states.items()))
    return told or "there are no apps to wait for"


def _after_waiting(seen: Look | None, states: Mapping[str, str]) -> str:
    """What nobody could see is not explained by its app."""
    if seen is None:
        return "reconcile doctor"
    return way_to_see(seen.plan) if seen.plan.unseen else f"reconcile explain {_unwell(states)[0]}"


def _states(seen: Look, app_ids: Collection[str]) -> dict[str, str]:
    wanted = set(app_ids) or seen.desired.apps.keys() | seen.desired.broken.keys()
    apps = drift.report(seen.plan, seen.live)["apps"]
    return {app["id"]: _state(app) for app in apps if app["id"] in wanted}


def _state(app: Mapping[str, Any]) -> str:
    back = app["reason"] == Reason.ROLLED_BACK and not app["changes"]
    return f"{'RolledBack' if back else app['sync']} {app['health']}"


def _unwell(states: Mapping[str, str]) -> list[str]:
    return [app_id for app_id, state in sorted(states.items()) if state not in AS_IT_SHOULD_BE]


async def _seen(place: Place, app_ids: Collection[str], screen: Screen) -> Look:
    async with opened(place, writes=False) as world:
        screen.masked = world.secrets.masked
        return await looked(world, PlanOptions(), screen, named=app_ids, option="")


def _tell(story: Story, screen: Screen, *, as_json: bool) -> int:
    rows = [(name, screen.typed(text) if name == "next" else text) for name, text in story.rows]
    story = replace(story, rows=tuple(rows))
    if as_json:
        screen.document(story.document())
    else:
        table = Table(box=None, show_header=False, pad_edge=False)
        before = ""
        for name, text in ((story.app_id, ""), *story.rows):
            table.add_row(name if name != before else "", text)
            before = name
        screen.show_unfolded(table)
    return 0 if story.ok else 1
