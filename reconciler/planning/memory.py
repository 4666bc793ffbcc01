"""What a reconciler remembers on Hypha: who may write, what people ordered, how long things took, what was done.

It is no state file: what is wanted stands in git, and what runs is asked. Lost, it costs the orders and the history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class OrderKind(StrEnum):
    """Closed: what a person may order besides what stands in git."""

    SUSPEND = "suspend"
    """Change nothing about an app."""
    PIN = "pin"
    """Run an app as the commit `revision` has it, while git still wants what it wanted then (`digest`)."""
    APPROVE = "approve"
    """What the plan of this id showed may be done."""


@dataclass(frozen=True, slots=True)
class Order:
    """One order. `subject` is an app id, or a plan id for an approval; `at` and `until` in seconds since the epoch."""

    kind: OrderKind
    subject: str
    by: str
    at: float
    reason: str = ""
    until: float | None = None
    revision: str = ""
    """Of a pin: the commit to go back to. Else the commit that git was at when it was given."""
    digest: str = ""
    """Of a pin: digest of what git wanted of the app when it was given; from another one on, the pin is over."""
    once: bool = False
    """Of a suspension: let the next commit through once."""
    by_id: str = ""
    """The user id of who gave it, for whom `by` is an e-mail address."""
    shown: tuple[str, ...] = ()
    """Of an approval: a mark of each change that was shown; only those are approved."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who may write. `epoch` grows with every new holder; a writer whose epoch is no longer this one is fenced off."""

    name: str
    host: str
    pid: int
    epoch: int
    since: float
    renewed: float


@dataclass(frozen=True, slots=True)
class Remembered:
    """All of it but the history. `seconds`: app id → how long its latest deployments took, newest last. `commit`: the
    one that is to be in the history of those that follow, or it was rewritten; "" when there was none yet."""

    holder: Holder | None = None
    orders: tuple[Order, ...] = ()
    seconds: Mapping[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    commit: str = ""


NOTHING = Remembered()


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the history: who did what, when (seconds since the epoch), with which result."""

    at: float
    by: str
    what: str
    result: str
    app_id: str = ""
    revision: str = ""
    run: str = ""
    """Id of the pass that did it."""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
