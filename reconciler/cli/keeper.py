"""What lasts from one pass to the next, and the passes themselves, with all that wakes them and all who are told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from reconciler import loop
from reconciler.cli.place import git_dir_of
from reconciler.orders import Orders
from reconciler.planning import backoff
from reconciler.planning.memory import Entry
from reconciler.planning.moments import next_moment
from reconciler.planning.steps import Outcome, PlanOptions, Rest
from reconciler.ports import World
from reconciler.reconcile import Look, Pass, reconcile, tell_trouble
from reconciler.steady import SteadySource
from reconciler.telling import runs
from reconciler.telling.metrics import Metrics
from reconciler.telling.notify import Notifier
from reconciler.triggers.commits import wake_on_commits

log = logging.getLogger(__name__)

FIRST_INTERVAL_S = 60.0
"""Between two fetches, until cluster.yaml has been read."""


@dataclass
class Keeper:
    """What lasts from one pass to the next: the source's clock, who rests, who is to be tried again, the last look."""

    world: World
    wake: asyncio.Event
    interval_s: float | None = None
    metrics: Metrics = field(default_factory=Metrics)
    notifier: Notifier = field(default_factory=Notifier)
    latest: Look | None = None
    _resting: dict[str, Rest] = field(default_factory=dict[str, Rest])
    _again: set[str] = field(default_factory=set[str])
    _woken: bool = False
    _told: str = ""
    _strangers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._source = SteadySource(self.world.source, self.interval_s or FIRST_INTERVAL_S)
        self.world = replace(self.world, source=self._source)

    @property
    def orders(self) -> Orders:
        """Where people's orders go."""
        return Orders(self.world, lambda: self.latest, self.wake.set, self._again.add)

    async def history(self, limit: int, app_id: str) -> Sequence[Entry]:
        """As far as it is kept."""
        memory = self.latest.hypha.memory if self.latest else None
        return await memory.history(limit, app_id) if memory else ()

    async def keep(self, stop: asyncio.Event) -> None:
        """Passes until `stop`. Raises HeldElsewhere."""
        watching = asyncio.create_task(self._wake_on_local_commits(stop))
        try:
            await loop.run(
                self.one_pass,
                stop=stop,
                wake=self.wake,
                interval_s=self.interval_s,
                woken=self._source.again,
                moment=self._moment,
                waits=self.metrics.waits,
            )
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def one_pass(self) -> Pass:
        """The next one. Raises what stopped it, when all who are to know have been told."""
        with runs.run(), self.metrics.passing() as watch:
            try:
                options = PlanOptions(resting=self._resting, again=frozenset(self._again))
                done = await reconcile(watch.on(self.world), options, tell=watch, woken=self._news)
            except Exception as error:
                self.notifier.trouble(error)
                await tell_trouble(self.world, error)
                raise
            finally:
                if self._woken:
                    self._woken = False
                    self.wake.set()
            self._remember(done, options)
            self.metrics.after(done)
            self.notifier.after(done)
            self._log(done)
        return done

    def _news(self) -> bool:
        """Whether somebody pushed since this was asked last, as far as we heard. The repository is asked once for each
        wake-up and not before every further step, which may wait for one that is away; the next pass comes at once."""
        if not self.wake.is_set():
            return False
        self.wake.clear()
        self._woken = True
        self._source.again()
        return True

    def _remember(self, done: Pass, options: PlanOptions) -> None:
        self.latest = done.look
        self._source.interval_s = self.interval_s or done.look.desired.cluster.policy.interval_s
        before = {app_id: rest for app_id, rest in self._resting.items() if app_id not in options.again}
        self._resting = dict(backoff.after(before, done.look.plan, done.outcomes, time.time()))
        self._again -= options.again - backoff.untried(done.look.plan, done.outcomes)

    def _moment(self, done: Pass) -> float | None:
        seen = done.look
        moment = next_moment(seen.desired, seen.live, seen.plan, self._resting)
        known = [self._source.due_in_s] if moment is None else [self._source.due_in_s, moment]
        return min(known)

    def _log(self, done: Pass) -> None:
        """Of each pass that did something or saw something new."""
        for outcome in done.outcomes:
            log.log(logging.ERROR if outcome in done.failed else logging.INFO, "%s", _logged(outcome))
        if (strangers := done.look.desired.strangers) != self._strangers:
            log.warning("event=no_right said_in=cluster.yaml of=%r", ", ".join(strangers))
            self._strangers = strangers
        now = f"event=pass revision={done.look.plan.revision.short} {_counts(done)}"
        log.log(logging.DEBUG if now == self._told else logging.INFO, "%s", now)
        self._told = now

    async def _wake_on_local_commits(self, stop: asyncio.Event) -> None:
        git_dir = git_dir_of(await self._source.first())
        if git_dir:
            await wake_on_commits(git_dir, self.wake, stop)


def _logged(outcome: Outcome) -> str:
    facts = f"event=step address={outcome.address!r} result={outcome.result.value} seconds={outcome.seconds}"
    return f"{facts} {outcome.message}".rstrip()


def _counts(done: Pass) -> str:
    planned = done.look.plan
    complete = "yes" if not planned.unseen else "no"
    return f"steps={len(planned.steps)} held={len(planned.held)} unchanged={len(planned.unchanged)} complete={complete}"
