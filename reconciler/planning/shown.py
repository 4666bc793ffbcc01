"""Text from a repository made fit to show: no control characters, no hidden direction marks, bounded length.

Every text that a person reads goes through `plain` on its way out, so a commit message cannot drive a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

VALUE_LIMIT = 60
_LEAD = 18


def plain(text: str, limit: int = 0) -> str:
    """One printable line; what cannot be printed becomes �, line breaks and odd spaces become a space."""
    if not text.isprintable():
        text = "".join(_printable(character) for character in text)
    return text if not limit or len(text) <= limit else text[: limit - 1] + "…"


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else "�"


def value(content: Any) -> str:
    """A setting as JSON, the way it could stand in the file."""
    return _ENCODER.encode(content)


def _as_json(content: Any) -> Any:
    dump: Callable[[], Any] | None = getattr(content, "model_dump", None)
    return dump() if dump else str(content)


_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=_as_json)


def pair(before: str, after: str) -> tuple[str, str]:
    """Both texts, cut so that where they part stays in sight."""
    if len(before) <= VALUE_LIMIT and len(after) <= VALUE_LIMIT:
        return before, after
    parting = next((at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), None)
    start = max(0, (min(len(before), len(after)) if parting is None else parting) - _LEAD)
    return _window(before, start), _window(after, start)


def _window(text: str, start: int) -> str:
    if len(text) <= VALUE_LIMIT:
        return text
    start = min(start, len(text) - _LEAD)
    end = start + VALUE_LIMIT
    cut = ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")
    return f"{cut} ({count(len(text), 'character')})"


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 app`, `2 apps`, `1,000 apps`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(names: tuple[str, ...] | list[str], limit: int = 8) -> str:
    """`a, b and 3 more`."""
    if len(names) <= limit:
        return ", ".join(names)
    return ", ".join(names[: limit - 1]) + f" and {len(names) - limit + 1} more"


def at(seconds: float) -> str:
    """A moment for people, from seconds since the epoch: `2026-11-03 09:12 UTC`."""
    return moment(seconds).strftime("%Y-%m-%d %H:%M UTC")


def moment(seconds: float) -> datetime:
    """In UTC. What no calendar has (who wants `for ever` writes the year 9999, and may live west of Greenwich) is its
    first or its last moment."""
    return datetime.fromtimestamp(min(max(seconds, _FIRST_S), _LAST_S), UTC)


_FIRST_S = datetime(1, 1, 1, tzinfo=UTC).timestamp()
_LAST_S = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()


def duration(seconds: float) -> str:
    """For people: `7 s`, `4 min`, `1.5 h`."""
    for unit, factor in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * factor:
            return f"{seconds / factor:.2g} {unit}"
    return f"{seconds:.2g} s"


def size(number: int) -> str:
    """Bytes for people: `214 kB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number} B"
