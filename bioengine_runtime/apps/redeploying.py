"""`auto_redeploy`: an app that was good and fails is sent again, a few times, ever more slowly. Pure but for Redeploys.

Law: between two tries lies at least the pause that the earlier ones ask for, and after LIMIT of them nothing is tried
until the app has been well for WELL_S or somebody deploys it. The tries are kept in Ray before they are made, so
neither a crash nor a restart of the worker makes more of them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Collection
from dataclasses import dataclass

from pydantic import BaseModel

from bioengine_runtime.apps import store
from bioengine_runtime.apps.judging import FAILING
from bioengine_runtime.apps.record import Running

LIMIT = 5
FIRST_PAUSE_S = 10.0
LONGEST_PAUSE_S = 300.0
SPREAD = 0.2
"""Pauses differ by so much, so that apps that failed together do not all start together."""
WELL_S = 300.0


class Tries(BaseModel):
    """How often the app was sent again since it was last well for long, and when last."""

    count: int = 0
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Again:
    """Send it now. `tries` is to be kept first."""

    tries: Tries


@dataclass(frozen=True, slots=True)
class Later:
    """Failing, and its next try is not due yet."""


@dataclass(frozen=True, slots=True)
class Enough:
    """Failing, and tried often enough."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """Well for long enough: its tries are forgotten."""


Decision = Again | Later | Enough | Recovered | None


def decide(
    running: Running,
    good: str | None,
    tries: Tries,
    since: float,
    now: float,
    spread: float = 0.0,
    first_pause_s: float = FIRST_PAUSE_S,
) -> Decision:
    """What to do about an app that is in its status `since`; None: nothing. `spread` in -1..1 varies the pause."""
    record = running.record
    if record is None or not record.spec.auto_redeploy or record.release() != good:
        return None
    if running.status == "RUNNING":
        return Recovered() if tries.count and now - since >= WELL_S else None
    if running.status not in FAILING:
        return None
    if tries.count >= LIMIT:
        return Enough()
    pause = min(first_pause_s * 2**tries.count, LONGEST_PAUSE_S) * (1 + SPREAD * spread)
    if now < max(since, tries.at) + pause:
        return Later()
    return Again(Tries(count=tries.count + 1, at=now))


def in_words(tries: Tries) -> str:
    """For the status of an app that fails."""
    if not tries.count:
        return ""
    what_next = "not again until it is deployed anew" if tries.count >= LIMIT else "once more soon"
    return f"deployed again {tries.count} of {LIMIT} times, {what_next}"


@dataclass(frozen=True, slots=True)
class _Since:
    """A status, since when this worker has seen it, and how its next pause differs."""

    status: str
    at: float
    spread: float


class Redeploys:
    """Remembers since when each app is in its status. A worker that starts anew counts from its first look."""

    def __init__(self, first_pause_s: float) -> None:
        self._first_pause_s = first_pause_s
        self._since: dict[str, _Since] = {}

    def forget_all_but(self, apps: Collection[str]) -> None:
        """What is gone from Serve is gone here."""
        self._since = {app_id: one for app_id, one in self._since.items() if app_id in apps}

    async def due(self, running: Running, good: str | None) -> Decision:
        """As `decide`, with what is known and kept."""
        if running.record is None or not running.record.spec.auto_redeploy:
            return None  # most apps, each of which would be a question to Ray in every round
        now = time.time()
        seen = self._since.get(running.app_id)
        if seen is None or seen.status != running.status:
            seen = self._since[running.app_id] = _Since(running.status, now, random.uniform(-1, 1))
        tries = await asyncio.to_thread(read_tries, running.app_id)
        return decide(running, good, tries, seen.at, now, seen.spread, self._first_pause_s)


def read_tries(app_id: str) -> Tries:
    kept = store.get(store.TRIES, app_id)
    return Tries.model_validate_json(kept) if kept else Tries()


async def keep(app_id: str, tries: Tries) -> None:
    await asyncio.to_thread(store.put, store.TRIES, app_id, tries.model_dump_json().encode())


async def forget(app_id: str) -> None:
    await asyncio.to_thread(store.delete, store.TRIES, app_id)
