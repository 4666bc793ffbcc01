"""Removals that a rewritten history asks for wait for a person's word: until it is given, and in every process."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.adapters.git import GitSource
from reconciler.lease import Lease
from reconciler.planning.steps import PlanOptions, Reason
from reconciler.reconcile import Pass, reconcile
from tests.fakes import FakeMemory, FakeSource, FakeWorld, a_repository
from tests.reconciler.git_world import Repository

PRUNE = "policy: {prune: true, removal_budget: 5}\n"
THREE, TWO = a_repository("one", "two", "three", cluster=PRUNE), a_repository("one", "two", cluster=PRUNE)


class Lab:
    """A folder with three apps that run, and the reconciler that follows it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fake = FakeWorld(FakeSource({"x": "y"}), memory=FakeMemory())
        self.repository = Repository(folder / "repo", dict(THREE))
        self.restart()

    def restart(self) -> None:
        source = GitSource(self.repository.path, mirror_dir=self.folder / "mirrors")
        self.world = replace(self.fake.world, source=source, lease=Lease("lab", settle_s=0.0))

    async def passes(self, number: int = 1, options: PlanOptions | None = None) -> Pass:
        for _ in range(number):
            done = await reconcile(self.world, options or PlanOptions())
        return done  # pyright: ignore[reportPossiblyUnboundVariable]

    def force_push(self) -> None:
        self.repository.git("checkout", "-q", "--orphan", "other")
        self.repository.git("rm", "-rqf", ".")
        self.repository.commit("Another history", dict(TWO))
        self.repository.git("branch", "-M", "other", "main")


@pytest.fixture
async def lab(tmp_path: Path) -> Lab:
    made = await asyncio.to_thread(Lab, tmp_path)
    await made.passes(2)
    assert made.fake.runtime.apps.keys() == {"one", "two", "three"}
    return made


def held(done: Pass) -> list[tuple[str | None, Reason]]:
    return [(one.app_id, one.reason) for one in done.look.plan.held]


@pytest.mark.parametrize("then", ["the same commit", "another commit", "a restart", "both"])
async def test_sg_19_nothing_is_stopped_until_a_person_says_so(lab: Lab, then: str) -> None:
    await asyncio.to_thread(lab.force_push)
    assert held(await lab.passes(2)) == [("three", Reason.HISTORY_REWRITTEN)]
    if then in ("another commit", "both"):
        await asyncio.to_thread(lab.repository.commit, "Docs", {"README.md": "x"})
    if then in ("a restart", "both"):
        lab.restart()
    assert held(await lab.passes(2)) == [("three", Reason.HISTORY_REWRITTEN)]
    done = await lab.passes(options=PlanOptions(prune_confirmed=1))
    assert not done.failed and lab.fake.runtime.apps.keys() == {"one", "two"}
    await asyncio.to_thread(
        lab.repository.commit, "Remove", {"cluster.yaml": a_repository("one", cluster=PRUNE)["cluster.yaml"]}
    )
    await lab.passes(2)
    assert lab.fake.runtime.apps.keys() == {"one"}, "from then on its history is that of the commit that was confirmed"


async def test_sg_19_history_that_is_put_back_asks_for_no_word(lab: Lab) -> None:
    before = lab.repository.head
    await asyncio.to_thread(lab.force_push)
    await lab.passes()
    await asyncio.to_thread(lab.repository.git, "reset", "-q", "--hard", before)
    assert held(await lab.passes()) == []


async def test_history_that_removes_nothing_is_another_one_for_one_pass(lab: Lab) -> None:
    """`git commit --amend` of the newest commit, and later a removal."""
    await asyncio.to_thread(lab.repository.git, "commit", "-q", "--amend", "-m", "Better said")
    await lab.passes()
    await asyncio.to_thread(lab.repository.commit, "Remove", {"cluster.yaml": TWO["cluster.yaml"]})
    await lab.passes(2)
    assert lab.fake.runtime.apps.keys() == {"one", "two"}


async def test_a_shallow_clone_cannot_tell_and_holds_nothing_back(lab: Lab) -> None:
    """As pipelines make them."""
    await asyncio.to_thread(lab.repository.commit, "Remove", {"cluster.yaml": TWO["cluster.yaml"]})
    shallow = lab.folder / "shallow"
    await asyncio.to_thread(
        lab.repository.git, "clone", "-q", "--depth=1", f"file://{lab.repository.path}", str(shallow)
    )
    lab.world = replace(lab.world, source=GitSource(shallow, mirror_dir=lab.folder / "mirrors"))
    await lab.passes()
    assert lab.fake.runtime.apps.keys() == {"one", "two"}


async def test_a_commit_is_remembered_once(lab: Lab) -> None:
    memory = lab.fake.memory
    assert memory and memory.remembered.commit == lab.repository.head
    memory.calls.clear()
    await lab.passes(2)
    assert "write" not in memory.calls
