"""Which calls end because their caller has gone."""

from __future__ import annotations

from bioengine_runtime.rpc.callers import GONE_FOR_S, Callers


class World:
    """A clock, and what becomes of a ping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.says = ""
        self.ended: list[str] = []
        self.callers = Callers(self.ping, clock=lambda: self.now)

    async def ping(self, client: str) -> None:
        if self.says:
            raise RuntimeError(self.says.format(client))

    async def look(self, *, after_s: float = 0.0, says: str = "") -> list[str]:
        self.now += after_s
        self.says = says
        await self.callers.look()
        return self.ended

    def end(self) -> None:
        self.ended.append("call")


GONE = "Target peer {} is not connected"


async def test_a_call_ends_when_its_caller_has_been_gone_for_long_enough() -> None:
    world = World()
    with world.callers.calling("w/bob", world.end):
        assert await world.look(says=GONE) == []
        assert await world.look(after_s=GONE_FOR_S - 1, says=GONE) == []
        assert await world.look(after_s=1, says=GONE) == ["call"]


async def test_a_caller_that_comes_back_has_not_gone() -> None:
    world = World()
    with world.callers.calling("w/bob", world.end):
        await world.look(says=GONE)
        await world.look(after_s=GONE_FOR_S / 2)
        assert await world.look(after_s=GONE_FOR_S / 2, says=GONE) == []


async def test_silence_and_other_errors_are_not_absence() -> None:
    world = World()
    with world.callers.calling("w/bob", world.end):
        await world.look(says="timed out")
        assert await world.look(after_s=10 * GONE_FOR_S, says="timed out") == []


async def test_a_call_that_is_over_is_left_alone() -> None:
    world = World()
    with world.callers.calling("w/bob", world.end):
        await world.look(says=GONE)
    assert await world.look(after_s=2 * GONE_FOR_S, says=GONE) == []
    with world.callers.calling("w/bob", world.end):  # another one, later: its time begins anew
        assert await world.look(says=GONE) == []
