"""An author's mistake as a value: what, where, why and how to mend it. Collected, and reported all at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A place in a file of the source. Lines and columns count from 1; 0 means the file as a whole."""

    path: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}" if self.line else self.path


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake. `app_id` is the app it concerns; None means the whole cluster.yaml is in doubt.

    `excerpt` is two lines, fit to be printed: the line of the file with its number, and carets below the mistake.
    """

    where: Location
    message: str
    fix: str = ""
    excerpt: str = ""
    pointer: str = ""
    app_id: str | None = None
