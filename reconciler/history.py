"""What a pass adds to the history, and an outbox for it.

Law: what changed something is said every time; a trouble that stands once, until something else is said of the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from bioengine_runtime.contract.status import AppState
from reconciler.planning.live import LiveState
from reconciler.planning.memory import Entry
from reconciler.planning.shown import plain
from reconciler.planning.steps import Change, DeployApp, Outcome, Plan, Reason, Result, UpdateApp

DONE, FAILED, FOUND, ORDERED = "done", "failed", "found", "ordered"
REJECTED, SUPERSEDED = "rejected", "superseded"
TEXT_LIMIT = 500
RECALLED = 200
"""So many of the newest entries tell which troubles stand."""
MOST_WAITING = 100
MOST_STANDING = 1000

Standing = Mapping[tuple[str, str], Mapping[str, Any]]
"""app id and what → what was said of it last, but by whom and when."""


def entries_of(
    plan: Plan,
    live: LiveState,
    outcomes: Iterable[Outcome],
    *,
    by: str,
    run: str,
    masked: Callable[[str], str],
    superseded_by: str = "",
) -> tuple[Entry, ...]:
    """Of one pass: drift that it found, versions that were rejected, and what became of its steps."""
    at, revision = live.observed_at, plan.revision.id
    entries = [*_drift(plan, live, run), *_rejections(plan, live, run, masked), *_steps(plan, outcomes, at, by, run)]
    if superseded_by:
        entries.append(Entry(at, by, "plan", SUPERSEDED, "", revision, run, {"by": superseded_by}))
    return tuple(entries)


def _drift(plan: Plan, live: LiveState, run: str) -> Iterator[Entry]:
    found = [(step.app_id, step.changes) for step in plan.steps if step.drift]
    found += [(held.app_id, held.changes) for held in plan.held if held.reason is Reason.SELF_HEAL_DISABLED]
    for app_id, changes in found:
        app = live.apps.get(app_id or "")
        if app is None:
            continue
        by = app.provenance.by if app.provenance and app.provenance.by else "unknown"
        details = {"changes": [_change(change) for change in changes], "changed_at": app.last_updated_at}
        yield Entry(live.observed_at, by, "drift", FOUND, app.app_id, plan.revision.id, run, details)


def _change(change: Change) -> dict[str, str]:
    return {"field": change.field, "live": change.before, "desired": change.after}


def _rejections(plan: Plan, live: LiveState, run: str, masked: Callable[[str], str]) -> Iterator[Entry]:
    for app in live.apps.values():
        if app.rejected and _is_ours(app, plan.cluster):
            details = {"reason": plain(masked(app.rejected.reason), TEXT_LIMIT), "digest": app.rejected.digest}
            yield Entry(app.rejected.at, "worker", "version", REJECTED, app.app_id, plan.revision.id, run, details)


def _is_ours(app: AppState, owner: str) -> bool:
    return app.provenance is not None and app.provenance.owner == owner


def _steps(plan: Plan, outcomes: Iterable[Outcome], at: float, by: str, run: str) -> Iterator[Entry]:
    steps = {step.address: step for step in plan.steps}
    for outcome in outcomes:
        step = steps[outcome.address]
        app_id, revision = step.app_id or "", plan.revision.id
        if outcome.result is Result.DONE:
            details: dict[str, Any] = {"why": plain(step.why, TEXT_LIMIT), "seconds": outcome.seconds}
            if isinstance(step.verb, DeployApp | UpdateApp):  # an older commit's, when somebody rolled it back
                revision, details["digest"] = step.verb.provenance.commit, step.verb.spec.digest()
            yield Entry(at, by, step.address, DONE, app_id, revision, run, details)
        elif outcome.result is Result.FAILED:
            details = {"message": plain(outcome.message, TEXT_LIMIT)}
            yield Entry(at, by, step.address, FAILED, app_id, revision, run, details)


def unsaid(entries: Iterable[Entry], standing: Standing) -> tuple[tuple[Entry, ...], Standing]:
    """What is new among these, oldest first, and what stands after it."""
    fresh: list[Entry] = []
    now = dict(standing)
    for entry in entries:
        about = (entry.app_id, entry.what)
        said = {"result": entry.result, **entry.details, "seconds": None}
        if now.get(about) == said and not _changes(entry):
            continue
        now.pop(about, None)
        now[about] = said  # at the end: the newest are kept
        fresh.append(entry)
    return tuple(fresh), dict(list(now.items())[-MOST_STANDING:])


def _changes(entry: Entry) -> bool:
    """Whether something became another by it. A failure changes nothing, and nor does an environment that is there."""
    return entry.result == ORDERED or (entry.result == DONE and not entry.what.startswith("prepare "))


class Outbox:
    """Batches of entries on their way: what could not be sent waits, and goes first the next time."""

    def __init__(
        self,
        recall: Callable[[], Awaitable[Sequence[Entry]]],
        send: Callable[[Sequence[Entry]], Awaitable[None]],
    ) -> None:
        self._recall = recall
        self._send = send
        self._waiting: list[tuple[Entry, ...]] = []
        self._standing: Standing | None = None
        self._sending = asyncio.Lock()

    async def add(self, entries: Sequence[Entry]) -> None:
        """Send these, and what waits; asks nobody when there is nothing. Raises what `recall` and `send` raise."""
        if entries:
            self._waiting = [*self._waiting, tuple(entries)][-MOST_WAITING:]
        async with self._sending:  # people give orders while a pass notes what it did
            while self._waiting:
                batch = self._waiting[0]
                if self._standing is None:
                    _, self._standing = unsaid(reversed(await self._recall()), {})
                fresh, after = unsaid(batch, self._standing)
                if fresh:
                    await self._send(fresh)
                self._standing = after
                self._waiting = [one for one in self._waiting if one is not batch]
