"""What suspend, resume, approve, rollback and retry do: here when nobody else reconciles, else by asking who does."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from reconciler.cli.place import Place, opened
from reconciler.cli.show import Screen
from reconciler.cli.verbs import Wishes, apply_in, looked
from reconciler.errors import HeldElsewhere, Spoiled, Unreachable
from reconciler.orders import NotOrdered, Orders
from reconciler.planning.memory import Order, OrderKind
from reconciler.planning.people import NOBODY, Person
from reconciler.planning.shown import at
from reconciler.planning.steps import PlanOptions
from reconciler.ports import World
from reconciler.reconcile import Look


@dataclass(frozen=True, slots=True)
class Said:
    """An order as it was given on the command line: how to carry it out here, and how to say it to the other one."""

    method: str
    arguments: Mapping[str, Any]
    here: Callable[[Orders, Person, Look], Awaitable[None]]
    done: str
    then: str


async def suspend(place: Place, app_id: str, screen: Screen, *, reason: str, until: datetime | None, once: bool) -> int:
    end = _in_utc(until) if until else None

    async def here(orders: Orders, by: Person, seen: Look) -> None:
        commit = seen.tree.revision.id
        stop = end.timestamp() if end else None
        await orders.give(Order(OrderKind.SUSPEND, app_id, by.name, time.time(), reason, stop, commit, once=once))

    arguments = {"app_id": app_id, "reason": reason, "until": end.isoformat() if end else None, "once": once}
    done = f"{app_id} is suspended" + (f" until {at(end.timestamp())}" if end else "")
    said = Said("suspend", arguments, here, done, f"reconcile resume {app_id}")
    return await _order(place, app_id, screen, said)


def _in_utc(moment: datetime) -> datetime:
    """Without an offset it is of this machine's zone. Raises NotOrdered."""
    try:
        return moment.astimezone(UTC)
    except (OverflowError, ValueError):  # at either end of the calendar
        hint = "Name a moment to come, such as 2026-12-04T18:00; or leave --until out, and resume it."
        raise NotOrdered(f"--until {moment.isoformat()}: no clock shows it", hint=hint) from None


async def resume(place: Place, app_id: str, screen: Screen) -> int:
    async def here(orders: Orders, by: Person, seen: Look) -> None:  # noqa: ARG001 - as the others
        ended = [await orders.take_back(kind, app_id, by.name) for kind in (OrderKind.SUSPEND, OrderKind.PIN)]
        if not any(ended):
            hint = "What cluster.yaml suspends, a commit resumes."
            raise NotOrdered(f"nobody suspended {app_id}, or rolled it back, by an order", hint=hint)

    said = Said("resume", {"app_id": app_id}, here, f"{app_id} is followed again", f"reconcile wait {app_id}")
    return await _order(place, app_id, screen, said)


async def approve(place: Place, plan_id: str, screen: Screen, *, reason: str) -> int:
    async def here(orders: Orders, by: Person, seen: Look) -> None:
        commit = seen.tree.revision.id
        await orders.give(
            Order(OrderKind.APPROVE, plan_id, by.name, time.time(), reason, revision=commit, by_id=by.user_id)
        )

    said = Said("approve", {"plan_id": plan_id, "reason": reason}, here, f"{plan_id} is approved", "reconcile get")
    return await _order(place, "", screen, said)


async def rollback(place: Place, app_id: str, screen: Screen, *, to: str, reason: str, timeout_s: float) -> int:
    async def here(orders: Orders, by: Person, seen: Look) -> None:  # noqa: ARG001 - as the others
        await orders.give(Order(OrderKind.PIN, app_id, by.name, time.time(), reason, revision=to))

    arguments = {"app_id": app_id, "to": to, "reason": reason}
    said = Said("rollback", arguments, here, f"{app_id} goes back", f"reconcile wait {app_id}")
    return await _order(place, app_id, screen, said, then_apply=_only(app_id, timeout_s))


async def retry(place: Place, app_id: str, screen: Screen, *, timeout_s: float) -> int:
    async def here(orders: Orders, by: Person, seen: Look) -> None:  # noqa: ARG001 - as the others
        await orders.retry(app_id, by.name)

    said = Said("retry", {"app_id": app_id}, here, f"{app_id} is tried again", f"reconcile wait {app_id}")
    return await _order(place, app_id, screen, said, then_apply=_only(app_id, timeout_s))


def _only(app_id: str, timeout_s: float) -> Wishes:
    options = PlanOptions(frozenset({app_id}), force=True)
    return Wishes(options, ordered=True, wait=True, timeout_s=timeout_s)


async def _order(place: Place, app_id: str, screen: Screen, said: Said, *, then_apply: Wishes | None = None) -> int:
    async with opened(place, writes=True) as world:
        screen.masked = world.secrets.masked
        seen = await looked(world, PlanOptions(), screen, named=[app_id] if app_id else (), option="")
        try:
            await _here(world, seen, said)
        except (HeldElsewhere, Spoiled) as not_here:  # without the key of who keeps it, it is not known who that is
            await _there(seen, said, not_here)
            holder = not_here.holder if isinstance(not_here, HeldElsewhere) else None
            screen.result(f"{said.done}: told to {holder.name if holder else 'the one that keeps this cluster'}.")
            screen.result(f"\nNext: {screen.typed(said.then)}")
            return 0
        screen.result(f"{said.done}.")
        if then_apply:
            return await apply_in(world, then_apply, place, screen)
    screen.result(f"\nNext: {screen.typed(said.then)}")
    return 0


async def _here(world: World, seen: Look, said: Said) -> None:
    orders = Orders(world, lambda: seen, given=lambda: None, again=lambda _: None)
    if world.lease and seen.hypha.memory:
        await world.lease.hold(seen.hypha.memory)
    await said.here(orders, await _me(seen), seen)


async def _there(seen: Look, said: Said, not_here: HeldElsewhere | Spoiled) -> None:
    if seen.hypha.running is None:
        raise not_here
    try:
        await seen.hypha.running.order(said.method, said.arguments)
    except Unreachable as error:
        if isinstance(not_here, Spoiled):
            raise not_here from None
        raise HeldElsewhere(not_here.holder, what=f"who keeps this cluster does not answer ({error})") from None


async def _me(seen: Look) -> Person:
    return await seen.hypha.running.me() if seen.hypha.running else NOBODY
