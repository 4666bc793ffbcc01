"""`reconcile plan --since REV`: of two commits of a real repository, and of nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reconciler.cli.commands import app
from tests.fakes import a_repository, an_app_folder
from tests.reconciler.git_world import Repository

CANARY = "xK9-canary-value-77"
PRUNE = "policy: {prune: true, removal_budget: 100%}\n"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """main has the apps one and two; the branch work, which is checked out, edits one and adds three."""
    repository = Repository(tmp_path_factory.mktemp("template") / "lab", a_repository("one", "two", cluster=PRUNE))
    repository.git("checkout", "-q", "-b", "work")
    repository.commit(
        "Say more", {**a_repository("one", "two", "three", cluster=PRUNE), **an_app_folder("one", says="more")}
    )
    return repository


@pytest.fixture
def lab(template: Repository, tmp_path: Path) -> Repository:
    return Repository.copy(template.path, tmp_path / "lab")


def since(repository: Repository, rev: str, *words: str) -> Any:
    return CliRunner().invoke(app, ["plan", str(repository.path), "--since", rev, *words])


def planned(repository: Repository, rev: str, *words: str) -> dict[str, Any]:
    return json.loads(since(repository, rev, "-o", "json", *words).stdout)


def steps_of(document: dict[str, Any]) -> list[str]:
    kinds = ("deploy_app", "update_app", "stop_app")
    return sorted(step["address"] for step in document["steps"] if step["kind"] in kinds)


def test_it_shows_what_the_branch_would_change(lab: Repository) -> None:
    result = since(lab, "main")
    assert result.exit_code == 0, result.output
    assert "NOT ASKED: this is an offline plan" in result.stdout
    assert "Offline plan: 1 to create, 1 to update, 0 to stop." in result.stdout
    assert result.stdout.rstrip().endswith(f"reconcile plan {lab.path}")
    assert steps_of(planned(lab, "main")) == ["deploy three", "update one"]
    assert steps_of(planned(lab, "work", "--ref", "main")) == ["stop three", "update one"]


@pytest.mark.parametrize("form", ["text", "json", "jsonl", "markdown"])
def test_every_form_says_that_it_is_offline(lab: Repository, form: str) -> None:
    result = since(lab, "main", "-o", form)
    assert result.exit_code == 0 and "ffline plan" in result.stdout
    assert lab.git("rev-parse", "main")[:7] in result.stdout


def test_the_exit_code_is_that_of_any_plan(lab: Repository) -> None:
    assert since(lab, "main", "--detailed-exitcode").exit_code == 2
    assert since(lab, "HEAD", "--detailed-exitcode").exit_code == 0
    broken = an_app_folder("two")["apps/two/manifest.yaml"].replace("deployments:", "deploymnets:")
    lab.commit("Break two", {"apps/two/manifest.yaml": broken})
    result = since(lab, "main", "--detailed-exitcode")
    assert result.exit_code == 1 and "--> apps/two/manifest.yaml" in result.stderr
    assert "InvalidDeclaration" in result.stdout and "Offline plan: 1 to create, 1 to update" in result.stdout


def test_uncommitted_files_can_be_compared(lab: Repository) -> None:
    lab.write(an_app_folder("two", says="and more"))
    assert steps_of(planned(lab, "HEAD", "--worktree")) == ["update two"]


def test_a_target_is_looked_for_in_both_commits(lab: Repository) -> None:
    assert steps_of(planned(lab, "main", "--target", "three")) == ["deploy three"]
    assert steps_of(planned(lab, "work", "--ref", "main", "--target", "three")) == ["stop three"]
    wrong = since(lab, "main", "--target", "thre")
    assert wrong.exit_code == 1 and "in neither commit" in wrong.stderr and 'did you mean "three"?' in wrong.stderr


def test_the_branch_of_a_remote_is_found_by_the_name_git_shows(lab: Repository, tmp_path: Path) -> None:
    clone = Repository(tmp_path / "clone", {})
    clone.git("remote", "add", "upstream", str(lab.path))
    clone.git("fetch", "-q", "upstream")
    clone.git("checkout", "-q", "work")
    assert steps_of(planned(clone, "upstream/main")) == ["deploy three", "update one"]


def test_a_shallow_clone_is_enough_when_it_has_both_commits(lab: Repository, tmp_path: Path) -> None:
    """As a pipeline has it: the merge of the request, and its parents."""
    base = lab.git("rev-parse", "main")
    lab.git("checkout", "-q", "main")
    lab.commit("Meanwhile", {"README.md": "hello\n"})
    lab.git("merge", "-q", "--no-edit", "work")
    tip = lab.git("rev-parse", "HEAD^1")
    clone = Repository(tmp_path / "clone", {})
    clone.git("fetch", "-q", "--depth=2", f"file://{lab.path}", "main")
    clone.git("checkout", "-q", "--detach", "FETCH_HEAD")
    assert clone.git("rev-parse", "HEAD^1") == tip
    assert steps_of(planned(clone, tip)) == ["deploy three", "update one"]
    assert f"everything runs as sha1:{tip[:7]} " in since(clone, tip).stdout
    missing = since(clone, base)
    assert missing.exit_code == 1 and "has no branch, tag or commit" in missing.stderr and "shallow" in missing.stderr


@pytest.mark.parametrize("rev", ["HEAD~1", "nowhere", "--upload-pack=x", ""])
def test_what_is_no_commit_is_refused(lab: Repository, rev: str) -> None:
    result = CliRunner().invoke(app, ["plan", str(lab.path), f"--since={rev}"])
    assert result.exit_code == 1 and not result.stdout and f"--since {rev}:" in result.stderr


def test_a_commit_that_says_nothing_clear_is_nothing_to_compare_with(lab: Repository) -> None:
    """Also the way round: what is wrong with the newer one is shown, line by line. Caught: the older one's mistakes
    shown as if they were those of the files here."""
    good = lab.head
    lab.commit("Break all", {"cluster.yaml": "name: lab\nreplicsa: 2\napps: {}\n"})
    bad = lab.head
    assert "--> cluster.yaml:2" in since(lab, good).stderr
    result = since(lab, bad, "--ref", good)
    assert result.exit_code == 1 and not result.stdout and "--> cluster.yaml" not in result.stderr
    assert f"--since {bad}: cluster.yaml is invalid in it: 1 problem" in result.stderr
    assert f"reconcile validate {lab.path} --ref {bad}" in result.stderr


def test_it_is_not_saved_and_not_applied(lab: Repository, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    result = since(lab, "main", "--out", str(file))
    assert result.exit_code != 0 and not file.exists() and "cannot be applied" in result.output
    file.write_text(since(lab, "main", "-o", "json").stdout)
    refused = CliRunner().invoke(app, ["apply", str(file), "--home", str(tmp_path / "home")])
    assert refused.exit_code == 3 and "offline plan" in refused.stderr


WATCHED = """
import json, sys
seen = []
def hook(event, arguments):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        seen.append(event)
    elif event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.system"):
        seen.append(f"{event} {arguments[0] if arguments else ''}")
    elif event == "open":
        seen.append(f"open {arguments[0]}")
    elif event == "exec":
        seen.append(f"exec {arguments[0].co_filename}")
sys.addaudithook(hook)
from reconciler.cli import main
sys.argv = ["reconcile", *sys.argv[1:]]
try:
    main()
finally:
    print(json.dumps(seen), file=sys.stderr)
"""


def test_sp_01_an_offline_plan_runs_nothing_of_the_repository_and_speaks_with_nobody(
    template: Repository, tmp_path: Path
) -> None:
    """Seen from within the process: no connection, no name looked up, no program but git, no code of the repository,
    and neither the token nor a secret read. Caught: the worker asked; secrets fingerprinted."""
    lab = Repository.copy(template.path, tmp_path / "lab")
    touched, secret = tmp_path / "touched", tmp_path / "pass"
    secret.write_text(CANARY)
    evil = an_app_folder("one", says="evil")["apps/one/main.py"]
    names = f"    env: {{Main: {{PASS: {{file: {secret}}}, OTHER: {{env: CI_PASS}}}}}}\n"
    where = "hypha: {server_url: 'https://hypha.invalid', token: {env: HYPHA_TOKEN}}\n"
    lab.commit(
        "Run, please",
        {
            **a_repository("one", "two", cluster=where, one=names),
            "apps/one/main.py": f"open({str(touched)!r}, 'w')\n{evil}",
            "apps/one/conftest.py": f"open({str(touched)!r}, 'w')\n",
        },
    )
    told = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "CI_PASS": CANARY, "HYPHA_TOKEN": CANARY}
    command = [
        sys.executable,
        "-c",
        WATCHED,
        "plan",
        str(lab.path),
        "--since",
        "main",
        "--home",
        str(tmp_path / "home"),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, env=told, cwd=Path(__file__).parents[2], check=False)
    assert ran.returncode == 0 and "Offline plan: 0 to create, 1 to update" in ran.stdout, ran.stderr
    assert "(secret added)" in ran.stdout and CANARY not in ran.stdout + ran.stderr
    seen = json.loads(ran.stderr.splitlines()[-1])
    assert not touched.exists()
    assert not [event for event in seen if event.startswith("socket.")]
    assert {event for event in seen if event.startswith(("subprocess", "os."))} == {"subprocess.Popen git"}
    assert not [event for event in seen if event.startswith("exec") and str(tmp_path) in event]
    ours = [event for event in seen if event.startswith("open") and str(tmp_path) in event]
    assert not [event for event in ours if str(secret) in event or ".key" in event], ours
