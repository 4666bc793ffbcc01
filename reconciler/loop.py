"""When to run the next pass: at an interval with jitter, soon after something was done, at a moment that is known
beforehand (an app has rested, a window opens, a suspension ends), and later and later after trouble.

Law: one pass at a time, and nothing but a signal ends the loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from reconciler.errors import HeldElsewhere, InvalidDesiredState, ReconcilerError, Remedy
from reconciler.planning.backoff import wait_s
from reconciler.planning.steps import Reason
from reconciler.reconcile import Pass

log = logging.getLogger(__name__)

SOON_S = 3.0
GRACE_S = 7.0
"""Containers are killed 10 s after they were asked to end, and the lease is to be given back before."""
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to wait, as a value: what happened last decides. `moment_s` is until something known changes."""

    interval_s: float
    troubles: int = 0
    remedy: Remedy | None = None
    soon: bool = False
    moment_s: float | None = None

    def after(self, done: Pass, moment_s: float | None = None) -> Pace:
        interval_s = done.look.desired.cluster.policy.drift_interval_s
        if not done.look.live.complete:
            return Pace(interval_s, self.troubles + 1, Remedy.RETRY)
        moving = any(outcome not in done.failed for outcome in done.outcomes)
        moving = moving or any(held.reason is Reason.UPDATING for held in done.look.plan.held)
        return Pace(interval_s, soon=moving, moment_s=moment_s)

    def after_trouble(self, error: Exception) -> Pace:
        remedy = error.remedy if isinstance(error, ReconcilerError) else Remedy.BUG
        return replace(self, troubles=self.troubles + 1, remedy=remedy, soon=False, moment_s=None)

    def seconds(self) -> float:
        """Until the next look, without jitter. COMMIT and OPERATOR troubles go away by a push or a hand: the usual
        interval sees them; RETRY and BUG back off."""
        if self.soon:
            return min(SOON_S, self.interval_s)
        if self.remedy in (Remedy.RETRY, Remedy.BUG):
            return wait_s(self.troubles, SOON_S)
        return self.interval_s if self.moment_s is None else min(max(self.moment_s, 0.0), self.interval_s)


async def run(
    one_pass: Callable[[], Coroutine[Any, Any, Pass]],
    *,
    stop: asyncio.Event,
    wake: asyncio.Event,
    interval_s: float | None = None,
    grace_s: float = GRACE_S,
    woken: Callable[[], None] = lambda: None,
    moment: Callable[[Pass], float | None] = lambda _: None,
    waits: Callable[[float], None] = lambda _: None,
) -> None:
    """Passes until `stop` is set; `wake` brings the next one forward, and `woken` is told. A pass in flight then gets
    `grace_s` to finish before it is cut off, which it can stand anywhere. `moment`: seconds until something that is
    known to come; `waits` is told for how many seconds it rests. Raises HeldElsewhere: there is another one, and it
    goes on."""
    pace = Pace(interval_s or 30.0)
    while not stop.is_set():
        if wake.is_set():
            wake.clear()
            woken()
        try:
            done = await _unless(stop, one_pass(), grace_s)
            pace = pace.after(done, moment(done))
        except asyncio.CancelledError:
            if stop.is_set():
                return
            raise
        except HeldElsewhere:
            raise
        except ReconcilerError as error:
            pace = pace.after_trouble(error)
            log.warning("event=pass_stopped remedy=%r why=%s", pace.remedy and pace.remedy.value, _in_words(error))
        except Exception as error:  # one pass's boundary: a bug must not end what runs for years
            pace = pace.after_trouble(error)
            log.exception("event=pass_crashed")
        if interval_s is not None:
            pace = replace(pace, interval_s=interval_s)
        seconds = pace.seconds() * (1 + random.uniform(-JITTER, JITTER))
        log.debug("event=wait seconds=%.1f", seconds)
        waits(seconds)
        await _first(stop, wake, seconds)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, Pass], grace_s: float) -> Pass:
    passing = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({passing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not passing.done():
            await asyncio.wait({passing}, timeout=grace_s)
            passing.cancel()
        return await passing
    finally:
        stopping.cancel()
        passing.cancel()


async def _first(stop: asyncio.Event, wake: asyncio.Event, seconds: float) -> None:
    waiting = {asyncio.ensure_future(stop.wait()), asyncio.ensure_future(wake.wait())}
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


def _in_words(error: ReconcilerError) -> str:
    problems = error.problems if isinstance(error, InvalidDesiredState) else ()
    return "; ".join([str(error), *(f"{problem.where}: {problem.message}" for problem in problems)])
