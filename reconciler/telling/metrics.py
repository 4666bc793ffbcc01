"""Numbers for Prometheus, in a registry of our own.

Law: only app gauges carry an app's id, and they are of the newest report: an app that is gone is gone here, too. Every
other label is from a closed list, so nothing that people write makes the number of series grow.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reconciler.apply import Ended, Event, Started
from reconciler.errors import HeldElsewhere, ReconcilerError, Remedy
from reconciler.planning.plan_file import KINDS
from reconciler.planning.source import SourceTree
from reconciler.planning.steps import Result
from reconciler.ports import Source, World
from reconciler.reconcile import Pass
from reconciler.serving import serving

STUCK_AFTER_S = 3600.0
"""Seconds; six times the longest back-off. A loop that ended no pass so long after one was due will not."""
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """What happened since the start, and how things stood at the end of the last pass."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._last_end = clock()
        self._newest = _Newest()
        mine = self.registry
        self._passes = Counter("reconcile_passes", "Passes that ended, by how.", ["result"], registry=mine)
        self._stops = Counter(
            "reconcile_stops", "Passes that a trouble stopped, by who can mend it.", ["remedy"], registry=mine
        )
        self._seconds = Histogram(
            "reconcile_pass_seconds",
            "How long a part of a pass took: fetch, look (up to the first step), apply.",
            ["phase"],
            buckets=_SECONDS,
            registry=mine,
        )
        self._steps = Counter("reconcile_steps", "Steps, by what became of them.", ["kind", "result"], registry=mine)
        self._step_seconds = Histogram(
            "reconcile_step_seconds", "How long a step took.", ["kind"], buckets=_SECONDS, registry=mine
        )
        self._last_success = Gauge(
            "reconcile_last_success_timestamp_seconds", "When a pass last saw all and failed at nothing.", registry=mine
        )
        self._last_pass = Gauge(
            "reconcile_last_pass_timestamp_seconds", "When a pass last ended, however.", registry=mine
        )
        self._next_pass = Gauge("reconcile_next_pass_timestamp_seconds", "When the next pass is due.", registry=mine)
        self._lease = Gauge("reconcile_lease_held", "1 while this reconciler has the right to write.", registry=mine)
        self._deliveries = Counter("reconcile_webhook_deliveries", "Webhooks that came in.", ["code"], registry=mine)
        self._notified = Counter(
            "reconcile_notifications", "Notifications on their way out.", ["to", "result"], registry=mine
        )
        self._set_due(self._last_end)
        build = Gauge("reconcile_build_info", "1, with our version.", ["version"], registry=mine)
        build.labels(version("bioengine-gitops")).set(1)
        for remedy in Remedy:
            self._stops.labels(_word(remedy))
        for kind in KINDS.values():
            for result in Result:
                self._steps.labels(kind, result.value)
        self.registry.register(self._newest)
        ProcessCollector(registry=self.registry)

    def after(self, done: Pass) -> None:
        """A pass went to its end."""
        complete = bool(done.report["complete"])
        failed = any(outcome.result is Result.FAILED for outcome in done.outcomes)
        result = "failed" if failed else "done" if complete else "incomplete"
        self._passes.labels(result).inc()
        kinds = {step.address: KINDS[type(step.verb)] for step in done.look.plan.steps}
        for outcome in done.outcomes:
            self._steps.labels(kinds[outcome.address], outcome.result.value).inc()
            if outcome.result in (Result.DONE, Result.FAILED):
                self._step_seconds.labels(kinds[outcome.address]).observe(outcome.seconds)
        self._newest.show(done)
        self._lease.set(done.look.live.remembered is not None)  # without what is remembered nobody may write
        self._ended()
        if result == "done":
            self._last_success.set(self._clock())

    def trouble(self, error: Exception) -> None:
        """A pass was stopped: what was shown before is no longer known to be so."""
        self._passes.labels("stopped").inc()
        self._stops.labels(_word(error.remedy if isinstance(error, ReconcilerError) else Remedy.BUG)).inc()
        self._newest.stale()
        if isinstance(error, HeldElsewhere):
            self._lease.set(0)
        self._ended()

    def delivery(self, code: int) -> None:
        """A webhook was answered with this status code."""
        self._deliveries.labels(str(code)).inc()

    def notified(self, to: str, ok: bool) -> None:
        """A notification arrived, or was given up. `to` is `webhook` or the kind of forge."""
        self._notified.labels(to, "sent" if ok else "failed").inc()

    def waits(self, seconds: float) -> None:
        """The next pass is to begin then."""
        self._set_due(self._clock() + seconds)

    @contextmanager
    def passing(self) -> Generator[Watch, None, None]:
        """Around one pass, which is to use what is yielded; counts how it ended."""
        self._set_due(self._clock())
        watch = Watch(self._seconds)
        try:
            yield watch
        except Exception as error:
            self.trouble(error)
            raise
        finally:
            watch.end()

    @property
    def idle_s(self) -> float:
        """Seconds since a pass last ended."""
        return self._clock() - self._last_end

    @property
    def alive(self) -> bool:
        """Whether the loop still turns: with long intervals it rests for hours, and that is no sign of death."""
        return self._clock() - max(self._due, self._last_end) < STUCK_AFTER_S

    def _set_due(self, due: float) -> None:
        self._due = due
        self._next_pass.set(due)

    def _ended(self) -> None:
        self._last_end = self._clock()
        self._last_pass.set(self._last_end)


class Watch:
    """Times the parts of one pass: from its start to the source's answer, to the first step, to its end."""

    def __init__(self, seconds: Histogram) -> None:
        self._seconds = seconds
        self._phase = "fetch"
        self._since = time.perf_counter()

    def on(self, world: World) -> World:
        """The same world, whose source tells us when it has answered."""
        return replace(world, source=_Noted(world.source, self._fetched))

    def __call__(self, event: Event) -> None:
        """Told of the steps (apply.Tell)."""
        if self._phase == "look" and isinstance(event, Started | Ended):
            self._go_on("apply")

    def end(self) -> None:
        self._go_on("")

    def _fetched(self) -> None:
        if self._phase == "fetch":  # it may be asked again during a pass
            self._go_on("look")

    def _go_on(self, phase: str) -> None:
        now = time.perf_counter()
        self._seconds.labels(self._phase).observe(now - self._since)
        self._phase, self._since = phase, now


@dataclass(frozen=True, slots=True)
class _Noted:
    """A source that says when it was asked."""

    source: Source
    fetched: Callable[[], None]

    async def fetch(self) -> SourceTree:
        tree = await self.source.fetch()
        self.fetched()
        return tree


class _Newest(Collector):
    """Gauges of the newest report, made when somebody asks."""

    def __init__(self) -> None:
        self._report: Mapping[str, Any] = {"apps": (), "complete": False}
        self._held: Mapping[str, int] = {}
        self._source: tuple[str, str, str] | None = None

    def show(self, done: Pass) -> None:
        revision = done.look.plan.revision
        self._report = done.report
        self._held = Tally(held.reason.value for held in done.look.plan.held)
        self._source = (done.look.plan.cluster, revision.ref, revision.id)

    def stale(self) -> None:
        self._report = {**self._report, "complete": False}

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Every family, also an empty one: so a dashboard finds what it names from the start."""
        apps: Iterable[Mapping[str, Any]] = self._report["apps"]
        drifted = [app["class"] for app in apps if app["class"]]
        drifted += [orphan["class"] for orphan in self._report.get("orphans", ())]
        states = {(one["type"], one["status"]): 1 for one in self._report.get("conditions", ())}
        yield _family("apps", "Apps, by how they stand.", ["sync", "health"], Tally(_state(app) for app in apps))
        yield _family(
            "app_info",
            "1 for each app, with how it stands and why.",
            ["app", "sync", "health", "reason"],
            {(app["id"], *_state(app), app["reason"]): 1 for app in apps},
        )
        yield _family("drift", "Apps that differ without a commit.", ["class"], _keyed(Tally(drifted)))
        yield _family("held", "Differences that are not acted on.", ["reason"], _keyed(self._held))
        yield _family("condition", "1 for the status that each condition has.", ["type", "status"], states)
        source = {self._source: 1} if self._source else {}
        yield _family("source_info", "1, with what is followed.", ["cluster", "ref", "commit"], source)
        yield _family("source_away", "1 while the repository cannot be read.", [], {(): int(self._away)})
        yield _family("report_complete", "1 when everything was seen.", [], {(): int(bool(self._report["complete"]))})

    @property
    def _away(self) -> bool:
        return bool(self._report.get("source_away"))


@asynccontextmanager
async def scraped(metrics: Metrics, host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[int, None]:
    """Answers /metrics and /healthz; yields the port (0 asks for any). Raises CannotListen."""

    async def show(request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), headers={"Content-Type": kind, "Cache-Control": "no-store"})

    async def health(_: Request) -> Response:
        """Whether the loop still turns; not whether all is well, which restarting us would not mend."""
        alive = metrics.alive
        return JSONResponse({"alive": alive, "idle_s": round(metrics.idle_s, 1)}, 200 if alive else 503)

    application = Starlette(routes=[Route("/metrics", show), Route("/healthz", health)])
    async with serving(application, host, port, option="--metrics") as bound:
        yield bound


def _family(
    name: str, about: str, labels: list[str], values: Mapping[tuple[str, ...], int] | Mapping[tuple[()], int]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"reconcile_{name}", about, labels=labels)
    for key, number in sorted(values.items()):
        family.add_metric(list(key), number)
    return family


def _state(app: Mapping[str, Any]) -> tuple[str, str]:
    return app["sync"], app["health"]


def _keyed(counts: Mapping[str, int]) -> Mapping[tuple[str, ...], int]:
    return {(name,): number for name, number in counts.items()}


def _word(remedy: Remedy) -> str:
    return remedy.name.lower()
