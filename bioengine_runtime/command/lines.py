"""The lines that an app's replicas wrote, in every shape that workers tell them, and which of them are new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STREAMS = ("stdout", "stderr", "error")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who wrote a line, and where to."""

    deployment: str
    replica: str
    stream: str

    def __str__(self) -> str:
        return f"{self.deployment}#{self.replica}" if self.replica else self.deployment


Lines = Mapping[Origin, Sequence[str]]


def lines_of(status: Mapping[str, Any]) -> dict[Origin, list[str]]:
    """Every line in one app's status by who wrote it."""
    found: dict[Origin, list[str]] = {}
    for deployment, told in (status.get("deployments") or {}).items():
        for replica, stream, lines in _streams(told.get("logs")):
            found[Origin(deployment, replica, stream)] = lines
    return found


def _streams(logs: Any) -> Iterator[tuple[str, str, list[str]]]:
    """Replica, stream and lines of `{replica: {stdout: […], stderr: […]}}`, `{error: text}`, a list, or a text."""
    if isinstance(logs, str | list):
        yield "", "", _lines(logs)
    elif isinstance(logs, Mapping):
        for replica, told in logs.items():
            if replica in STREAMS:
                yield "", replica, _lines(told)
            elif isinstance(told, Mapping):
                yield from ((replica, stream, _lines(told[stream])) for stream in STREAMS if told.get(stream))
            else:
                yield replica, "", _lines(told)


def _lines(told: Any) -> list[str]:
    return told.splitlines() if isinstance(told, str) else [str(line).rstrip("\n") for line in told or ()]


class Follower:
    """Remembers what was seen, so that each line is told once."""

    def __init__(self) -> None:
        self._seen: dict[Origin, list[str]] = {}

    def fresh(self, found: Lines) -> dict[Origin, list[str]]:
        """The lines that were not there before. Always ask the worker for the same number of lines."""
        new = {origin: new_lines(self._seen.get(origin, ()), lines) for origin, lines in found.items()}
        self._seen |= {origin: list(lines) for origin, lines in found.items()}
        return {origin: lines for origin, lines in new.items() if lines}


def new_lines(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """What `now` has after the end of `before`; both are the last lines of one growing file."""
    # The last line may have been read half-written: then it is told again, whole.
    for known in (before, before[:-1]):
        for overlap in range(min(len(known), len(now)), 0, -1):
            if list(known[len(known) - overlap :]) == list(now[:overlap]):
                return list(now[overlap:])
    return list(now)
