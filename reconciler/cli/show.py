"""What people see: results on stdout, everything else on stderr. Colour never carries the meaning alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bioengine_runtime.contract.status import AppState
from reconciler.apply import Ended, Event, Progressed, Started
from reconciler.errors import InvalidDesiredState, ReconcilerError
from reconciler.planning.problems import Problem
from reconciler.planning.shown import plain
from reconciler.planning.steps import Outcome, Result

MARKS = {
    Result.DONE: ("✔", "green"),
    Result.FAILED: ("✗", "red"),
    Result.SKIPPED: ("-", "yellow"),
    Result.WAITING: ("◎", "cyan"),
}
UNFOLDED = 1000  # columns


class Screen:
    """The two consoles of one run. `masked` is the last defence for what goes out; `typed` tells the commands in an
    advice which place they are about."""

    def __init__(self, *, no_color: bool = False, masked: Callable[[str], str] = lambda text: text) -> None:
        # rich's own no_color would still write bold and dim
        colours = None if no_color or os.environ.get("NO_COLOR") else "auto"
        self.out = Console(color_system=colours, highlight=False, soft_wrap=True)
        self.err = Console(stderr=True, color_system=colours, highlight=False, soft_wrap=True)
        self.masked = masked
        self.typed: Callable[[str], str] = lambda text: text

    def show_unfolded(self, table: Table) -> None:
        """A long line is easier to read, grep and copy than one that is folded or cut to the terminal's width."""
        width, self.out.width = self.out.width, UNFOLDED
        try:
            self.out.print(table)
        finally:
            self.out.width = width

    def result(self, content: Text | str) -> None:
        """The answer to what was asked."""
        self.out.print(self._safe(content))

    def document(self, content: Any) -> None:
        """The answer as JSON, on plain stdout."""
        self.out.file.write(self.masked(json.dumps(content, indent=2, ensure_ascii=False)) + "\n")

    def line(self, content: Mapping[str, Any]) -> None:
        """One object of JSON on a line of its own, at once."""
        self.out.file.write(self.masked(json.dumps(content)) + "\n")
        self.out.file.flush()

    def markdown(self, content: str) -> None:
        self.out.file.write(self.masked(content) + "\n")

    def note(self, content: Text | str, style: str = "") -> None:
        """What happens meanwhile."""
        self.err.print(self._safe(content), style=style or None)

    def error(self, error: ReconcilerError) -> None:
        """What went wrong, and the way out."""
        if isinstance(error, InvalidDesiredState):
            self.problems(error.problems)
            return
        self.note(Text.assemble(("Error: ", "bold red"), plain(str(error))))
        if error.hint:
            self.note(Text.assemble(("fix: ", "bold"), plain(self.typed(error.hint))))

    def problems(self, problems: Sequence[Problem]) -> None:
        """Like a compiler: what, where, the line itself, and how to mend it. All of them."""
        for problem in problems:
            for line in diagnostic(problem):
                self.note(line)
        count = len(problems)
        self.note(f"{count} error{'s' if count != 1 else ''}")

    def progress(self, steps: int) -> StepProgress:
        return StepProgress(self, steps)

    def _safe(self, content: Text | str) -> Text:
        text = Text(content) if isinstance(content, str) else content
        masked = self.masked(text.plain)
        return text if masked == text.plain else Text(masked)


def diagnostic(problem: Problem) -> Iterable[Text]:
    yield Text.assemble(("Error: ", "bold red"), plain(problem.message))
    pointer = f"  {plain(problem.pointer)}" if problem.pointer else ""
    yield Text.assemble(("  --> ", "blue"), f"{plain(str(problem.where))}{pointer}")
    *lines, last = problem.excerpt.splitlines() or [""]
    for line in lines:
        yield Text.assemble("  ", plain_line(line))
    if lines:
        yield Text.assemble("  ", plain_line(last), " ", (plain(problem.fix), "yellow"))
    elif problem.fix:
        yield Text.assemble(("  fix: ", "bold"), plain(problem.fix))


def plain_line(text: str) -> str:
    """One line of a file with its indentation, and nothing in it that could move a cursor."""
    return "".join(character if character.isprintable() else "�" for character in text)


class StepProgress(AbstractContextManager["StepProgress"]):
    """Tells of steps as they go: a table that redraws itself on a terminal, plain lines elsewhere."""

    def __init__(self, screen: Screen, steps: int) -> None:
        self._screen = screen
        self._steps = steps
        self._begun = 0
        self._numbers: dict[str, int] = {}
        self._rows: dict[str, tuple[float, str, Outcome | None]] = {}
        self._live = Live(get_renderable=self._table, console=screen.err, refresh_per_second=4)

    def __enter__(self) -> StepProgress:
        if self._steps and self._screen.err.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        address = event.step.address
        match event:
            case Started():
                self._begun += 1
                self._numbers[address] = self._begun
                self._rows[address] = (time.monotonic(), "", None)
                line = f"{self._label(address)} started"
            case Progressed(text=text):
                begun, before, _ = self._rows[address]
                self._rows[address] = (begun, text, None)
                line = f"{self._label(address)} {plain(text)}" if text != before else ""
            case Ended(outcome=outcome):
                begun, _, _ = self._rows.get(address, (time.monotonic(), "", None))
                self._rows[address] = (begun, outcome.message, outcome)
                line = f"{self._label(address)} {said(outcome)}"
        if line and not self._live.is_started:
            self._screen.note(line)

    def _label(self, address: str) -> str:
        number = self._numbers.get(address)
        return f"[{number}/{self._steps}] {address}:" if number else f"[-/{self._steps}] {address}:"

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for address, (begun, text, outcome) in self._rows.items():
            mark, style = MARKS[outcome.result] if outcome else ("◎", "cyan")
            seconds = outcome.seconds if outcome else time.monotonic() - begun
            shown = plain(self._screen.masked(text), 100)
            table.add_row(self._label(address), Text(mark, style), f"{seconds:.1f} s", shown)
        return table


def said(outcome: Outcome) -> str:
    """`✔ 0.4 s`, `✗ 96.0 s: uv: no solution …`."""
    mark, _ = MARKS[outcome.result]
    seconds = f" {outcome.seconds:.1f} s" if outcome.result is not Result.SKIPPED else ""
    return f"{mark}{seconds}{f': {plain(outcome.message)}' if outcome.message else ''}"


def applied(outcomes: Sequence[Outcome]) -> str:
    """`Applied 4 of 6, 1 failed, 1 skipped.`"""
    counts = {result: sum(outcome.result is result for outcome in outcomes) for result in Result}
    parts = [f"Applied {counts[Result.DONE]} of {len(outcomes)} steps"]
    parts += [f"{number} {result.value}" for result, number in counts.items() if number and result is not Result.DONE]
    return ", ".join(parts) + "."


def apps_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    noted = any(row["note"] for row in rows)
    for column in ("APP", "SYNC", "HEALTH", "VERSION", "COMMIT", "REPLICAS", "SERVICE", *(["NOTE"] if noted else [])):
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(
            *(str(row[name] or "-") for name in ("id", "sync", "health", "version", "commit")),
            f"{row['replicas']['running']}/{row['replicas']['total']}" if row["replicas"] else "-",
            row["service_id"] or "-",
            *([Text(plain(row["note"]) or "-")] if noted else []),
        )
    return table


def app_row(report: Mapping[str, Any], app: AppState | None, note: str) -> dict[str, Any]:
    """One app of `get`, stable for programs. `note`: who wants it left as it is, or as it was, and why."""
    provenance = app.provenance if app else None
    replicas = app.replicas if app else []
    running = sum(replica.state == "RUNNING" for replica in replicas)
    return {
        "id": report["id"],
        "sync": report["sync"],
        "health": report["health"],
        "reason": report["reason"],
        "message": report["message"],
        "note": note,
        "version": app.spec.version if app and app.spec else None,
        "commit": provenance.commit[:7] if provenance else None,
        "owner": provenance.owner if provenance else None,
        "replicas": {"running": running, "total": len(replicas)} if app else None,
        "service_id": app.service_id if app else None,
        "static_site_url": app.static_site_url if app else None,
    }
