"""`-o jsonl`: what an apply does, one JSON object per line, as it happens. For programs that follow it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from reconciler.apply import Ended, Event, Progressed, Started
from reconciler.cli.show import Screen
from reconciler.planning.plan_file import KINDS
from reconciler.planning.steps import Outcome, Plan, Result, Step
from reconciler.settle import Settled

FORMAT_VERSION = "1.0"
"""Fields and events are only added while the first number stays."""

_ENDED = {
    Result.DONE: "step_done",
    Result.FAILED: "step_failed",
    Result.SKIPPED: "step_skipped",
    Result.WAITING: "step_waiting",
}


class JsonLines:
    """Tells of one apply. Each line has `format_version`, `time` (ISO 8601, UTC) and `event`: plan_started,
    step_started, step_progress, step_done, step_failed, step_skipped, step_waiting (a later pass asks again),
    rolled_back, app_settled, summary."""

    def __init__(self, screen: Screen, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._screen = screen
        self._now = now
        self._told: dict[str, str] = {}

    def begin(self, plan: Plan) -> None:
        """First of all: what is about to be done."""
        held = [{"app_id": held.app_id, "reason": held.reason.value} for held in plan.held]
        self._say(
            "plan_started",
            plan_id=plan.id,
            cluster=plan.cluster,
            revision=plan.revision.short,
            commit=plan.revision.id,
            steps=[_named(step) for step in plan.steps],
            held=held,
        )

    def __call__(self, event: Event) -> None:
        """One event of apply (apply.Tell)."""
        step = _named(event.step)
        match event:
            case Started():
                self._say("step_started", **step, why=event.step.why)
            case Progressed(text=text):
                if self._told.get(event.step.address) != text:
                    self._told[event.step.address] = text
                    self._say("step_progress", **step, message=text)
            case Ended(outcome=outcome):
                facts = {"message": outcome.message, "seconds": outcome.seconds}
                self._say(_ENDED[outcome.result], **step, **facts)

    def settled(self, apps: Iterable[Settled]) -> None:
        """How the apps ended up that were waited for. One that went back to its last good version is told as such."""
        for app in apps:
            if app.rolled_back:
                self._say("rolled_back", app_id=app.app_id, serves=app.serves, why=app.why)
            self._say("app_settled", app_id=app.app_id, verdict=app.verdict.value, serves=app.serves, why=app.why)

    def summary(self, outcomes: Sequence[Outcome], *, complete: bool, exit_code: int) -> None:
        """Last of all. `complete`: everything was seen, and every declaration could be read."""
        counts = {result.value: sum(outcome.result is result for outcome in outcomes) for result in Result}
        self._say("summary", **counts, complete=complete, exit_code=exit_code)

    def _say(self, event: str, **facts: Any) -> None:
        time = self._now().isoformat(timespec="milliseconds")
        self._screen.line({"format_version": FORMAT_VERSION, "time": time, "event": event, **facts})


def _named(step: Step) -> Mapping[str, Any]:
    return {"address": step.address, "kind": KINDS[type(step.verb)], "app_id": step.app_id, "drift": step.drift}
