"""An app that git calls by another name: the old one serves until the new one does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bioengine_runtime.contract.status import NodeState, WorkerState
from reconciler.cli.keeper import Keeper
from reconciler.planning.steps import PlanOptions, Reason
from reconciler.reconcile import Pass
from reconciler.settle import Verdict, reconcile_until_settled
from reconciler.telling import news
from tests.fakes import FakeMemory, FakeRuntime, FakeSource, FakeWorld, a_repository, an_app_folder

POLICY = "policy: {prune: true, removal_budget: 100%}\n"


class Rename:
    """`one` runs, and git has called it `uno` since."""

    def __init__(self, fake: FakeWorld) -> None:
        self.fake = fake
        self.keeper = Keeper(fake.world, asyncio.Event())

    @classmethod
    async def begun(cls, runtime: FakeRuntime | None = None, **files: str) -> Rename:
        source = FakeSource(a_repository("one", "two", cluster=POLICY) | files)
        self = cls(FakeWorld(source, runtime=runtime or FakeRuntime(), memory=FakeMemory()))
        await self.keeper.one_pass()
        source.commit(a_repository("uno", "two", cluster=POLICY))
        return self

    @property
    def running(self) -> set[str]:
        return set(self.fake.runtime.apps)

    async def passes(self, number: int = 1) -> Pass:
        for _ in range(number - 1):
            await self.passes()
        self.keeper._source.again()
        return await self.keeper.one_pass()

    async def two_passes_after_rest(self) -> None:
        """With whoever rests at work again in each of them."""
        for _ in range(2):
            rested = {app_id: replace(rest, until=0.0) for app_id, rest in self.keeper._resting.items()}
            self.keeper._resting = rested
            await self.passes()


@pytest.fixture(autouse=True)
def no_patience() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reconciler.reconcile.PATIENCE_S", 0.0)
        yield


async def test_the_old_one_is_stopped_by_the_pass_that_sees_the_new_one_up() -> None:
    rename = await Rename.begun()
    await rename.passes()
    assert rename.running == {"one", "two", "uno"}
    await rename.passes()
    assert rename.running == {"two", "uno"}


async def test_it_serves_while_the_environment_of_the_new_one_is_built() -> None:
    rename = await Rename.begun()
    rename.fake.runtime.builds["uno"] = 3
    await rename.passes(3)
    assert rename.running == {"one", "two"}
    await rename.passes(2)
    assert rename.running == {"two", "uno"}


async def test_it_serves_while_the_environment_cannot_be_built() -> None:
    rename = await Rename.begun()
    rename.fake.runtime.bad_environments["uno"] = "no such package"
    await rename.passes(2)
    held = {held.app_id: held for held in (await rename.passes()).look.plan.held}
    assert held.keys() == {"one", "uno"} and {one.reason for one in held.values()} == {Reason.BACKING_OFF}
    assert "prepare uno" in held["one"].message and "no such package" in held["one"].message
    await rename.two_passes_after_rest()
    assert rename.running == {"one", "two"}


async def test_of_a_build_that_fails_again_and_again_one_failure_is_told_and_that_of_the_new_one() -> None:
    rename, standing = await Rename.begun(), news.Standing()
    rename.fake.runtime.bad_environments["uno"] = "no such package"
    heard: list[tuple[str, str]] = []
    for _ in range(3):
        standing, told = news.after(standing, await rename.passes())
        heard += [(one.kind, one.app_id) for one in told]
    assert heard == [("failed", "uno")]


async def test_it_serves_while_the_worker_does_not_take_the_new_one() -> None:
    rename = await Rename.begun()
    rename.fake.runtime.fail("apply uno", ValueError("no"))
    await rename.passes(2)
    await rename.two_passes_after_rest()
    assert rename.running == {"one", "two"}
    rename.fake.runtime.heal()
    await rename.two_passes_after_rest()
    assert rename.running == {"two", "uno"}


async def test_it_serves_while_the_new_one_comes_up() -> None:
    rename = await Rename.begun()
    rename.fake.runtime.slow.add("uno")
    (held,) = (await rename.passes(3)).look.plan.held
    assert (held.app_id, held.reason) == ("one", Reason.UPDATING) and "uno" in held.message
    assert rename.running == {"one", "two", "uno"}
    coming = rename.fake.runtime.apps["uno"]
    rename.fake.runtime.apps["uno"] = coming.model_copy(update={"status": "RUNNING"})
    await rename.passes()
    assert rename.running == {"two", "uno"}


async def test_it_serves_when_the_new_one_does_not_come_up_and_is_stopped_after_it_was_mended() -> None:
    rename = await Rename.begun()
    rename.fake.runtime.bad["uno"] = "ImportError"
    held = {held.app_id: held for held in (await rename.passes(3)).look.plan.held}
    assert held["one"].reason is Reason.DEPENDENCY_NOT_READY and "--target one" in held["one"].fix
    assert "one" in rename.running
    rename.fake.runtime.bad.clear()
    rename.fake.source.commit(an_app_folder("uno", says="mended"))
    await rename.passes(2)
    assert rename.running == {"two", "uno"}


async def test_who_waits_for_it_sees_it_to_its_end() -> None:
    rename = await Rename.begun()
    world = rename.fake.world
    waited = await reconcile_until_settled(
        world, PlanOptions(), await rename.passes(), timeout_s=5, tell=lambda _: None, every_s=0.01
    )
    assert waited.ok and waited.apps["one"].verdict is Verdict.GONE


class OneSlot(FakeRuntime):
    """A machine with one CPU, which an app takes that asks for one."""

    async def observe(self) -> WorkerState:
        free = 0.0 if self.apps.keys() & {"one", "uno"} else 1.0
        node = NodeState(node_id="n", address="n", head=True, total={"CPU": 1.0}, free={"CPU": free})
        return (await super().observe()).model_copy(update={"nodes": [node]})


async def test_on_a_full_machine_the_old_one_makes_room() -> None:
    main = "apps/{}/main.py"
    folders = {app_id: an_app_folder(app_id)[main.format(app_id)] for app_id in ("one", "uno")}
    taking = {app_id: code.replace('"num_cpus": 0', '"num_cpus": 1') for app_id, code in folders.items()}
    rename = await Rename.begun(OneSlot(), **{main.format("one"): taking["one"]})
    rename.fake.source.commit({main.format("uno"): taking["uno"]})
    done = await rename.passes()
    assert [(held.app_id, held.reason) for held in done.look.plan.held] == [("uno", Reason.INSUFFICIENT_CAPACITY)]
    await rename.passes()
    assert rename.running == {"two", "uno"}
