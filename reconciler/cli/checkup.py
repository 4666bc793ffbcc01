"""What `reconcile doctor` says, as values: one check, what it saw, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Closed. Only FAIL makes the exit code 1; NOT_NEEDED was not looked at."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    NOT_NEEDED = "not needed"


@dataclass(frozen=True, slots=True)
class Check:
    """One of them. `fix` says what to do, for WARN and FAIL."""

    name: str
    level: Level
    saw: str
    fix: str = ""


def ok(name: str, saw: str) -> Check:
    return Check(name, Level.OK, saw)


def warn(name: str, saw: str, fix: str) -> Check:
    return Check(name, Level.WARN, saw, fix)


def fail(name: str, saw: str, fix: str) -> Check:
    return Check(name, Level.FAIL, saw, fix)


def not_needed(name: str, why: str) -> Check:
    return Check(name, Level.NOT_NEEDED, why)


def failed(checks: Iterable[Check]) -> tuple[Check, ...]:
    return tuple(check for check in checks if check.level is Level.FAIL)
