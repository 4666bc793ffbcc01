"""`reconcile run`: passes until somebody says stop, all that wakes them, and all who are told; `up` uses its middle."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from reconciler import loop
from reconciler.board import Board
from reconciler.cli.outlets import Outlets
from reconciler.cli.place import Front, Place, alone, git_dir_of, opened
from reconciler.cli.show import Screen
from reconciler.errors import ReconcilerError, Remedy
from reconciler.orders import Orders
from reconciler.planning import backoff
from reconciler.planning.memory import Entry
from reconciler.planning.moments import next_moment
from reconciler.planning.steps import Outcome, PlanOptions, Rest, Result
from reconciler.ports import World
from reconciler.reconcile import Look, Pass, reconcile, tell_trouble
from reconciler.steady import SteadySource
from reconciler.telling import runs
from reconciler.telling.metrics import Metrics, serving
from reconciler.telling.notify import Notifier
from reconciler.triggers.commits import wake_on_commits
from reconciler.triggers.event import Followed
from reconciler.triggers.signature import NoWebhookSecret

log = logging.getLogger(__name__)

FIRST_INTERVAL_S = 60.0
"""Between two fetches, until cluster.yaml has been read."""


class BadAddress(ReconcilerError):
    """An address to listen at that is none."""

    remedy = Remedy.OPERATOR


@dataclass(frozen=True, slots=True)
class At:
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def read(cls, address: str, option: str) -> At:
        """From HOST:PORT. Raises BadAddress."""
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise BadAddress(f'"{address}" is no HOST:PORT', hint=f"Such as {option} 127.0.0.1:8780.")
        return cls(host.strip("[]"), int(port))


@dataclass(frozen=True, slots=True)
class Doors:
    """What a reconciler that keeps running listens at: each on an address of this machine, when it is asked for."""

    webhook: At | None = None
    webhook_secret_file: Path | None = None
    page: At | None = None
    metrics: At | None = None

    @classmethod
    def read(cls, webhook: str | None, secret_file: Path | None, page: str | None, metrics: str | None) -> Doors:
        """From the options of these names. Raises BadAddress or NoWebhookSecret."""
        if webhook and secret_file is None:
            raise NoWebhookSecret("--webhook needs a secret", hint="Give --webhook-secret-file FILE.")
        said = (("--webhook", webhook), ("--page", page), ("--metrics", metrics))
        hook, shown, counted = (At.read(address, option) if address else None for option, address in said)
        return cls(hook, secret_file, shown, counted)


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
            )
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def one_pass(self) -> Pass:
        """The next one. Raises what stopped it, when all who are to know have been told."""
        with runs.run(), self.metrics.passing() as watch:
            try:
                options = self._options()
                done = await reconcile(watch.on(self.world), options, tell=watch, woken=self._news)
            except Exception as error:
                self.notifier.trouble(error)
                if isinstance(error, ReconcilerError):
                    await tell_trouble(self.world, error)
                raise
            self._remember(done, options)
            self.metrics.after(done)
            self.notifier.after(done)
            self._log(done)
        return done

    def _options(self) -> PlanOptions:
        if not self._again:
            return PlanOptions(resting=self._resting)
        again, self._again = frozenset(self._again), set()
        self.wake.set()  # what else there is to do is for the pass after it
        return PlanOptions(again, force=True)

    def _news(self) -> bool:
        """Whether somebody pushed meanwhile, as far as we heard."""
        if self.wake.is_set():
            self._source.again()
        return self.wake.is_set()

    def _remember(self, done: Pass, options: PlanOptions) -> None:
        self.latest = done.look
        self._source.interval_s = self.interval_s or done.look.desired.cluster.policy.interval_s
        before = {app_id: rest for app_id, rest in self._resting.items() if app_id not in options.targets}
        self._resting = dict(backoff.after(before, done.look.plan, done.outcomes, time.time()))

    def _moment(self, done: Pass) -> float | None:
        seen = done.look
        moment = next_moment(seen.desired, seen.live, seen.plan, self._resting)
        known = [self._source.due_in_s] if moment is None else [self._source.due_in_s, moment]
        return min(known)

    def _log(self, done: Pass) -> None:
        """Of each pass that did something or saw something new."""
        for outcome in done.outcomes:
            log.log(logging.INFO if outcome.result is Result.DONE else logging.ERROR, "%s", _logged(outcome))
        if (strangers := done.look.desired.strangers) != self._strangers:
            log.warning("event=no_right said_in=cluster.yaml of=%r", ", ".join(strangers))
            self._strangers = strangers
        now = f"event=pass revision={done.look.plan.revision.short} {_counts(done)}"
        log.log(logging.DEBUG if now == self._told else logging.INFO, "%s", now)
        self._told = now

    async def _wake_on_local_commits(self, stop: asyncio.Event) -> None:
        try:
            git_dir = git_dir_of(await self.world.source.fetch())
        except ReconcilerError:
            return
        if git_dir:
            await wake_on_commits(git_dir, self.wake, stop)


async def run(place: Place, screen: Screen, *, interval_s: float | None, doors: Doors, outlets: Outlets) -> int:
    stop = asyncio.Event()
    on_signals(stop)
    front = Front(Board(lambda text: screen.masked(text)))
    metrics = Metrics()
    notifier = outlets.notifier(lambda text: screen.masked(text), metrics.notified)
    with alone(place.home):
        async with opened(place, writes=True, front=front) as world, notifier, AsyncExitStack() as ends:
            screen.masked = world.secrets.masked
            keeper = Keeper(world, asyncio.Event(), interval_s, metrics, notifier)
            await show(keeper, front, doors, place, screen, ends)
            await keeper.keep(stop)
    return 0


async def show(keeper: Keeper, front: Front, doors: Doors, place: Place, screen: Screen, ends: AsyncExitStack) -> None:
    """Open what is to be listened at, on this machine and on Hypha, until `ends`."""
    from reconciler.adapters.status.web import Web
    from reconciler.page.application import application, shown

    front.orders = keeper.orders
    front.web.append(Web("page", application(front.board, keeper.history, live=False)))
    if doors.webhook_secret_file:
        from reconciler.triggers import receiver as webhooks

        followed = Followed.of(place.repository, place.ref)
        receiver = webhooks.Receiver(followed, doors.webhook_secret_file, keeper.wake, keeper.metrics.delivery)
        front.web.append(Web("webhook", webhooks.application(receiver), public=True))
        if at := doors.webhook:
            port = await ends.enter_async_context(webhooks.listening(receiver, at.host, at.port))
            screen.note(f"Webhooks are heard on http://{at.host}:{port}{webhooks.PATH}")
    if at := doors.page:
        port = await ends.enter_async_context(shown(front.board, keeper.history, at.host, at.port))
        screen.note(f"Status page: http://{at.host}:{port}/")
    if at := doors.metrics:
        port = await ends.enter_async_context(serving(keeper.metrics, at.host, at.port))
        screen.note(f"Metrics: http://{at.host}:{port}/metrics")


def on_signals(stop: asyncio.Event) -> None:
    """SIGINT and SIGTERM ask for an end; a second one insists on it."""
    running = asyncio.get_running_loop()
    task = asyncio.current_task()

    def ask() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        running.add_signal_handler(number, ask)


def _logged(outcome: Outcome) -> str:
    facts = f"event=step address={outcome.address!r} result={outcome.result.value} seconds={outcome.seconds}"
    return f"{facts} {outcome.message}".rstrip()


def _counts(done: Pass) -> str:
    planned = done.look.plan
    complete = "yes" if not planned.unseen else "no"
    return f"steps={len(planned.steps)} held={len(planned.held)} unchanged={len(planned.unchanged)} complete={complete}"
