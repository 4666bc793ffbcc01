"""The commands as people and pipelines meet them: exit codes, stdout, and what is never printed."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text
from typer.testing import CliRunner

from reconciler.cli.commands import app
from reconciler.cli.place import alone
from reconciler.cli.show import Screen
from reconciler.cli.verbs import show_settled
from reconciler.ports import StepFailed
from reconciler.settle import Settled, Verdict
from tests.fakes import FakeSecrets, FakeSource, FakeWorld, a_repository, an_app_folder

CANARY = "xK9-canary-value-77"
SECRET = "    env: {Main: {PASS: {env: CI_PASS}}}\n"


def reconcile(fake: FakeWorld | None, *words: str, home: Path | None = None, answer: str | None = None) -> Any:
    at = ["--home", str(home)] if home else []
    return CliRunner().invoke(app, [*words, *at], obj=fake.world if fake else None, input=answer)


@pytest.fixture
def fake() -> FakeWorld:
    return FakeWorld(FakeSource(a_repository("one", "two")))


def applied(fake: FakeWorld, home: Path) -> FakeWorld:
    assert reconcile(fake, "apply", "--auto-approve", home=home).exit_code == 0
    fake.forget_calls()
    return fake


def test_it_says_which_release_it_is() -> None:
    result = reconcile(None, "--version")
    assert (result.exit_code, result.stdout.split()) == (0, ["reconcile", version("bioengine-gitops")])


# ── plan ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_plan_shows_what_and_why_and_the_next_command(fake: FakeWorld) -> None:
    result = reconcile(fake, "plan", "lab", "--ref", "main")
    assert result.exit_code == 0
    assert "Plan: 2 to create" in result.stdout and "cluster.yaml:3:3 asks for it" in result.stdout
    assert result.stdout.rstrip().endswith("reconcile apply lab --ref main")
    assert not fake.writes


def test_the_detailed_exit_code_tells_changes_from_none(fake: FakeWorld, tmp_path: Path) -> None:
    assert reconcile(fake, "plan", "--detailed-exitcode").exit_code == 2
    applied(fake, tmp_path)
    assert reconcile(fake, "plan", "--detailed-exitcode").exit_code == 0


@pytest.mark.parametrize("command", ["get", "plan", "adopt"])
def test_an_address_with_a_password_is_neither_taken_nor_told(fake: FakeWorld, command: str) -> None:
    """Caught: the next command repeated it, in the log of a pipeline."""
    result = reconcile(fake, command, "--server-url", "https://me:open-sesame@hypha")
    assert result.exit_code != 0 and "HYPHA_TOKEN" in result.stderr and "open-sesame" not in result.output


def test_without_colours_a_terminal_gets_no_escape_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caught: rich's no_color keeps bold and dim."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # to rich, a terminal
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(no_color=True)
    with screen.err.capture() as shown:
        screen.note(Text("all well", "bold red"), style="dim")
    assert screen.err.is_terminal and shown.get() == "all well\n"


def test_plan_as_json_is_the_same_each_time(fake: FakeWorld) -> None:
    first, second = (json.loads(reconcile(fake, "plan", "-o", "json").stdout) for _ in range(2))
    of_its_time = {"created_at": "", "digest": ""}
    assert first | of_its_time == second | of_its_time
    assert first["format_version"].startswith("1.") and [step["kind"] for step in first["steps"]]


def test_plan_as_markdown_can_be_found_again(fake: FakeWorld) -> None:
    assert "<!-- reconcile:lab -->" in reconcile(fake, "plan", "-o", "markdown").stdout


def test_a_broken_app_is_shown_like_a_compiler_error_and_the_rest_is_planned(fake: FakeWorld) -> None:
    broken = fake.source._files["apps/one/manifest.yaml"].replace("deployments:", "deploymnets:")
    fake.source.commit({"apps/one/manifest.yaml": broken})
    result = reconcile(fake, "plan")
    assert result.exit_code == 1
    assert "Error:" in result.stderr and "--> apps/one/manifest.yaml" in result.stderr
    assert "InvalidDeclaration" in result.stdout and "two" in result.stdout


def test_all_problems_of_cluster_yaml_are_shown_at_once(fake: FakeWorld) -> None:
    fake.source.commit({"cluster.yaml": "name: lab\nreplicsa: 2\napps:\n  One!:\n    source: apps/one\n"})
    result = reconcile(fake, "plan")
    assert result.exit_code == 1 and not result.stdout
    assert result.stderr.count("--> cluster.yaml") == 2 and "2 errors" in result.stderr


def test_what_was_not_seen_is_an_error_and_plans_nothing(fake: FakeWorld) -> None:
    fake.runtime.fail("observe")
    result = reconcile(fake, "plan", "--detailed-exitcode")
    assert result.exit_code == 1 and "LiveStateUnknown" in result.stdout


def test_a_target_that_does_not_exist_is_named_with_a_guess(fake: FakeWorld) -> None:
    result = reconcile(fake, "plan", "--target", "onee")
    assert result.exit_code == 1 and 'did you mean "one"?' in result.stderr


def test_a_target_holds_the_others(fake: FakeWorld, tmp_path: Path) -> None:
    assert reconcile(fake, "apply", "--target", "one", "--auto-approve", home=tmp_path).exit_code == 0
    assert fake.runtime.apps.keys() == {"one"}


# ── apply ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_apply_does_it_and_says_what_was_done(fake: FakeWorld, tmp_path: Path) -> None:
    result = reconcile(fake, "apply", "lab", "--auto-approve", "--wait", home=tmp_path)
    assert result.exit_code == 0 and fake.runtime.apps.keys() == {"one", "two"}
    assert "Applied 6 of 6 steps." in result.stdout and "one  healthy" in result.stdout
    assert f"Next: reconcile get lab --home {tmp_path}" in result.stdout


@pytest.mark.parametrize("inside", ["", "x"])
def test_a_home_that_is_a_file_is_named_and_is_no_mistake_of_ours(fake: FakeWorld, tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").write_text("")
    result = reconcile(fake, "apply", "--auto-approve", home=tmp_path / "file" / inside)
    assert result.exit_code == 1 and f"Error: {tmp_path}/file" in result.stderr and "--home" in result.stderr
    assert "Traceback" not in result.stderr and not fake.writes


def test_apply_without_a_terminal_needs_a_word(fake: FakeWorld, tmp_path: Path) -> None:
    result = reconcile(fake, "apply", home=tmp_path)
    assert result.exit_code == 3 and not fake.writes and "--auto-approve" in result.stderr


def test_a_failed_app_makes_exit_1_and_the_others_are_done(fake: FakeWorld, tmp_path: Path) -> None:
    fake.runtime.bad_environments["one"] = "no solution found: torch==99"
    result = reconcile(fake, "apply", "--auto-approve", home=tmp_path)
    assert result.exit_code == 1 and fake.runtime.apps.keys() == {"two"}
    assert "torch==99" in result.stdout and "1 failed, 1 skipped" in result.stdout


def test_waiting_shows_the_log_lines_of_what_did_not_come_up(fake: FakeWorld, tmp_path: Path) -> None:
    fake.runtime.bad["one"] = "ImportError: torch"
    result = reconcile(fake, "apply", "--auto-approve", "--wait", "--timeout", "2", home=tmp_path)
    assert result.exit_code == 1
    assert "one was rejected: ImportError: torch" in result.stderr and "Traceback" in result.stderr


def test_what_authors_and_builds_say_cannot_drive_a_terminal(fake: FakeWorld, tmp_path: Path) -> None:
    """Caught: a rejection could set the terminal's title, and an index of packages could clear its screen."""
    fake.runtime.bad["one"] = "boom \x1b]0;owned\x07"
    fake.runtime.bad_environments["two"] = "no such \x1b[2Jpackage"
    result = reconcile(fake, "apply", "--auto-approve", "--wait", "--timeout", "2", home=tmp_path)
    assert "boom" in result.stderr and "package" in result.output and "\x1b" not in result.output


def test_what_an_app_logged_cannot_drive_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_settled([Settled("one", Verdict.REJECTED, "boom", ("  \x1b]52;c;ZXZpbA==\x07 line",))], Screen())
    shown = capsys.readouterr().err
    assert "]52;c;ZXZpbA==� line" in shown and "\x1b" not in shown


def test_apply_as_json_holds_outcomes_and_report(fake: FakeWorld, tmp_path: Path) -> None:
    result = reconcile(fake, "apply", "--auto-approve", "--wait", "-o", "json", home=tmp_path)
    document = json.loads(result.stdout)
    assert {outcome["result"] for outcome in document["outcomes"]} == {"done"}
    assert {item["verdict"] for item in document["apps"]} == {"healthy"} and document["report"]["complete"]


def test_a_second_apply_finds_nothing_to_do(fake: FakeWorld, tmp_path: Path) -> None:
    result = reconcile(applied(fake, tmp_path), "apply", "--auto-approve", home=tmp_path)
    assert result.exit_code == 0 and "Nothing to do." in result.stdout and not fake.writes


def test_rx_01_a_second_reconciler_is_told_who_is_at_work(fake: FakeWorld, tmp_path: Path) -> None:
    with alone(tmp_path):
        result = reconcile(fake, "apply", "--auto-approve", home=tmp_path)
    assert result.exit_code == 75 and "process" in result.stderr and not fake.writes


# ── saved plans ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_saved_plan_is_applied_without_asking(fake: FakeWorld, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    saved = reconcile(fake, "plan", "--out", str(file))
    assert saved.stdout.rstrip().endswith(f"reconcile apply {file}")
    assert reconcile(fake, "apply", str(file), home=tmp_path).exit_code == 0
    assert fake.runtime.apps.keys() == {"one", "two"}


@pytest.mark.parametrize("moved", ["source", "live", "file"])
def test_a_saved_plan_is_refused_when_something_moved(fake: FakeWorld, tmp_path: Path, moved: str) -> None:
    applied(fake, tmp_path)
    fake.source.commit(an_app_folder("one", says="2"))
    file = tmp_path / "plan.json"
    reconcile(fake, "plan", "--out", str(file))
    match moved:
        case "source":
            fake.source.commit(an_app_folder("two", says="3"))
        case "live":
            fake.runtime.apps["one"] = fake.runtime.apps["one"].model_copy(update={"digest": "0" * 64})
        case _:
            file.write_text(file.read_text().replace("apps/one", "apps/two"))
    fake.forget_calls()
    result = reconcile(fake, "apply", str(file), home=tmp_path)
    assert result.exit_code == 3 and not fake.writes
    assert "no longer fits" in result.stderr and "reconcile plan" in result.stderr


def test_a_file_that_is_no_plan_is_refused(fake: FakeWorld, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text("{}")
    assert reconcile(fake, "apply", str(file), home=tmp_path).exit_code == 3


# ── the rest ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_validate_asks_nobody_but_git(fake: FakeWorld) -> None:
    result = reconcile(fake, "validate")
    assert result.exit_code == 0 and "cluster.yaml and 2 apps are valid" in result.stdout
    assert not fake.runtime.calls and not fake.artifacts.calls


def test_validate_names_folders_that_nobody_uses(fake: FakeWorld) -> None:
    fake.source.commit(an_app_folder("spare"))
    assert "apps/spare: no app in cluster.yaml uses it" in reconcile(fake, "validate").stdout


def test_get_lists_what_runs(fake: FakeWorld, tmp_path: Path) -> None:
    applied(fake, tmp_path)
    fake.source.commit(an_app_folder("one", says="2"))
    rows = {row["id"]: row for row in json.loads(reconcile(fake, "get", "-o", "json").stdout)["apps"]}
    assert rows["one"]["sync"] == "OutOfSync" and rows["two"]["sync"] == "Synced"
    assert rows["two"]["health"] == "Healthy" and rows["two"]["service_id"] == "ws/gateway:two"
    table = reconcile(fake, "get").stdout
    assert "SYNC" in table and "OutOfSync" in table


def test_get_says_so_when_it_does_not_know(fake: FakeWorld) -> None:
    fake.runtime.fail("observe")
    result = reconcile(fake, "get", "-o", "json")
    assert result.exit_code == 1 and json.loads(result.stdout)["complete"] is False


def test_schema_prints_what_editors_need() -> None:
    names = reconcile(None, "schema").stdout.split()
    assert names and json.loads(reconcile(None, "schema", names[0]).stdout)["$schema"]


def test_ss_01_no_command_prints_a_secret(tmp_path: Path) -> None:
    fake = FakeWorld(FakeSource(a_repository("one", one=SECRET)), secrets=FakeSecrets({"CI_PASS": CANARY}))
    plan_file = tmp_path / "plan.json"
    results = [reconcile(fake, "plan", "-o", form) for form in ("text", "json", "markdown")]
    results.append(reconcile(fake, "plan", "--out", str(plan_file)))
    fake.runtime.fail("apply one", StepFailed(f"login with {CANARY} failed"))
    results.append(reconcile(fake, "apply", "--auto-approve", home=tmp_path))
    results.append(reconcile(fake, "apply", "--auto-approve", "-o", "json", home=tmp_path))
    fake.runtime.heal()
    results.append(reconcile(fake, "apply", "--auto-approve", "--wait", "--verbose", home=tmp_path))
    results += [reconcile(fake, "get"), reconcile(fake, "get", "-o", "json")]
    told = "".join(result.output + repr(result.exception) for result in results) + plan_file.read_text()
    assert fake.runtime.secrets_seen["one"] == {"Main": {"PASS": CANARY}}
    assert CANARY not in told and CANARY[::-1] not in told


def test_ss_02_the_traceback_of_a_bug_is_masked(tmp_path: Path) -> None:
    fake = FakeWorld(FakeSource(a_repository("one", one=SECRET)), secrets=FakeSecrets({"CI_PASS": CANARY}))
    fake.artifacts.fail("list", RuntimeError(f"unexpected answer: {CANARY}"))
    result = reconcile(fake, "apply", "--auto-approve", home=tmp_path)
    assert result.exit_code == 1 and "event=bug" in result.stderr and "RuntimeError" in result.stderr
    assert CANARY not in result.output


def test_help_and_plan_do_not_load_what_they_do_not_need() -> None:
    program = (
        "import sys; from reconciler.cli import main; import reconciler.cli.verbs\n"
        "print(sorted({'ray', 'hypha_rpc', 'git', 'watchfiles', 'bioengine_runtime.local'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_usage_error_is_no_plan_with_changes() -> None:
    program = "import sys; from reconciler.cli import main; sys.argv = ['reconcile', 'plan', '--nope']; main()"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 1 and "--nope" in found.stderr


@pytest.mark.parametrize("command", ["plan", "apply", "run", "up", "validate", "get", "schema"])
def test_every_command_explains_itself_with_examples(command: str) -> None:
    result = reconcile(None, command, "--help")
    assert result.exit_code == 0 and "Examples:" in result.stdout and f"reconcile {command}" in result.stdout
