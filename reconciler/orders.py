"""Orders: what people want besides what stands in git. Kept on Hypha, by whoever has the lease.

Law: each is noted in the history, and one that has ended is kept no longer than until the next one; a pin, no longer
than until a pass has seen that it is over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from reconciler.errors import ReconcilerError, Remedy, Unreachable
from reconciler.history import DONE, ORDERED, REJECTED, TEXT_LIMIT
from reconciler.lease import change
from reconciler.planning.approving import says_something, shown
from reconciler.planning.declare import declare
from reconciler.planning.memory import Entry, Order, OrderKind, Remembered
from reconciler.planning.pins import is_over, pins
from reconciler.planning.shown import at, plain
from reconciler.ports import Lease, Memory, World
from reconciler.reconcile import Look

log = logging.getLogger(__name__)

LOOK_BACK = 200
"""Entries of the history in which the last good commit is looked for."""


class NotOrdered(ReconcilerError):
    """An order that makes no sense as things are."""

    remedy = Remedy.OPERATOR


class Orders:
    """Takes orders for one cluster. `latest` is the newest look; `given` is called when the next pass should be soon,
    `again` with an app that is to be tried again."""

    def __init__(
        self,
        world: World,
        latest: Callable[[], Look | None],
        given: Callable[[], None],
        again: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._world = world
        self._latest = latest
        self._given = given
        self._again = again
        self._clock = clock

    async def give(self, order: Order) -> None:
        """Keep it, in the place of an earlier one of its kind for the same subject. Raises ReconcilerError."""
        memory, lease, seen = self._kept()
        _refuse_senseless(order, self._clock())
        match order.kind:
            case OrderKind.PIN:
                whole = await self._whole(order, memory, seen)
            case OrderKind.APPROVE:
                whole = _as_shown(order, seen)
            case OrderKind.SUSPEND:
                whole = order

        def with_it(remembered: Remembered) -> Remembered:
            others = (one for one in remembered.orders if not _replaces(whole, one))
            return replace(remembered, orders=(*(one for one in others if _lasts(one, seen, whole.at)), whole))

        await change(memory, lease, with_it)
        self._given()
        details = {"reason": whole.reason, "until": whole.until, "once": whole.once}
        if whole.kind is OrderKind.PIN:
            details |= {"to": whole.revision, "away_from": seen.desired.apps[whole.subject].spec.digest()}
        await self._note(WORDS[whole.kind], whole.subject, whole.by, whole.at, details)

    async def take_back(self, kind: OrderKind, subject: str, by: str) -> bool:
        """Whether there was one. Raises ReconcilerError."""
        memory, lease, _ = self._kept()
        there = any((one.kind, one.subject) == (kind, subject) for one in (await memory.read()).orders)
        if there:
            await change(memory, lease, lambda before: replace(before, orders=_but(before, kind, subject)))
            self._given()
            await self._note("resume", subject, by, self._clock(), {"ends": WORDS[kind]})
        return there

    async def retry(self, app_id: str, by: str) -> None:
        """Try again what was rejected, without waiting for git to move."""
        self._again(app_id)
        self._given()
        await self._note("retry", app_id, by, self._clock(), {})

    async def _note(self, word: str, subject: str, by: str, at: float, details: dict[str, Any]) -> None:
        """An order stands, whether or not it can be noted now; if not, it is with what is noted next."""
        seen = self._latest()
        if seen is None or seen.hypha.memory is None:
            return
        told = {name: _shown(value, self._world.secrets.masked) for name, value in details.items() if value}
        app_id = subject if word != WORDS[OrderKind.APPROVE] else ""
        entry = Entry(at, by, f"{word} {subject}", ORDERED, app_id, seen.tree.revision.id, details=told)
        try:
            await seen.hypha.memory.append([entry])
        except Unreachable as error:
            log.warning("event=history_not_written why=%s", error)

    def _kept(self) -> tuple[Memory, Lease, Look]:
        seen = self._latest()
        if seen is None:
            raise NotOrdered("nothing was looked at yet", hint="Try again in a moment.")
        if seen.hypha.memory is None or self._world.lease is None:
            raise NotOrdered("this reconciler keeps no orders", hint="Commit what you want to the repository.")
        return seen.hypha.memory, self._world.lease, seen

    async def _whole(self, pin: Order, memory: Memory, seen: Look) -> Order:
        """With the commit to go back to, in full, and what git wants instead now."""
        app_id = pin.subject
        if app_id not in seen.desired.apps:
            raise NotOrdered(f"{app_id} cannot be rolled back: git does not ask for it, or its declaration is broken")
        revision = pin.revision or await self._last_good(app_id, seen, memory)
        if self._world.at is None:
            raise NotOrdered("this source has no older commits", hint="Leave --worktree out.")
        tree = await self._world.at(revision).fetch()
        then = declare(tree, workspace=await seen.hypha.artifacts.workspace())
        if app_id not in then.apps:
            raise NotOrdered(f"{tree.revision.commit[:7]} has no valid {app_id}", hint="Name another commit: --to.")
        if then.apps[app_id].spec.digest() == seen.asked.apps[app_id].spec.digest():
            said = f"{tree.revision.commit[:7]} has {app_id} as git asks for it now"
            raise NotOrdered(
                said, hint=f"Name another commit: --to; or, to follow git again: reconcile resume {app_id}"
            )
        before = pins(seen.asked, seen.live).get(app_id)
        digest = before.digest if before else seen.asked.apps[app_id].spec.digest()
        return replace(pin, revision=tree.revision.commit, digest=digest)

    async def _last_good(self, app_id: str, seen: Look, memory: Memory) -> str:
        """The commit of the newest content that was neither rejected, nor rolled away from since, nor is wanted now."""
        entries = await memory.history(LOOK_BACK, app_id)
        avoided = {seen.asked.apps[app_id].spec.digest(), seen.desired.apps[app_id].spec.digest()}
        avoided |= {entry.details.get("digest", "") for entry in entries if entry.result == REJECTED}
        for entry in entries:
            word, digest = entry.what.split()[0], entry.details.get("digest")
            if entry.result == ORDERED and word == WORDS[OrderKind.PIN]:
                avoided.add(entry.details.get("away_from", ""))
            worked = entry.result == DONE and word in ("deploy", "update")
            if worked and digest and digest not in avoided and "+" not in entry.revision:
                return entry.revision
        raise NotOrdered(f"no earlier good commit of {app_id} is remembered", hint="Name one: --to COMMIT.")


WORDS = {OrderKind.SUSPEND: "suspend", OrderKind.PIN: "rollback", OrderKind.APPROVE: "approve"}
"""As people say them."""


def _refuse_senseless(order: Order, now: float) -> None:
    """Before it takes the place of one that makes sense."""
    if order.until is not None and order.until <= now:
        raise NotOrdered(f"until: {at(order.until)} is in the past", hint="Name a later moment, or none.")
    if order.kind is OrderKind.SUSPEND and not order.reason:
        raise NotOrdered("reason: it is empty, and shown wherever the app is", hint="Say why: --reason")
    if len(order.reason) > TEXT_LIMIT:
        said = f"reason: it has {len(order.reason):,} characters, and {TEXT_LIMIT} are kept"
        raise NotOrdered(said, hint="Say it in fewer words, or name a page that says more.")
    if not _is_text(order.reason):
        raise NotOrdered("reason: it is no UTF-8, so it can be neither kept nor shown", hint="Type it anew.")


def _is_text(text: str) -> bool:
    """Bytes of another encoding reach us from a shell as halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_shown(approval: Order, seen: Look) -> Order:
    """With all that the plan shows. It counts as long as a saved plan: an equal one of next month is another one."""
    planned = seen.plan
    if planned.id != approval.subject:
        raise NotOrdered(f"the plan is {planned.id} now, not {approval.subject}", hint="Look at it: reconcile plan")
    if not says_something(planned):
        hint = "What is held says what it waits for: reconcile plan"
        said = f"there is nothing to approve: {planned.id} has no steps, and holds nothing for a yes"
        raise NotOrdered(said, hint=hint)
    until = approval.at + seen.desired.cluster.policy.plan_valid_s
    return replace(approval, until=until, shown=shown(planned, seen.desired, seen.live))


def _lasts(order: Order, seen: Look, now: float) -> bool:
    """Whether it still says something: a pin until git asks for something else, the others until they end."""
    if order.kind is OrderKind.PIN:
        return not is_over(order, seen.asked, seen.live)
    return order.until is None or order.until > now


def _shown(value: Any, masked: Callable[[str], str]) -> Any:
    return plain(masked(value), TEXT_LIMIT) if isinstance(value, str) else value


def _replaces(order: Order, earlier: Order) -> bool:
    """Approvals of several people stand side by side: each is worth what its giver's rights are."""
    same = (order.kind, order.subject) == (earlier.kind, earlier.subject)
    return same and (order.kind is not OrderKind.APPROVE or order.by == earlier.by)


def _but(remembered: Remembered, kind: OrderKind, subject: str) -> tuple[Order, ...]:
    return tuple(one for one in remembered.orders if (one.kind, one.subject) != (kind, subject))
