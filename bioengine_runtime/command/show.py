"""What people see: answers on stdout, everything else on stderr. Colour never carries the meaning alone."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

UNFOLDED = 1000  # columns
HIDDEN = "*****"

MARKS = {
    "RUNNING": ("●", "green"),
    "HEALTHY": ("●", "green"),
    "DEPLOYING": ("◌", "cyan"),
    "UPDATING": ("◌", "cyan"),
    "UPSCALING": ("◌", "cyan"),
    "DOWNSCALING": ("◌", "cyan"),
    "NOT_STARTED": ("◌", "cyan"),
    "DELETING": ("◌", "yellow"),
    "UNHEALTHY": ("✗", "red"),
    "DEPLOY_FAILED": ("✗", "red"),
    "NOT_RUNNING": ("-", "yellow"),
}

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")


class Screen:
    """The two consoles of one run. `quiet` says nothing but answers and errors, for programs."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.out = Console(highlight=False, soft_wrap=True)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)
        self.quiet = quiet
        self._secrets: set[str] = set()

    @property
    def is_attended(self) -> bool:
        """Somebody is at the terminal who can answer."""
        return sys.stdin.isatty() and self.err.is_terminal

    def hide(self, *secrets: str | None) -> None:
        """From now on, these are not shown in notes and errors, whoever repeats them."""
        self._secrets.update(secret for secret in secrets if secret)

    def result(self, content: Text | Table | str) -> None:
        """The answer. A long line is easier to read, grep and copy than one that is folded."""
        width, self.out.width = self.out.width, UNFOLDED if isinstance(content, Table) else self.out.width
        try:
            self.out.print(Text(content) if isinstance(content, str) else content)
        finally:
            self.out.width = width

    def document(self, content: Any) -> None:
        """The answer as JSON."""
        self.out.file.write(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")
        self.out.file.flush()

    def note(self, content: str, style: str = "") -> None:
        """What happens meanwhile."""
        if not self.quiet:
            self.err.print(Text(self._safe(content), style))

    def next(self, command: str) -> None:
        """What to type now."""
        self.err.print(Text.assemble(("Next:  ", "bold"), self._safe(command)))

    def error(self, message: str, hint: str = "") -> None:
        self.err.print(Text.assemble(("Error: ", "bold red"), self._safe(message)))
        if hint:
            self.err.print(Text.assemble(("Hint:  ", "bold"), self._safe(hint)))

    def _safe(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return "\n".join(clean(line) for line in text.splitlines())


def clean(line: str) -> str:
    """A line that others wrote, with nothing in it that could move a cursor or colour what follows."""
    return "".join(c if c.isprintable() or c == "\t" else "�" for c in _ANSI.sub("", line))


def marked(status: str) -> Text:
    """A status with its mark; the word alone says it, too."""
    mark, style = MARKS.get(status, ("?", ""))
    return Text.assemble((mark, style), " ", clean(status))


def table_of(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def cells(*values: Any) -> list[Text]:
    """Values for a row; what is not there, or not known to the worker ("NA"), is a dash."""
    return [_cell(value) for value in values]


def _cell(value: Any) -> Text:
    if isinstance(value, Text):
        return value
    return Text("-" if value in (None, "", "NA") else clean(" ".join(str(value).split())))
