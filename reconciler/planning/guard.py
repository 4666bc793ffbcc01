"""Refuse a dangerous plan. Law: no more removals than the policy or a person's word allows, and none in the dark.

Removals are allowed together or held together: half of a mistake is still a mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from reconciler.planning.desired import DesiredState
from reconciler.planning.live import LiveState
from reconciler.planning.shown import count
from reconciler.planning.steps import PlanOptions, Reason


@dataclass(frozen=True, slots=True)
class Removals:
    """What a plan would remove: how many of how many apps (those we own, and those this plan adds)."""

    number: int
    owned: int
    desired: DesiredState
    live: LiveState
    options: PlanOptions

    @property
    def confirmed(self) -> bool:
        return self.options.prune_confirmed == self.number


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why none of the removals is done, and the way out."""

    reason: Reason
    message: str
    fix: str


def refuse(removals: Removals) -> Refusal | None:
    """The first rule that forbids them; None when they may be done."""
    return next((refusal for rule in RULES if (refusal := rule(removals))), None)


def _seen_in_part(removals: Removals) -> Refusal | None:
    if removals.live.complete:
        return None
    what = ", ".join(unseen.what for unseen in removals.live.unseen)
    return Refusal(Reason.LIVE_STATE_UNKNOWN, f"nothing is stopped while {what} could not be seen", "")


def _prune_is_off(removals: Removals) -> Refusal | None:
    if removals.desired.cluster.policy.prune:
        return None
    message = "cluster.yaml does not name it, and policy.prune is off"
    return Refusal(Reason.PRUNE_DISABLED, message, "set policy.prune: true, or name the app again")


def _confirmed_otherwise(removals: Removals) -> Refusal | None:
    said = removals.options.prune_confirmed
    if not said or removals.confirmed:
        return None
    message = f"{count(said, 'removal')} confirmed, and {count(removals.number, 'app')} would be stopped"
    return Refusal(Reason.PRUNE_BUDGET_EXCEEDED, message, _confirm(removals))


def _source_is_empty(removals: Removals) -> Refusal | None:
    if removals.confirmed or removals.desired.cluster.apps or removals.desired.apps or removals.desired.broken:
        return None
    return Refusal(
        Reason.SOURCE_EMPTY,
        f"cluster.yaml names no app at all, and {count(removals.number, 'app')} would be stopped",
        _confirm(removals),
    )


def _history_is_another(removals: Removals) -> Refusal | None:
    if removals.confirmed or not removals.desired.rewritten:
        return None
    message = (
        "the commit that was carried out last is not in this one's history (a forced push, a rebase, another branch), "
        "so nothing is stopped now"
    )
    return Refusal(Reason.HISTORY_REWRITTEN, message, _confirm(removals))


def _over_budget(removals: Removals) -> Refusal | None:
    policy = removals.desired.cluster.policy
    if removals.confirmed or removals.number <= policy.removals_allowed(removals.owned):
        return None
    share = 100 * removals.number / removals.owned
    return Refusal(
        Reason.PRUNE_BUDGET_EXCEEDED,
        f"{removals.number} of {count(removals.owned, 'app')} ({share:.3g} %) would be stopped; "
        f"policy.removal_budget is {policy.removal_budget}",
        _confirm(removals),
    )


def _confirm(removals: Removals) -> str:
    meant = replace(removals.options, prune_confirmed=removals.number)
    return f"if it is meant: reconcile apply{meant.typed}"


RULES: tuple[Callable[[Removals], Refusal | None], ...] = (
    _seen_in_part,
    _prune_is_off,
    _confirmed_otherwise,
    _source_is_empty,
    _history_is_another,
    _over_budget,
)
