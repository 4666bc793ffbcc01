"""explain, trace, diff, wait, retry: what people ask when something is not as it should be."""

from __future__ import annotations

import asyncio
import json
import sys
from io import StringIO
from pathlib import Path

import pytest

from bioengine_runtime.contract.status import WorkerState
from reconciler.cli import asking
from reconciler.cli.asking import TIMED_OUT, wait
from reconciler.cli.commands import main
from reconciler.cli.place import Place
from reconciler.cli.show import Screen
from reconciler.errors import SourceUnusable, Unreachable
from tests.builders import a_node
from tests.fakes import FakeSource, FakeWorld, a_repository
from tests.reconciler.test_cli import applied, reconcile


@pytest.fixture
def fake() -> FakeWorld:
    return FakeWorld(FakeSource(a_repository("one", "two")))


@pytest.fixture
def running(fake: FakeWorld, tmp_path: Path) -> FakeWorld:
    return applied(fake, tmp_path)


def push(fake: FakeWorld, **files: str) -> None:
    fake.source.commit(files)


def changed_by_hand(running: FakeWorld) -> None:
    state = running.runtime.apps["one"]
    assert state.spec and state.provenance
    spec = state.spec.model_copy(update={"max_ongoing_requests": 50})
    running.runtime.apps["one"] = state.model_copy(
        update={
            "spec": spec,
            "digest": spec.digest(),
            "provenance": state.provenance.model_copy(update={"by": "anna@lab.example"}),
            "last_updated_at": 1_793_700_000.0,
        }
    )


def test_an_app_in_sync_has_a_short_story(running: FakeWorld) -> None:
    result = reconcile(running, "explain", "one")
    assert result.exit_code == 0
    assert "Synced, Healthy" in result.stdout and "cluster.yaml:3:3" in result.stdout
    assert result.stdout.rstrip().endswith("reconcile trace one")


def test_an_app_that_does_not_run_says_what_is_missing(fake: FakeWorld) -> None:
    result = reconcile(fake, "explain", "one", "-o", "json")
    told = json.loads(result.stdout)
    rows = {row["name"]: row["text"] for row in told["rows"]}
    assert (result.exit_code, told["ok"]) == (1, False)
    assert rows["runs"] == "nothing" and rows["next"] == "reconcile apply --target one"


def test_a_rejected_version_shows_its_reason_its_log_and_how_to_try_again(fake: FakeWorld, tmp_path: Path) -> None:
    fake.runtime.bad["one"] = "ValueError: no such model"
    reconcile(fake, "apply", "--auto-approve", home=tmp_path)
    told = reconcile(fake, "explain", "one").stdout
    assert "no such model" in told and "BadCommit" in told
    fake.runtime.bad.clear()
    result = reconcile(fake, "retry", "one", home=tmp_path)
    assert result.exit_code == 0 and "one  healthy" in result.stdout
    assert reconcile(fake, "explain", "one").exit_code == 0


def test_a_suspended_app_says_why_who_and_until_when(running: FakeWorld) -> None:
    said = "{reason: measuring, owner: anna, until: 2226-01-01T00:00:00+00:00}"
    change = f"    max_ongoing_requests: 3\n    suspend: {said}\n"
    push(running, **{"cluster.yaml": a_repository("one", "two", one=change)["cluster.yaml"]})
    for command in (("explain", "one"), ("plan",)):
        told = reconcile(running, *command).stdout
        assert "suspended: measuring (anna), until 2226-01-01 00:00 UTC" in told, told


def test_a_plan_that_waits_says_for_what_and_still_shows_its_steps(running: FakeWorld) -> None:
    change = a_repository("one", "two", cluster="policy: {apply: manual}\n", one="    max_ongoing_requests: 3\n")
    push(running, **{"cluster.yaml": change["cluster.yaml"]})
    told = reconcile(running, "plan").stdout
    assert "steps    update one" in told and "Waits (ApprovalRequired)" in told
    rows = json.loads(reconcile(running, "explain", "one", "-o", "json").stdout)["rows"]
    assert any(row["name"] == "waits" and "no approver approved" in row["text"] for row in rows)


def test_an_app_nobody_knows_is_an_error_with_a_guess(running: FakeWorld) -> None:
    for command in ("explain", "trace", "wait", "retry"):
        result = reconcile(running, command, "onee")
        assert result.exit_code == 1
        assert "no such app" in result.stderr and 'did you mean "one"?' in result.stderr


def test_a_trace_leads_from_the_commit_to_the_processes(running: FakeWorld) -> None:
    result = reconcile(running, "trace", "one", "-o", "json")
    rows = [(row["name"], row["text"]) for row in json.loads(result.stdout)["rows"]]
    assert [name for name, _ in rows][:5] == ["commit", "cluster.yaml", "folder", "artifact", "app"]
    assert all(text.startswith("✔") for _, text in rows[:5])
    assert result.exit_code == 0


def test_a_trace_shows_the_link_that_does_not_hold(running: FakeWorld) -> None:
    files = a_repository("one", "two")
    push(running, **{"apps/one/main.py": files["apps/one/main.py"] + "# changed\n"})
    result = reconcile(running, "trace", "one")
    assert result.exit_code == 1
    broken = [line for line in result.stdout.splitlines() if "✗" in line]
    assert any("artifact" in line for line in broken) and any("app" in line for line in broken)


def test_what_was_not_seen_is_no_link_that_holds(running: FakeWorld) -> None:
    running.artifacts.fail("list")
    result = reconcile(running, "trace", "one")
    assert result.exit_code == 1
    assert "?" in result.stdout and "did not answer" in result.stdout


def test_diff_exits_as_diff_does(running: FakeWorld) -> None:
    assert (reconcile(running, "diff").exit_code, reconcile(running, "diff").stdout) == (0, "")
    push(running, **{"cluster.yaml": a_repository("one", "two", one="    max_ongoing_requests: 3\n")["cluster.yaml"]})
    result = reconcile(running, "diff")
    assert result.exit_code == 1
    assert "~ max_ongoing_requests  as the code says → 3" in result.stdout and "two" not in result.stdout
    running.runtime.fail("observe")
    assert reconcile(running, "diff").exit_code == 2


@pytest.mark.parametrize("trouble", [SourceUnusable("the repository is gone"), RuntimeError("a mistake of ours")])
def test_trouble_is_no_difference(running: FakeWorld, trouble: Exception) -> None:
    """Caught: exit 1 for a repository that is not there, which `diff || apply` takes for a difference."""
    running.source.fail("fetch", trouble)
    assert reconcile(running, "diff").exit_code == 2


@pytest.mark.parametrize(("command", "code"), [("diff", 2), ("get", 1)])
def test_what_was_not_understood_is_no_difference_either(
    monkeypatch: pytest.MonkeyPatch, command: str, code: int
) -> None:
    for name, value in (("argv", ["reconcile", command, "--nope"]), ("stdout", StringIO()), ("stderr", StringIO())):
        monkeypatch.setattr(sys, name, value)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code


@pytest.mark.parametrize("command", [("get",), ("diff",), ("plan",), ("apply", "--auto-approve")])
def test_who_sees_nothing_is_told_why_and_what_to_look_at(
    running: FakeWorld, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Caught: a table of `Unknown` and nothing else; and `Nothing to do.` of an apply that could not look."""
    running.runtime.fail("observe", Unreachable("the worker: no answer", hint="Is it up?"))
    result = reconcile(running, *command, home=tmp_path)
    assert result.exit_code not in (0, None)
    assert "the worker: no answer. Is it up?" in result.output
    assert result.output.rstrip().endswith(f"reconcile doctor --home {tmp_path}")
    assert "Nothing to do" not in result.output


def test_an_app_that_nobody_could_see_is_not_to_be_asked_for_its_log(running: FakeWorld) -> None:
    running.runtime.fail("observe")
    rows = json.loads(reconcile(running, "explain", "one", "-o", "json").stdout)["rows"]
    assert rows[-1] == {"name": "next", "text": "reconcile doctor"}


def wait_for(running: FakeWorld, timeout_s: float) -> int:
    return asyncio.run(wait(Place(".", world=running.world), ("two",), Screen(no_color=True), timeout_s=timeout_s))


def test_wait_tells_the_mistakes_of_others_once(
    running: FakeWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(asking, "LOOK_EVERY_S", 0.05)
    files = a_repository("one", "two")
    broken = files["apps/one/manifest.yaml"].replace("deployments:", "deploymnets:")
    push(running, **{"apps/one/manifest.yaml": broken, "apps/two/main.py": files["apps/two/main.py"] + "# new\n"})
    assert wait_for(running, 0.2) == TIMED_OUT
    assert running.source.calls.count("fetch") > 1 and capsys.readouterr().err.count("1 error") == 1


def test_wait_says_why_it_could_not_look(running: FakeWorld, capsys: pytest.CaptureFixture[str]) -> None:
    """Caught: `Next: reconcile explain `, of no app."""
    running.source.fail("fetch", Unreachable("the repository: no answer", hint="Is the network up?"))
    assert wait_for(running, -1.0) == TIMED_OUT
    said = capsys.readouterr()
    assert "fix: Is the network up?" in said.err and said.out.rstrip().endswith("Next: reconcile doctor")


def test_wait_ends_when_all_is_well(running: FakeWorld) -> None:
    assert reconcile(running, "wait").exit_code == 0
    assert reconcile(running, "wait", "one").exit_code == 0


def test_wait_ends_when_waiting_is_in_vain(fake: FakeWorld, tmp_path: Path) -> None:
    fake.runtime.bad["one"] = "it raised"
    reconcile(fake, "apply", "--auto-approve", home=tmp_path)
    result = reconcile(fake, "wait", "--timeout", "600")
    assert result.exit_code == 1 and "reconcile explain one" in result.stdout


@pytest.mark.parametrize(
    ("change", "by_hand"),
    [
        pytest.param("    suspend: measuring\n    max_ongoing_requests: 3\n", False, id="Suspended"),
        pytest.param("    self_heal: detect-only\n", True, id="SelfHealDisabled"),
    ],
)
def test_wait_ends_when_a_person_is_to_change_something(running: FakeWorld, change: str, by_hand: bool) -> None:
    """Caught: a second list of reasons, which lacked these, so that it waited until its time was out."""
    push(running, **{"cluster.yaml": a_repository("one", "two", one=change)["cluster.yaml"]})
    if by_hand:
        changed_by_hand(running)
    assert reconcile(running, "wait", "--timeout", "1").exit_code == 1


def test_wait_ends_for_a_version_that_nobody_stored(running: FakeWorld) -> None:
    entry = "apps:\n  far: {artifact: ws/far, version: 1.0.0}\n"
    push(running, **{"cluster.yaml": a_repository("one")["cluster.yaml"].replace("apps:\n", entry)})
    assert reconcile(running, "wait", "far", "--timeout", "1").exit_code == 1


def test_wait_goes_on_while_others_may_leave_room(running: FakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    observed = running.runtime.observe

    async def full() -> WorkerState:
        return (await observed()).model_copy(update={"nodes": [a_node(CPU=1)]})

    monkeypatch.setattr(running.runtime, "observe", full)
    del running.runtime.apps["one"]
    main = a_repository("one")["apps/one/main.py"]
    push(running, **{"apps/one/main.py": main.replace('"num_cpus": 0', '"num_cpus": 2')})
    assert "InsufficientCapacity" in reconcile(running, "plan").stdout
    place = Place("lab", world=running.world)
    assert asyncio.run(wait(place, ("one",), Screen(no_color=True), timeout_s=-1.0)) == TIMED_OUT


def test_wait_ends_when_time_is_out(fake: FakeWorld) -> None:
    result = reconcile(fake, "wait", "one", "--timeout", "1")
    assert result.exit_code == 124 and "reconcile explain one" in result.stdout


def test_a_change_by_hand_says_who_and_when(running: FakeWorld) -> None:
    changed_by_hand(running)
    for command in (("explain", "one"), ("plan",)):
        told = reconcile(running, *command).stdout
        assert "changed by anna@lab.example, 2026-11-03 10:00 UTC" in told
