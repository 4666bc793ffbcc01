"""Who may have apps stopped, from the token to the worker: by one's own right, by an approval, and never by a push."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from bioengine_runtime.contract.cluster import ClusterSpec
from reconciler.adapters.reports import HyphaReports
from reconciler.board import Board
from reconciler.cli.keeper import Keeper
from reconciler.cli.place import Front, Place, opened
from reconciler.errors import Unreachable
from reconciler.observe import observe
from reconciler.planning.people import NOBODY, Anchor, Person
from reconciler.planning.steps import PlanOptions
from reconciler.ports import Hypha, World
from reconciler.reconcile import look
from tests.fakes import FakeMemory, FakeSecrets, FakeSource, FakeWorld, a_repository
from tests.reconciler.test_orders import FakeRunning, Lab

ANN = Person("ann-id", "ann@lab.example")
CI = Person("ci-id", "ci@lab.example")
MALLORY = Person("mallory-id", "mallory@elsewhere.example")


def policy(**said: Any) -> str:
    return f"policy: {json.dumps({'prune': True, 'removal_budget': '100%', **said})}\n"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """One and two run, and the newest commit names one alone; only ann may prune."""
    made = Lab(FakeWorld(FakeSource(a_repository("one", "two")), memory=FakeMemory()), tmp_path)
    assert made.run("apply", "--auto-approve").exit_code == 0
    made.fake.source.commit(a_repository("one", cluster=policy(pruners=["ann@lab.example"])))
    return made


def applied_by(lab: Lab, person: Person, *words: str) -> Any:
    lab.running.person = person
    return lab.run("apply", "--auto-approve", *words)


def plan_id(shown: str) -> str:
    return next(word for word in shown.split() if word.startswith("p-")).rstrip(".,;")


@pytest.mark.parametrize(("person", "stays"), [(ANN, False), (CI, True), (NOBODY, True)])
def test_sp_07_a_token_without_the_right_prunes_nothing(lab: Lab, person: Person, stays: bool) -> None:
    shown = applied_by(lab, person)
    assert shown.exit_code == 0 and ("two" in lab.fake.runtime.apps) is stays
    assert ("PruneNotPermitted" in shown.stderr) is stays


def test_sp_07_a_saved_plan_gives_its_right_to_nobody_else(lab: Lab, tmp_path: Path) -> None:
    lab.running.person = ANN
    file = str(tmp_path / "plan.json")
    assert "1 to stop" in lab.run("plan", "--out", file).stdout
    lab.fake.forget_calls()
    refused = applied_by(lab, CI, file)
    assert refused.exit_code == 3 and "step stop two is gone" in refused.stderr and not lab.fake.runtime.writes
    assert applied_by(lab, ANN, file).exit_code == 0 and "two" not in lab.fake.runtime.apps


def test_an_approval_by_who_may_lets_anybody_prune_that_plan(lab: Lab) -> None:
    waiting = plan_id(applied_by(lab, CI).stderr)
    for person in (MALLORY, ANN):
        assert "two" in lab.fake.runtime.apps
        lab.running.person = person
        assert lab.run("approve", waiting).exit_code == 0
        applied_by(lab, CI)
    assert "two" not in lab.fake.runtime.apps
    assert [order.by_id for order in lab.memory.remembered.orders] == ["mallory-id", "ann-id"]


def test_one_persons_second_approval_takes_the_place_of_the_first(lab: Lab) -> None:
    waiting = plan_id(applied_by(lab, CI).stderr)
    for _ in range(2):
        lab.run("approve", waiting)
    assert len(lab.memory.remembered.orders) == 1


@pytest.mark.parametrize("outside", [True, False])
def test_attack_a_push_that_names_its_author_prunes_nothing_when_rights_are_said_outside(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, outside: bool
) -> None:
    """It takes an app away, and names mallory approver and pruner, who approves it. Else, the attack works."""
    names = ["mallory-id", "mallory@elsewhere.example"]
    pushed = policy(apply="manual", approvers=names, pruners=names)
    lab.fake.source.commit(a_repository("one", cluster=pushed, one="    max_ongoing_requests: 3\n"))
    if outside:
        monkeypatch.setenv("RECONCILE_APPROVERS", "ann@lab.example")
        monkeypatch.setenv("RECONCILE_PRUNERS", "ann@lab.example , bob-id")
    lab.fake.forget_calls()
    waiting = plan_id(applied_by(lab, CI).stderr)
    lab.running.person = MALLORY
    lab.run("approve", waiting)
    shown = applied_by(lab, CI)
    if not outside:
        assert shown.exit_code == 0 and set(lab.fake.runtime.writes) == {"apply one", "remove two"}
        return
    assert shown.exit_code == 3 and "ApprovalRequired" in shown.stderr and "PruneNotPermitted" in shown.stderr
    assert "mallory-id (policy.approvers)" in shown.stderr and not lab.fake.runtime.writes
    applied_by(lab, MALLORY)
    assert "two" in lab.fake.runtime.apps, "nor by a token that may apply"


@pytest.mark.parametrize("said", ["", " , "])
def test_a_list_that_is_given_and_empty_is_nobody(lab: Lab, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """Caught: an empty variable taken for one that is not set, so that git said who may."""
    monkeypatch.setenv("RECONCILE_PRUNERS", said)
    applied_by(lab, ANN)
    assert "two" in lab.fake.runtime.apps
    applied_by(lab, ANN, "--pruners", "ann-id")
    assert "two" not in lab.fake.runtime.apps


async def test_attack_the_door_for_orders_opens_to_none_but_those_who_count() -> None:
    """Where Hypha is, and who may order there, is asked of a cluster.yaml that has the anchor's people already."""
    fake, asked = FakeWorld(FakeSource(a_repository(cluster=policy(approvers=["mallory-id"])))), list[ClusterSpec]()

    def hypha(cluster: ClusterSpec) -> Hypha:
        asked.append(cluster)
        return Hypha(fake.artifacts, fake.runtime)

    await look(World(fake.source, hypha, FakeSecrets(), anchor=Anchor(approvers=("ann-id",))), PlanOptions())
    assert [cluster.policy.approvers for cluster in asked] == [["ann-id"]]


async def test_the_door_for_orders_is_as_the_newest_commit_has_it(tmp_path: Path) -> None:
    anchor = Anchor(pruners=("ann-id",))
    place = Place(str(tmp_path), home_option=tmp_path, anchor=anchor)
    async with opened(place, writes=False, front=Front(Board())) as world:
        assert world.anchor == anchor
        for approver, other in (("ann-id", "ci-id"), ("ci-id", "ann-id")):
            said = {"name": "lab", "policy": {"approvers": [approver], "pruners": [other]}}
            reports = world.hypha(ClusterSpec.model_validate(said)).reports
            assert isinstance(reports, HyphaReports)
            methods = reports._service.methods()  # pyright: ignore[reportPrivateUsage]: else it takes a server
            for method, user, expected in (
                ("retry", approver, "takes no orders"),
                ("retry", other, "may not retry"),
                ("approve", other, "takes no orders"),
            ):
                with pytest.raises(Exception, match=expected):
                    await methods[method]("one", context={"user": {"id": user}})


class Silent(FakeRunning):
    async def me(self) -> Person:
        raise Unreachable("no answer")


@pytest.mark.parametrize(("running", "who"), [(FakeRunning(person=ANN), ANN), (Silent(), NOBODY), (None, NOBODY)])
async def test_not_to_know_who_we_are_hides_nothing_that_runs(running: FakeRunning | None, who: Person) -> None:
    fake = FakeWorld(FakeSource(a_repository()))
    seen = await observe(Hypha(fake.artifacts, fake.runtime, None, None, running))
    assert (seen.ourselves, seen.complete) == (who, True)


async def test_whom_git_gives_a_right_in_vain_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeWorld(FakeSource(a_repository(cluster=policy(pruners=["mallory-id\nevent=pass"]))))
    there = Hypha(fake.artifacts, fake.runtime)
    keeper = Keeper(
        World(fake.source, lambda _: there, FakeSecrets(), anchor=Anchor(pruners=("ann-id",))), asyncio.Event()
    )
    with caplog.at_level(logging.WARNING, "reconciler.cli.keeper"):
        for _ in range(2):
            await keeper.one_pass()
    (line,) = caplog.messages
    assert line == r"event=no_right said_in=cluster.yaml of='mallory-id\nevent=pass (policy.pruners)'"
