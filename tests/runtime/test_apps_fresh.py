"""Work shared by those who ask for it."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from bioengine_runtime.apps.fresh import Fresh


class Work:
    done = 0
    fails = False

    async def __call__(self) -> int:
        await asyncio.sleep(0)
        self.done += 1
        if self.fails:
            raise ValueError("no")
        return self.done


async def test_who_asks_meanwhile_and_soon_after_shares_one_piece_of_work() -> None:
    work, fresh = Work(), Fresh[int](60)
    assert await asyncio.gather(*(fresh.get("key", work) for _ in range(3))) == [1, 1, 1]
    assert await fresh.get("key", work) == 1 and await fresh.get("other", work) == 2


async def test_a_result_that_is_old_is_made_again() -> None:
    work, fresh = Work(), Fresh[int](0)
    assert [await fresh.get("key", work), await fresh.get("key", work)] == [1, 2]


async def test_what_is_forgotten_is_made_again_and_who_waits_still_gets_it() -> None:
    work, fresh = Work(), Fresh[int](60)
    asked, other = fresh.get("key", work), fresh.get("other", work)
    fresh.forget(lambda key: key == "key")
    assert [await asked, await other] == [1, 2]
    assert [await fresh.get("key", work), await fresh.get("other", work)] == [3, 2]


async def test_a_failure_is_not_kept() -> None:
    work, fresh = Work(), Fresh[int](60)
    work.fails = True
    with pytest.raises(ValueError, match="no"):
        await fresh.get("key", work)
    work.fails = False
    assert await fresh.get("key", work) == 2


async def test_a_result_is_kept_from_its_end_on_however_long_it_took() -> None:
    work, fresh = Work(), Fresh[int](0.2)
    slow = fresh.get("key", lambda: after(0.3, work))
    assert await slow == 1
    assert await fresh.get("key", work) == 1


async def test_a_failure_that_is_kept_is_told_until_it_is_forgotten() -> None:
    work, fresh = Work(), Fresh[int](60, keeps_failures=True)
    work.fails = True
    fresh.get("key", work)
    await asyncio.sleep(0.01)  # nobody waits for it
    work.fails = False
    with pytest.raises(ValueError, match="no"):
        await fresh.get("key", work)
    fresh.forget(lambda key: key == "key")
    assert await fresh.get("key", work) == 2


class Large:
    """A result whose end can be watched."""


async def test_a_result_is_let_go_of_when_its_time_is_over_though_nobody_asks_again() -> None:
    async def make() -> Large:
        return Large()

    fresh = Fresh[Large](0.05)
    made = weakref.ref(await fresh.get("key", make))
    assert made() is not None
    await asyncio.sleep(0.1)
    gc.collect()
    assert made() is None


async def after(seconds: float, work: Work) -> int:
    await asyncio.sleep(seconds)
    return await work()
