"""Orders: what a person wants besides what stands in git. Given to whoever has the lease, kept on Hypha."""

from __future__ import annotations

from dataclasses import replace

from reconciler.planning.memory import Order, OrderKind
from reconciler.ports import Lease, Memory


async def give(memory: Memory, lease: Lease, order: Order) -> None:
    """Keep it, in the place of an earlier one of its kind for the same subject. Raises HeldElsewhere or Unreachable."""
    await lease.hold(memory)
    remembered = await memory.read()
    others = tuple(one for one in remembered.orders if (one.kind, one.subject) != (order.kind, order.subject))
    await memory.write(replace(remembered, orders=(*others, order)))


async def take_back(memory: Memory, lease: Lease, kind: OrderKind, subject: str) -> bool:
    """Whether there was one. Raises HeldElsewhere or Unreachable."""
    await lease.hold(memory)
    remembered = await memory.read()
    others = tuple(one for one in remembered.orders if (one.kind, one.subject) != (kind, subject))
    if others == remembered.orders:
        return False
    await memory.write(replace(remembered, orders=others))
    return True
