"""The lease: the right to write, of one reconciler at a time, kept with what is remembered on Hypha.

Law: who was overtaken writes nothing more. Hypha has no compare-and-swap, so two that reach for it at once both write
their name and look again after a moment: the one whose name stands has it. Before each step the holder looks once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self
from weakref import WeakKeyDictionary

from reconciler.errors import HeldElsewhere, LeaseLost, ReconcilerError, Vanished
from reconciler.planning.memory import Holder, Remembered
from reconciler.ports import Lease as LeasePort
from reconciler.ports import Memory

log = logging.getLogger(__name__)

TTL_S = 60.0
SETTLE_S = 0.25
"""Longer than what usually lies between somebody's look and their write."""

_locks: WeakKeyDictionary[Memory, asyncio.Lock] = WeakKeyDictionary()


class Lease:
    """Implements ports.Lease for one process. As a context it is renewed by itself, and let go at the end.

    `name` is who we are to people. It is held for `ttl_s` from each renewal; then others may take it. Once lost, it
    stays lost: what was planned before must not be carried out after.
    """

    def __init__(
        self,
        name: str,
        *,
        ttl_s: float = TTL_S,
        settle_s: float = SETTLE_S,
        clock: Callable[[], float] = time.time,
        host: str = "",
        pid: int = 0,
    ) -> None:
        self._name = name
        self._ttl_s = ttl_s
        self._settle_s = settle_s
        self._clock = clock
        self._host = host or this_host()
        self._pid = pid or os.getpid()
        self._memory: Memory | None = None
        self._held: Holder | None = None
        self._lost: LeaseLost | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def hold(self, memory: Memory) -> Holder:
        """Take it, or keep it; asks nobody while no renewal is due. Raises HeldElsewhere or Unreachable."""
        if memory is not self._memory:
            self._memory, self._held = memory, None
        if self._lost:
            raise self._lost
        if self._held is None or self._due(self._held):
            async with in_turn(memory):
                if self._held is None:
                    self._held = await self._taken(memory)
                elif self._due(self._held):
                    self._held = await self._renewed(memory, self._held)
        return self._held

    async def still(self, memory: Memory) -> Remembered:
        """Before each write; what is remembered then. Raises LeaseLost, or Unreachable when nobody can tell."""
        held = await self.hold(memory)
        if not _same(held, (remembered := await memory.read()).holder):
            raise self._gone(remembered.holder)
        return remembered

    async def let_go(self, memory: Memory) -> None:
        """Leave it to the next one. Raises Unreachable."""
        held, self._held = self._held, None
        if held is None or memory is not self._memory:
            return
        async with in_turn(memory):
            remembered = await memory.read()
            if _same(held, remembered.holder):
                await memory.write(replace(remembered, holder=None))

    async def __aenter__(self) -> Self:
        self._keeping = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeping:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        if self._memory is not None:
            with contextlib.suppress(ReconcilerError):  # it ends by itself, a little later
                await self.let_go(self._memory)

    async def _keep(self) -> None:
        """A pass, or the time between two, may last longer than the lease."""
        while True:
            await asyncio.sleep(self._ttl_s / 6)
            if self._memory is None or self._held is None:
                continue
            try:
                await self.hold(self._memory)
            except LeaseLost as lost:
                log.error("event=lease_lost why=%s", lost)
                return
            except Exception as error:  # whatever it was: who stops trying loses the lease
                why = error if isinstance(error, ReconcilerError) else type(error).__name__
                log.warning("event=lease_not_renewed why=%s", why)

    def _due(self, held: Holder) -> bool:
        return abs(self._clock() - held.renewed) > self._ttl_s / 2

    async def _taken(self, memory: Memory) -> Holder:
        remembered = await memory.read()
        there = remembered.holder
        if there and await self._lives(there, memory):
            raise HeldElsewhere(there)
        now = self._clock()
        # Where nobody is left to count on from, the clock does: an epoch must never come again.
        epoch = max(int(now), there.epoch + 1 if there else 0)
        mine = Holder(self._name, self._host, self._pid, epoch, since=now, renewed=now)
        await memory.write(replace(remembered, holder=mine))
        await asyncio.sleep(self._settle_s)
        stands = (await memory.read()).holder
        if not _same(mine, stands):
            raise HeldElsewhere(stands)
        log.info("event=lease_taken epoch=%d from=%r", epoch, there.name if there else "")
        return mine

    async def _renewed(self, memory: Memory, held: Holder) -> Holder:
        try:
            remembered = await memory.read()
        except Vanished as vanished:  # nobody writes but who has the lease: what we knew last is all there was
            remembered = vanished.last
            log.warning("event=memory_written_again orders=%d why=%s", len(remembered.orders), vanished)
        if not _same(held, remembered.holder):
            raise self._gone(remembered.holder)
        mine = replace(held, renewed=self._clock())
        await memory.write(replace(remembered, holder=mine))
        return mine

    def _gone(self, to: Holder | None) -> LeaseLost:
        self._lost = LeaseLost(to)
        return self._lost

    async def _lives(self, there: Holder, memory: Memory) -> bool:
        age_s = self._clock() - there.renewed
        if runs(there, host=self._host, pid=self._pid) is False:
            return False
        if abs(age_s) < self._ttl_s:
            return True
        if there.host == self._host:
            return False
        # Its clock may be wrong, or ours: only one that does not renew while we watch is gone.
        await asyncio.sleep(self._ttl_s * 2 / 3)
        return (await memory.read()).holder != there


async def change(memory: Memory, lease: LeasePort, how: Callable[[Remembered], Remembered]) -> Remembered:
    """What is remembered, after `how` has made it another; nothing of this process comes between its look and its
    write, and in that look the lease is still ours. Raises HeldElsewhere, LeaseLost or Unreachable."""
    held = await lease.hold(memory)
    async with in_turn(memory):
        before = await memory.read()
        if _same(held, before.holder):
            after = how(before)
            if after != before:
                await memory.write(after)
            return after
    await lease.still(memory)  # raises, and from then on it is known to be lost
    raise LeaseLost(before.holder)


def in_turn(memory: Memory) -> asyncio.Lock:
    """Held by whoever reads in order to write, so that no other part of this process does the same meanwhile."""
    return _locks.setdefault(memory, asyncio.Lock())


def runs(holder: Holder, *, host: str = "", pid: int = 0) -> bool | None:
    """Whether its process is there; None: it is of another machine. With our own `pid` it is of a former life."""
    if holder.host != (host or this_host()):
        return None
    if holder.pid == (pid or os.getpid()):
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def this_host() -> str:
    """Name of this machine and of its boot; in a container also of its process namespace. A process id means nothing
    outside, and machines that are copies of one another have the same name."""
    said = [socket.gethostname()]
    with contextlib.suppress(OSError):
        said.append(_BOOT.read_text()[:8])
        space = str(Path("/proc/self/ns/pid").readlink()).removeprefix("pid:[").removesuffix("]")
        if space != _FIRST_SPACE:
            said.append(space)
    return "/".join(said)


_BOOT = Path("/proc/sys/kernel/random/boot_id")
_FIRST_SPACE = "4026531836"
"""What Linux calls the namespace outside of all containers."""


def _same(mine: Holder, there: Holder | None) -> bool:
    return there is not None and replace(there, renewed=mine.renewed) == mine
