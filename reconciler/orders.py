"""Orders: what people want besides what stands in git. Kept on Hypha, by whoever has the lease."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from reconciler.errors import ReconcilerError, Remedy
from reconciler.history import DONE
from reconciler.lease import change
from reconciler.planning.declare import declare
from reconciler.planning.memory import Order, OrderKind, Remembered
from reconciler.planning.pins import pins
from reconciler.ports import Lease, Memory, World
from reconciler.reconcile import Look

LOOK_BACK = 200
"""Entries of the history in which the last good commit is looked for."""


class NotOrdered(ReconcilerError):
    """An order that makes no sense as things are."""

    remedy = Remedy.OPERATOR


class Orders:
    """Takes orders for one cluster. `latest` is the newest look; `given` is called when the next pass should be soon,
    `again` with an app that is to be tried again."""

    def __init__(
        self, world: World, latest: Callable[[], Look | None], given: Callable[[], None], again: Callable[[str], None]
    ) -> None:
        self._world = world
        self._latest = latest
        self._given = given
        self._again = again

    async def give(self, order: Order) -> None:
        """Keep it, in the place of an earlier one of its kind for the same subject. Raises ReconcilerError."""
        memory, lease = self._kept()
        whole = await self._whole(order, memory) if order.kind is OrderKind.PIN else order

        def with_it(remembered: Remembered) -> Remembered:
            return replace(remembered, orders=(*(one for one in remembered.orders if not _replaces(whole, one)), whole))

        await change(memory, lease, with_it)
        self._given()

    async def take_back(self, kind: OrderKind, subject: str) -> bool:
        """Whether there was one. Raises ReconcilerError."""
        memory, lease = self._kept()
        there = any((one.kind, one.subject) == (kind, subject) for one in (await memory.read()).orders)
        if there:
            await change(memory, lease, lambda before: replace(before, orders=_but(before, kind, subject)))
            self._given()
        return there

    async def retry(self, app_id: str, by: str) -> None:  # noqa: ARG002 - the pass that does it notes it
        """Try again what was rejected, without waiting for git to move."""
        self._again(app_id)
        self._given()

    def _kept(self) -> tuple[Memory, Lease]:
        seen = self._latest()
        if seen is None:
            raise NotOrdered("nothing was looked at yet", hint="Try again in a moment.")
        if seen.hypha.memory is None or self._world.lease is None:
            raise NotOrdered("this reconciler keeps no orders", hint="Commit what you want to the repository.")
        return seen.hypha.memory, self._world.lease

    async def _whole(self, pin: Order, memory: Memory) -> Order:
        """With the commit to go back to, in full, and what git wants instead now."""
        seen, app_id = self._latest(), pin.subject
        assert seen is not None
        if app_id not in seen.desired.apps:
            raise NotOrdered(f"{app_id} cannot be rolled back: git does not ask for it, or its declaration is broken")
        revision = pin.revision or await self._last_good(app_id, seen, memory)
        if self._world.at is None:
            raise NotOrdered("this source has no older commits", hint="Leave --worktree out.")
        tree = await self._world.at(revision).fetch()
        then = declare(tree, workspace=await seen.hypha.artifacts.workspace())
        if app_id not in then.apps:
            raise NotOrdered(f"{tree.revision.commit[:7]} has no valid {app_id}", hint="Name another commit: --to.")
        before = pins(seen.asked, seen.live).get(app_id)
        digest = before.digest if before else seen.asked.apps[app_id].spec.digest()
        return replace(pin, revision=tree.revision.commit, digest=digest)

    async def _last_good(self, app_id: str, seen: Look, memory: Memory) -> str:
        running = seen.live.apps.get(app_id)
        now = running.provenance.commit if running and running.provenance else ""
        for entry in await memory.history(LOOK_BACK, app_id):
            worked = entry.result == DONE and entry.what.split()[0] in ("deploy", "update")
            if worked and entry.revision not in ("", now) and "+" not in entry.revision:
                return entry.revision
        raise NotOrdered(f"no earlier commit of {app_id} is remembered", hint="Name one: --to COMMIT.")


def _replaces(order: Order, earlier: Order) -> bool:
    """Approvals of several people stand side by side: each is worth what its giver's rights are."""
    same = (order.kind, order.subject) == (earlier.kind, earlier.subject)
    return same and (order.kind is not OrderKind.APPROVE or order.by == earlier.by)


def _but(remembered: Remembered, kind: OrderKind, subject: str) -> tuple[Order, ...]:
    return tuple(one for one in remembered.orders if (one.kind, one.subject) != (kind, subject))
