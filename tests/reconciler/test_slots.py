"""The bound on steps at once."""

from __future__ import annotations

import asyncio

from reconciler.slots import Slots


async def test_no_more_run_at_once_than_there_are_slots_and_all_run() -> None:
    slots, now, most, done = Slots(3), 0, 0, 0

    async def work(rank: int) -> None:
        nonlocal now, most, done
        async with slots.taken(rank):
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1
            done += 1

    await asyncio.gather(*(work(rank % 4) for rank in range(40)))
    assert (most, done) == (3, 40)


async def test_what_is_nearer_to_its_end_goes_first() -> None:
    slots, order = Slots(1), list[str]()

    async def work(name: str, rank: int) -> None:
        async with slots.taken(rank):
            order.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(work("first", 0), work("upload", 0), work("deploy", 2), work("prepare", 1), work("more", 0))
    assert order == ["first", "deploy", "prepare", "upload", "more"]


async def test_one_that_is_cancelled_while_it_waits_or_works_keeps_no_slot() -> None:
    slots = Slots(1)

    async def work() -> None:
        async with slots.taken(0):
            await asyncio.sleep(3600)

    tasks = [asyncio.create_task(work()) for _ in range(2)]
    await asyncio.sleep(0)
    for task in reversed(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(5), slots.taken(0):
        pass
