"""Whether a further step may begin: we still have the lease, nothing newer is wanted, and nothing speaks against it.

Law: what was begun is finished; once the brake is on for all, it stays on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from reconciler.errors import LeaseLost
from reconciler.planning.memory import Remembered
from reconciler.planning.steps import Step
from reconciler.ports import Lease, Memory


class Brake:
    """Asked before each step: "", or why it may not begin. `superseded` tells the newer commit, "" when there is none;
    `against`, what speaks against this one step by what is remembered now (None: nobody keeps it). Without a lease and
    a memory for it nobody can overtake us."""

    def __init__(
        self,
        lease: Lease | None,
        memory: Memory | None,
        superseded: Callable[[], Awaitable[str]],
        against: Callable[[Step, Remembered | None], str],
    ) -> None:
        self._lease = lease
        self._memory = memory
        self._superseded = superseded
        self._against = against
        self.lost: LeaseLost | None = None
        self.newer = ""

    async def __call__(self, step: Step) -> str:
        """Raises Unreachable when nobody can tell whether we still have the lease."""
        remembered = None if self.lost or self.newer else await self._look()
        if self.lost:
            return str(self.lost)
        if self.newer:
            return f"{self.newer[:7]} came meanwhile; planned anew for it"
        return self._against(step, remembered)

    async def _look(self) -> Remembered | None:
        remembered = None
        if self._lease and self._memory:
            try:
                remembered = await self._lease.still(self._memory)
            except LeaseLost as lost:
                self.lost = lost
                return None
        self.newer = await self._superseded()
        return remembered
