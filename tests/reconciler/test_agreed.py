"""`apply` does what was shown and agreed to: at one commit, behind its gate, and no more, however long it waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.status import Provenance
from reconciler.adapters.git import GitSource
from reconciler.planning.agreed import aims
from reconciler.planning.memory import Order, OrderKind
from reconciler.planning.source import SourceTree
from reconciler.planning.steps import PlanOptions, Reason
from reconciler.ports import SecretValues
from reconciler.reconcile import carry_out, look
from reconciler.settle import Waited, reconcile_until_settled
from tests.builders import an_approval
from tests.fakes import URL, FakeMemory, FakeSource, FakeWorld, a_repository, an_app_folder
from tests.reconciler.git_world import Repository
from tests.reconciler.test_cli import reconcile

MANUAL = "policy: {apply: manual, approvers: [boss@x.example]}\n"
IN_THREE_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[(datetime.now(UTC).weekday() + 3) % 7]
WINDOW = f"{{days: [{IN_THREE_DAYS}], start: '10:00', end: '11:00'}}"
CLOSED = f"policy: {{approvers: [boss@x.example], windows: [{WINDOW}]}}\n"
TWO = {"two": "    depends_on: [one]\n"}


def a_world(cluster: str = "") -> FakeWorld:
    """`two` is begun when `one` is up: by a later pass."""
    return FakeWorld(FakeSource(a_repository("one", "two", cluster=cluster, **TWO)), memory=FakeMemory())


def after_apply(fake: FakeWorld, app_id: str, then: Callable[[], object]) -> None:
    """Something happens as soon as the worker has accepted this app for the first time."""
    real = fake.runtime.apply
    todo = [then]

    async def apply(spec: AppSpec, secrets: SecretValues, provenance: Provenance, *, expected: str | None) -> None:
        await real(spec, secrets, provenance, expected=expected)
        if spec.app_id == app_id and todo:
            todo.pop()()

    fake.runtime.apply = apply  # pyright: ignore[reportAttributeAccessIssue]


def push(fake: FakeWorld) -> str:
    return fake.source.commit({**an_app_folder("one", says="2"), **an_app_folder("two", says="2")})


def saved(fake: FakeWorld, folder: Path, *words: str) -> Path:
    file = folder / "plan.json"
    assert reconcile(fake, "plan", *words, "--out", str(file)).exit_code == 0
    return file


def order_is(fake: FakeWorld, *orders: Order) -> None:
    assert fake.memory
    fake.memory.remembered = replace(fake.memory.remembered, orders=orders)


def approve(fake: FakeWorld) -> None:
    """Whatever the plan now shows."""
    seen = asyncio.run(look(fake.world, PlanOptions()))
    order_is(fake, an_approval(seen.plan, seen.desired, seen.live, "boss@x.example", by_id="boss-id"))


def commits(fake: FakeWorld) -> dict[str, str]:
    return {app_id: app.provenance.commit for app_id, app in fake.runtime.apps.items() if app.provenance}


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Somebody sits there; the answers given."""
    said: list[str] = []
    monkeypatch.setattr("reconciler.cli.verbs._somebody_is_there", lambda: True)
    monkeypatch.setattr("rich.console.Console.input", lambda *_, **__: said.append("yes") or "yes")
    yield said


# ── the commit ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("of", ["repository", "saved"])
def test_what_is_pushed_while_it_waits_is_not_taken_up(tmp_path: Path, of: str) -> None:
    fake = a_world()
    shown = fake.source.head
    words = [str(saved(fake, tmp_path))] if of == "saved" else ["lab", "--auto-approve"]
    after_apply(fake, "one", lambda: push(fake))
    result = reconcile(fake, "apply", *words, "--wait", home=tmp_path)
    assert result.exit_code == 0, result.output
    assert fake.source.head != shown and commits(fake) == {"one": shown, "two": shown}


def test_the_outcomes_of_all_passes_are_told(tmp_path: Path) -> None:
    fake = a_world()
    result = reconcile(fake, "apply", "--auto-approve", "--wait", home=tmp_path)
    assert "deploy two  ✔" in result.stdout and "Applied 6 of 6 steps." in result.stdout


@pytest.mark.parametrize(("form", "last"), [("json", "outcomes"), ("jsonl", "summary")])
def test_programs_are_told_the_outcomes_of_all_passes(tmp_path: Path, form: str, last: str) -> None:
    fake = a_world()
    result = reconcile(fake, "apply", "--auto-approve", "--wait", "-o", form, home=tmp_path)
    if last == "outcomes":
        document = json.loads(result.stdout)
        assert "deploy two" in {outcome["address"] for outcome in document["outcomes"]}
        assert {app["sync"] for app in document["report"]["apps"]} == {"Synced"}
    else:
        assert json.loads(result.stdout.splitlines()[-1])["done"] == 6


def test_what_fails_in_a_later_pass_is_a_failure(tmp_path: Path) -> None:
    fake = a_world()
    after_apply(fake, "one", lambda: fake.runtime.fail("apply two"))
    result = reconcile(fake, "apply", "--auto-approve", "--wait", home=tmp_path)
    assert result.exit_code == 1 and "1 failed" in result.stdout


# ── the plan ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def waited(fake: FakeWorld, *, approved: bool = True) -> Waited:
    seen = await look(fake.world, PlanOptions())
    done = await carry_out(fake.world, seen, approved=approved, one_wave=True)
    agreed = aims(seen.plan, seen.desired)
    return await reconcile_until_settled(
        fake.world,
        PlanOptions(),
        done,
        timeout_s=5,
        tell=lambda _: None,
        approved=approved,
        agreed=agreed,
        every_s=0.01,
    )


async def test_what_comes_up_meanwhile_is_held_and_told_with_what_needs_it() -> None:
    """`two` was suspended when the plan was shown, and `three` waited for it: neither is begun."""
    files = a_repository("one", "two", "three", three="    depends_on: [two]\n")
    fake = FakeWorld(FakeSource(files), memory=FakeMemory())
    order_is(fake, Order(OrderKind.SUSPEND, "two", "boss@x.example", 0.0, "measuring"))
    after_apply(fake, "one", lambda: order_is(fake))
    end = await waited(fake)
    assert fake.runtime.apps.keys() == {"one"} and "prepare two" not in fake.runtime.calls
    assert not end.ok and end.left == tuple(
        f"{app_id}: it came up after the plan that was agreed to" for app_id in ("three", "two")
    )
    (held, _) = (held for held in end.last.look.plan.held if held.reason is Reason.APPROVAL_REQUIRED)
    assert (held.app_id, held.action.value, held.fix) == ("three", "create", "reconcile apply")


async def test_another_version_of_an_agreed_app_is_not_agreed() -> None:
    """Also when the source moves on: the rule does not lean on the source alone."""
    fake = a_world()
    shown = fake.source.head
    after_apply(fake, "one", lambda: push(fake))
    end = await waited(fake)
    assert commits(fake) == {"one": shown} and len(end.left) == 2


async def test_who_follows_the_branch_takes_up_what_is_pushed() -> None:
    fake = a_world()
    seen = await look(fake.world, PlanOptions())
    after_apply(fake, "one", lambda: push(fake))
    done = await carry_out(fake.world, seen, one_wave=True)
    end = await reconcile_until_settled(fake.world, PlanOptions(), done, timeout_s=5, tell=lambda _: None, every_s=0.01)
    assert end.ok and set(commits(fake).values()) == {fake.source.head}


# ── the gate ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cluster", [MANUAL, CLOSED], ids=["manual", "closed"])
@pytest.mark.parametrize("flags", [(), ("--auto-approve",), ("--wait",)])
def test_a_saved_plan_opens_no_gate(tmp_path: Path, cluster: str, flags: tuple[str, ...]) -> None:
    fake = a_world(cluster)
    file = saved(fake, tmp_path)
    fake.forget_calls()
    result = reconcile(fake, "apply", str(file), *flags, home=tmp_path)
    assert result.exit_code == 3 and not fake.writes
    assert f"reconcile approve {json.loads(file.read_text())['id']}" in result.stderr


@pytest.mark.parametrize("cluster", [MANUAL, CLOSED], ids=["manual", "closed"])
def test_an_approved_one_goes_through_it_with_all_that_waits(tmp_path: Path, cluster: str) -> None:
    fake = a_world(cluster)
    file = saved(fake, tmp_path)
    approve(fake)
    result = reconcile(fake, "apply", str(file), "--wait", home=tmp_path)
    assert result.exit_code == 0, result.output
    assert fake.runtime.apps.keys() == {"one", "two"}


def test_an_approval_of_another_plan_opens_nothing(tmp_path: Path) -> None:
    fake = a_world(MANUAL)
    approve(fake)
    push(fake)
    assert reconcile(fake, "apply", str(saved(fake, tmp_path)), home=tmp_path).exit_code == 3


def test_a_person_at_a_terminal_is_shown_it_and_asked(tmp_path: Path, at_a_terminal: list[str]) -> None:
    fake = a_world(MANUAL)
    file = saved(fake, tmp_path)
    result = reconcile(fake, "apply", str(file), "--wait", home=tmp_path)
    assert result.exit_code == 0 and at_a_terminal == ["yes"] and "Plan: 2 to create" in result.stderr
    assert fake.runtime.apps.keys() == {"one", "two"}


def test_where_there_is_no_gate_nobody_is_asked(tmp_path: Path, at_a_terminal: list[str]) -> None:
    fake = a_world()
    assert reconcile(fake, "apply", str(saved(fake, tmp_path)), home=tmp_path).exit_code == 0
    assert not at_a_terminal


def test_a_window_that_closes_meanwhile_stops_what_a_flag_began(tmp_path: Path, monkeypatch: Any) -> None:
    """The rest is told as not done, and the exit code says so."""
    fake = a_world(CLOSED)
    shut: list[bool] = []
    monkeypatch.setattr("reconciler.planning.gate.is_open", lambda *_: not shut)
    after_apply(fake, "one", lambda: shut.append(True))
    result = reconcile(fake, "apply", "--auto-approve", "--wait", home=tmp_path)
    assert result.exit_code == 1 and fake.runtime.apps.keys() == {"one"}
    assert "not done: no maintenance window is open" in result.stderr


# ── where from ─────────────────────────────────────────────────────────────────────────────────────────────────────


class ElsewhereSource(FakeSource):
    """A cluster file of another name, in a folder of the repository."""

    async def fetch(self) -> SourceTree:
        tree = await super().fetch()
        return replace(tree, revision=replace(tree.revision, path="deploy", file="staging.yaml"), name="staging.yaml")


def test_a_saved_plan_knows_its_folder_and_its_cluster_file(tmp_path: Path) -> None:
    fake = FakeWorld(ElsewhereSource(a_repository("one")), memory=FakeMemory())
    result = reconcile(fake, "apply", str(saved(fake, tmp_path)), home=tmp_path)
    assert result.exit_code == 0, result.output
    assert f"{URL} --ref main --path deploy --cluster staging.yaml" in result.stdout


@pytest.mark.parametrize("worktree", [False, True])
async def test_git_says_of_which_folder_and_cluster_file_a_commit_was_read(tmp_path: Path, worktree: bool) -> None:
    here = Repository(tmp_path / "lab", {"deploy/staging.yaml": "name: lab\napps: {}\n"})
    source = GitSource(here.path, path="deploy", cluster="staging.yaml", mirror_dir=tmp_path / "m", worktree=worktree)
    revision = (await source.fetch()).revision
    assert (revision.path, revision.file) == ("deploy", "staging.yaml")


def test_validate_names_the_file_that_it_read() -> None:
    fake = FakeWorld(ElsewhereSource(a_repository("one")))
    fake.source.commit(an_app_folder("spare"))
    result = reconcile(fake, "validate", "--cluster", "staging.yaml")
    assert "staging.yaml and 1 app are valid" in result.stdout and "no app in staging.yaml uses it" in result.stdout


def test_the_next_command_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    fake = a_world()
    shown = reconcile(fake, "plan", "sp ace", "--path", "a b").stdout
    assert shown.rstrip().endswith("reconcile apply 'sp ace' --path 'a b'")
    file = tmp_path / "my plan.json"
    shown = reconcile(fake, "plan", "sp ace", "--path", "a b", "--server-url", "https://h.example", "--out", str(file))
    assert shown.stdout.rstrip().endswith(f"reconcile apply '{file}' --server-url https://h.example")


def test_a_plan_that_cannot_be_saved_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    result = reconcile(a_world(), "plan", "--out", str(tmp_path / "nowhere" / "plan.json"))
    assert result.exit_code == 1 and "event=bug" not in result.stderr
    assert "the plan was not saved: No such file or directory" in result.stderr and "fix:" in result.stderr
