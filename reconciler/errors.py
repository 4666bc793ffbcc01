"""The error tree: each trouble that stops a pass, with its remedy."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from reconciler.planning.memory import Holder, Remembered
from reconciler.planning.problems import Problem
from reconciler.planning.shown import at, plain


class Remedy(Enum):
    """Who can mend it, which decides what the loop does next."""

    COMMIT = "wait for a new commit"
    OPERATOR = "wait for a person"
    RETRY = "try again later"
    BUG = "report it"


class ReconcilerError(Exception):
    """Stops a pass. `hint` is the way out, shown below the message."""

    remedy = Remedy.BUG
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidDesiredState(ReconcilerError):
    """The repository does not say one clear thing; all problems at once."""

    remedy = Remedy.COMMIT

    def __init__(self, problems: Sequence[Problem]) -> None:
        count = len(problems)
        super().__init__(f"{count} problem{'s' if count != 1 else ''} in the desired state")
        self.problems = tuple(problems)


class SourceUnusable(ReconcilerError):
    """The source is empty, lost its branch or may not be read; nothing is ever removed because of it."""

    remedy = Remedy.COMMIT


class UnsafePlan(ReconcilerError):
    """The plan asks for more than the policy allows without a person's word."""

    remedy = Remedy.OPERATOR
    exit_code = 3


class StalePlan(ReconcilerError):
    """A saved plan no longer fits the source or the live state."""

    remedy = Remedy.OPERATOR
    exit_code = 3


class Unreachable(ReconcilerError):
    """An outside system did not answer."""

    remedy = Remedy.RETRY


class Spoiled(Unreachable):
    """What is remembered on Hypha was written by somebody else, or by a newer release: it is not known, not empty."""

    remedy = Remedy.OPERATOR


class Vanished(Spoiled):
    """What was remembered on Hypha is gone. `last` is what this process knew of it, for who has the right to write."""

    remedy = Remedy.RETRY

    def __init__(self, message: str, last: Remembered, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.last = last


class HeldElsewhere(ReconcilerError):
    """Another reconciler has the right to write. `holder` None: it had, and nobody has it now."""

    remedy = Remedy.OPERATOR
    exit_code = 75

    def __init__(self, holder: Holder | None, *, what: str = "another reconciler keeps this cluster") -> None:
        super().__init__(f"{what}: {in_words(holder)}")
        self.hint = "Wait until it is done, or stop it. If it is dead: reconcile lock --release"
        self.holder = holder


class KeptElsewhere(HeldElsewhere):
    """Another reconciler answers for this cluster, and we cannot read in its memory who has the right to write."""

    def __init__(self, cluster: str) -> None:
        ReconcilerError.__init__(
            self,
            f"another reconciler keeps {cluster} and answers for it; what it remembers cannot be read here",
            hint="To take turns with it, use its key: RECONCILE_KEY_FILE=FILE.",
        )
        self.holder = None


class LeaseLost(HeldElsewhere):
    """We had the right to write and lost it: somebody took it while we did not renew it."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__(holder, what="this reconciler may no longer write, for the lease went to")


def in_words(holder: Holder | None) -> str:
    """`anna@gn01 (process 4242 on gn01) since 2026-11-03 09:12 UTC`."""
    if holder is None:
        return "nobody; it was released"
    return f"{plain(holder.name, 80)} (process {holder.pid} on {plain(holder.host, 80)}) since {at(holder.since)}"


class HomeInUse(ReconcilerError):
    """Another process holds what we need alone."""

    remedy = Remedy.OPERATOR
    exit_code = 75
