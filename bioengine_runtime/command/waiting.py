"""Waiting for apps: are they up, on their way, or is there nothing to wait for any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from bioengine_runtime.command.connect import Service
from bioengine_runtime.command.place import Place
from bioengine_runtime.command.show import clean, marked
from bioengine_runtime.command.trouble import Trouble

LOOK_EVERY_S = 1.0
NO_LOGS = 0
"""`logs_tail` for those who do not read the logs."""

POINT = 3
"""Lines at the end of a traceback: where, the code, the error."""

Status = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Up:
    """It serves its callers."""


@dataclass(frozen=True, slots=True)
class Coming:
    """Not yet."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It will not come up by waiting."""

    why: str


Judgement = Up | Coming | Failed


def judged(status: Status, before: Status | None = None, version: str | None = None) -> Judgement:
    """One look at one app. `before` is its status before a deploy, `version` the one that was asked for."""
    word = status.get("status")
    rejected = status.get("rejected_version")
    if rejected and rejected != (before or {}).get("rejected_version") and word not in ("DEPLOYING", "UPDATING"):
        fate = "It did not come up" if word == "DEPLOY_FAILED" else "The new version was rejected, the old one serves"
        lines = "\n".join(str(line) for line in rejected.get("log_lines") or ())
        return Failed("\n".join(filter(None, (f"{fate}: {rejected.get('reason')}", the_point(lines)))))
    if word == "DEPLOY_FAILED":
        return Failed(the_point(str(status.get("message") or "The deployment failed.")))
    if word == "NOT_RUNNING":
        return Failed(str(status.get("message") or "It is not running."))
    healthy = all(one.get("status") == "HEALTHY" for one in (status.get("deployments") or {}).values())
    if word == "RUNNING" and healthy and service_id(status):
        running = status.get("version")
        if version is not None and running not in (version, "latest", None):
            return Failed(f"It runs {running}, not {version}.")
        return Up()
    return Coming()


def the_point(text: str) -> str:
    """The text; of a traceback only its end, which names the author's line and the error."""
    lines = text.rstrip().splitlines()
    return "\n".join(lines[-POINT:]) if len(lines) > POINT and "Traceback" in text else text.rstrip()


def service_id(status: Status) -> str | None:
    """The full id under which the app is called by WebSocket."""
    told = status.get("service_ids") or []
    all_of_them = [told] if isinstance(told, Mapping) else told
    return next((one["websocket_service_id"] for one in all_of_them if one.get("websocket_service_id")), None)


def progress(status: Status) -> str:
    """`Demo UPDATING (1 STARTING, 1 RUNNING)`, for each deployment that is not just well."""
    parts = [_deployment(name, one) for name, one in (status.get("deployments") or {}).items()]
    return ", ".join(part for part in parts if part)


def _deployment(name: str, told: Status) -> str:
    replicas = ", ".join(f"{count} {state}" for state, count in (told.get("replica_states") or {}).items())
    return clean(f"{name} {told.get('status')}{f' ({replicas})' if replicas else ''}")


async def wait_until_up(
    place: Place,
    worker: Service,
    app_ids: Iterable[str],
    timeout_s: float,
    *,
    before: Status | None = None,
    version: str | None = None,
) -> None:
    """Look until every app is up, showing how it goes. Raises Trouble when one fails, or when time is over."""
    wanted = list(app_ids)

    def done(statuses: Mapping[str, Status]) -> bool:
        judgements = {app_id: judged(statuses[app_id], before, version) for app_id in wanted}
        for app_id, judgement in judgements.items():
            if isinstance(judgement, Failed):
                logs = place.command("apps", "logs", app_id, "--previous", "1")
                raise Trouble(f"{app_id} is not up. {judgement.why}", f"Its lines: {logs}")
        return all(isinstance(judgement, Up) for judgement in judgements.values())

    logs = place.command("apps", "logs", *wanted[:1], "--follow")
    await _look_until(place, worker, wanted, timeout_s, done, f"Look on: {logs}")


async def wait_until_gone(place: Place, worker: Service, app_id: str, timeout_s: float) -> None:
    """Look until the app is not there any more. Raises Trouble when time is over."""

    def done(statuses: Mapping[str, Status]) -> bool:
        return statuses[app_id].get("status") == "NOT_RUNNING"

    await _look_until(place, worker, [app_id], timeout_s, done, "It may still go; look again.")


async def statuses_of(
    worker: Service, app_ids: list[str] | None, logs_tail: int, previous: int = 0
) -> dict[str, Status]:
    """Status by app id, also of workers that answer for a single app without its id."""
    answer = await worker.ask(
        "get_app_status", application_ids=app_ids, logs_tail=logs_tail, n_previous_replica=previous
    )
    return {app_id: answer.get(app_id, answer) for app_id in app_ids} if app_ids else answer


async def _look_until(
    place: Place,
    worker: Service,
    app_ids: list[str],
    timeout_s: float,
    done: Callable[[Mapping[str, Status]], bool],
    hint: str,
) -> None:
    began = time.monotonic()
    with _Progress(place, began) as shown:
        while True:
            statuses = await statuses_of(worker, app_ids, NO_LOGS)
            shown.update(statuses)
            if done(statuses):
                return
            if time.monotonic() - began > timeout_s:
                now = "; ".join(f"{app_id} is {status.get('status')}" for app_id, status in statuses.items())
                raise Trouble(f"Not in {timeout_s:g} s: {now}.", hint)
            await asyncio.sleep(LOOK_EVERY_S)


class _Progress:
    """How it goes: a table that redraws itself on a terminal, a line per change elsewhere."""

    def __init__(self, place: Place, began: float) -> None:
        self._screen = place.screen
        self._began = began
        self._statuses: Mapping[str, Status] = {}
        self._said: dict[str, str] = {}
        self._live = Live(get_renderable=self._table, console=self._screen.err, refresh_per_second=4, transient=True)

    def __enter__(self) -> _Progress:
        if self._screen.err.is_terminal and not self._screen.quiet:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live.is_started:
            self._live.stop()

    def update(self, statuses: Mapping[str, Status]) -> None:
        self._statuses = statuses
        if self._live.is_started:
            return
        for app_id, status in statuses.items():
            line = " ".join(part for part in (str(status.get("status")), progress(status)) if part)
            if line != self._said.get(app_id):
                self._screen.note(f"{app_id}: {line}, {time.monotonic() - self._began:.0f} s")
            self._said[app_id] = line

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        seconds = f"{time.monotonic() - self._began:.0f} s"
        for app_id, status in self._statuses.items():
            table.add_row(Text(clean(app_id)), marked(str(status.get("status"))), Text(seconds), Text(progress(status)))
        return table
