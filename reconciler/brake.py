"""Whether a further step may begin: we still have the lease, and nothing newer is wanted.

Law: what was begun is finished; once the brake is on, it stays on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from reconciler.errors import LeaseLost
from reconciler.ports import Lease, Memory


class Brake:
    """Asked before each step: "", or why it may not begin. `superseded` tells the newer commit, "" when there is none;
    without a lease and a memory for it nobody can overtake us."""

    def __init__(self, lease: Lease | None, memory: Memory | None, superseded: Callable[[], Awaitable[str]]) -> None:
        self._lease = lease
        self._memory = memory
        self._superseded = superseded
        self.lost: LeaseLost | None = None
        self.newer = ""

    async def __call__(self) -> str:
        """Raises Unreachable when nobody can tell whether we still have the lease."""
        if not self.lost and not self.newer:
            await self._look()
        if self.lost:
            return str(self.lost)
        return f"{self.newer[:7]} came meanwhile; planned anew for it" if self.newer else ""

    async def _look(self) -> None:
        if self._lease and self._memory:
            try:
                await self._lease.still(self._memory)
            except LeaseLost as lost:
                self.lost = lost
                return
        self.newer = await self._superseded()
