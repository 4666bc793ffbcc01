"""The files in docs/ that others run: every metric there is one of ours, and every command one that we know."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from reconciler.cli.commands import app
from reconciler.planning.conditions import Status, Type
from reconciler.telling.metrics import Metrics
from tests.fakes import a_repository, an_app_folder
from tests.reconciler.git_world import Repository

DOCS = Path(__file__).parents[2] / "docs"
RECIPES = ("github.yml", "gitlab.yml")
COMMENT_LIMIT = 65_536


class Loader(yaml.SafeLoader):
    """GitLab's tag, too."""


Loader.add_constructor("!reference", lambda loader, node: loader.construct_sequence(node))


def recipe(name: str) -> dict[Any, Any]:
    return yaml.load((DOCS / "ci" / name).read_text(), Loader)


def scripts(document: Any) -> Iterator[str]:
    """Everything a shell is given."""
    match document:
        case dict():
            for key, value in document.items():
                if key in ("run", "script", "before_script"):
                    yield from [value] if isinstance(value, str) else [one for one in value if isinstance(one, str)]
                else:
                    yield from scripts(value)
        case list():
            for value in document:
                yield from scripts(value)
        case _:
            pass


def step(name: str) -> str:
    """A step of GitHub's job `plan`."""
    return next(one["run"] for one in recipe("github.yml")["jobs"]["plan"]["steps"] if one.get("name") == name)


# ── Grafana and Prometheus ─────────────────────────────────────────────────────────────────────────────────────────


def known_series() -> set[str]:
    """Names of all that a reconciler shows."""
    registry = Metrics().registry
    return {*registry._names_to_collectors, *(family.name for family in registry.collect())}


def named_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:reconcile|process)_[a-z_]+\b", text))


def test_every_metric_of_the_dashboard_exists() -> None:
    dashboard = json.loads((DOCS / "grafana" / "dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [variable["definition"] for variable in dashboard["templating"]["list"] if "definition" in variable]
    named = named_in(" ".join(expressions))
    assert len(named) > 15 and named <= known_series(), named - known_series()
    ours = {name for name in known_series() if name.startswith("reconcile_") and not name.endswith("_created")}
    roots = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in named}
    assert {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in ours} <= roots, "each of ours is shown"


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads((DOCS / "grafana" / "dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) and all(panel["title"] for panel in panels)
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken)) and all(x < 24 for x, _ in taken), "no panel lies over another"
    assert all(panel["datasource"]["uid"] == "${source}" for panel in panels)
    for panel in panels:
        for target in panel["targets"]:
            assert target["expr"].count("(") == target["expr"].count(")"), target["expr"]


def test_every_metric_and_condition_of_the_alerts_exists() -> None:
    rules = yaml.safe_load((DOCS / "grafana" / "alerts.yaml").read_text())["groups"][0]["rules"]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        named = named_in(rule["expr"])
        assert named and named <= known_series(), rule["expr"]
        assert rule["annotations"].keys() == {"summary", "fix"} and rule["labels"]["severity"]
        for kind, status in re.findall(r'type="(\w+)", status="(\w+)"', rule["expr"]):
            assert kind in set(Type) and status in set(Status)
        for command in re.findall(r"reconcile [a-z]+", rule["annotations"]["fix"]):
            assert command.split()[1] in commands()


# ── pipelines ──────────────────────────────────────────────────────────────────────────────────────────────────────


def commands() -> dict[str, Any]:
    return typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]


def ours(script: str) -> Iterator[list[str]]:
    """The words of each `reconcile …` in it, up to a redirection."""
    for line in script.replace("\\\n", " ").splitlines():
        if line.strip().startswith("reconcile "):
            words = shlex.split(line)
            end = next((at for at, word in enumerate(words) if re.match(r"\d?>|[|;&]", word)), len(words))
            yield words[1:end]


@pytest.mark.parametrize("name", RECIPES)
def test_every_command_of_the_recipes_is_one_that_we_know(name: str) -> None:
    found = [words for script in scripts(recipe(name)) for words in ours(script)]
    assert {words[0] for words in found} == {"plan", "apply"}
    for verb, *words in found:
        known = [word.replace("$HYPHA_SERVER_URL", "https://hypha.example") for word in words]
        commands()[verb].make_context(verb, known)  # raises on what it does not know


@pytest.mark.parametrize("name", RECIPES)
def test_every_script_of_the_recipes_is_bash_and_takes_nothing_from_strangers(name: str) -> None:
    """SP-01, SP-11: what a merge request says is never part of a script."""
    for script in scripts(recipe(name)):
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0, script
        assert "${{" not in script, "it would be pasted into the script"
        assert "--token" not in script and not re.search(r"(--header|-H) ['\"]?(PRIVATE-TOKEN|Authorization)", script)
    assert "pull_request_target" not in (DOCS / "ci" / name).read_text()


def test_sp_01_a_fork_gets_no_secret() -> None:
    github, gitlab = recipe("github.yml"), recipe("gitlab.yml")
    of_fork = json.dumps(github["jobs"]["offline"])
    assert "secrets." not in of_fork and "secrets." in json.dumps(github["jobs"]["plan"])
    assert "vars." not in of_fork and "vars." not in json.dumps(github["env"]), "forks are given none"
    assert "head.repo.full_name != github.repository" in github["jobs"]["offline"]["if"]
    assert "permissions" not in github["jobs"]["offline"] and not github["jobs"]["offline"].get("environment")
    assert "head.repo.full_name == github.repository" in github["jobs"]["plan"]["if"]
    assert github["permissions"] == {"contents": "read"} and "permissions" not in github["jobs"]["apply"]
    assert "$HYPHA_SERVER_URL" in step("Plan"), "no merge request sends the token elsewhere"
    assert "RECONCILE_PACKAGE" in github["env"] and "RECONCILE_PACKAGE" in gitlab["variables"]
    assert gitlab["offline"]["extends"] == ".reconcile" and "FINGERPRINT_KEY" not in json.dumps(gitlab[".reconcile"])


def scripts_of_forks() -> dict[str, str]:
    return {
        "github.yml": next(one["run"] for one in recipe("github.yml")["jobs"]["offline"]["steps"] if "run" in one),
        "gitlab.yml": "\n".join(recipe("gitlab.yml")["offline"]["script"]),
    }


def as_checked_out(name: str, tmp_path: Path) -> tuple[Path, str]:
    """What a job of a fork finds: GitHub's shallow merge commit, or all of the branch; and its base."""
    lab = Repository(tmp_path / "lab", a_repository("one", "two"))
    base = lab.head
    lab.git("checkout", "-q", "-b", "theirs")
    lab.commit("Say more", an_app_folder("one", says="more"))
    if name == "github.yml":
        lab.git("checkout", "-q", "main")
        base = lab.commit("Meanwhile", an_app_folder("two", says="meanwhile"))
        lab.git("merge", "-q", "--no-edit", "theirs")
    clone = Repository(tmp_path / "clone", {})
    clone.git("fetch", "-q", "--depth=2" if name == "github.yml" else "--tags", f"file://{lab.path}", "HEAD")
    clone.git("checkout", "-q", "--detach", "FETCH_HEAD")
    return clone.path, base


@pytest.mark.parametrize("name", RECIPES)
def test_a_fork_gets_an_offline_plan(name: str, tmp_path: Path) -> None:
    """Run as it stands, in such a clone. Caught: a base that the clone does not have; the exit code lost."""
    clone, base = as_checked_out(name, tmp_path)
    ours = {"uv": "true", "reconcile": f'exec {sys.executable} -m reconciler "$@"'}
    told = {"RECONCILE_PACKAGE": "x", "CI_MERGE_REQUEST_DIFF_BASE_SHA": base}
    ran = run_step(scripts_of_forks()[name], clone, ours, **told)
    assert ran.returncode == 0, ran.stderr
    shown = (clone / "summary").read_text() if name == "github.yml" else ran.stdout
    assert "**Offline plan:**" in shown and "0 to create, 1 to update, 0 to stop" in shown
    assert f"sha1&#58;{base[:7]}" in shown and "<code>one</code>" in shown
    broken = run_step(scripts_of_forks()[name].replace("--since", "--path nowhere --since"), clone, ours, **told)
    assert broken.returncode == 1


def run_step(script: str, folder: Path, stubs: dict[str, str], **variables: str) -> subprocess.CompletedProcess[str]:
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name, text in stubs.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    told = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "RUNNER_TEMP": str(folder),
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_REPOSITORY": "lab/apps",
        **variables,
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, env=told, text=True, capture_output=True, check=False)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_plan_becomes_a_comment(code: int, tmp_path: Path) -> None:
    (tmp_path / "said.md").write_text("<!-- reconcile:lab -->\n### plan\n" + "é" * 60_000)
    stubs = {"uv": "true", "reconcile": f"cat said.md; echo '<script>@everyone & more' >&2; exit {code}"}
    told = {"RECONCILE_PACKAGE": "x", "FINGERPRINT_KEY": "k" * 64, "CLUSTER": "lab", "HYPHA_SERVER_URL": "https://h"}
    ran = run_step(step("Plan"), tmp_path, stubs, **told)
    assert ran.returncode == 0, ran.stderr
    comment = (tmp_path / "comment.md").read_text()
    assert comment.startswith("<!-- reconcile:lab -->\n") and len(comment) <= COMMENT_LIMIT
    assert ("something is wrong" in comment) == (code == 1)
    assert "<script>" not in comment and "@everyone" not in comment
    assert (tmp_path / "output").read_text() == f"code={code}\n"
    key = tmp_path / "home" / "secrets" / "fingerprint.key"
    assert key.read_text() == "k" * 64 and key.stat().st_mode & 0o077 == 0
    assert run_step(step("Judge"), tmp_path, {}, CODE=str(code)).returncode == (1 if code == 1 else 0)


@pytest.mark.parametrize(
    ("there", "method"), [("", "POST lab/apps/issues/7/comments"), ("41\\n42", "PATCH comments/41")]
)
def test_the_comment_takes_the_place_of_the_one_before(there: str, method: str, tmp_path: Path) -> None:
    (tmp_path / "comment.md").write_text("x")
    gh = f'if [ "$2" = --paginate ]; then printf "{there}"; else echo "$@" >> calls; fi'
    ran = run_step(step("Comment"), tmp_path, {"gh": gh}, NUMBER="7", MARKER="<!-- reconcile:lab -->", GH_TOKEN="t")
    assert ran.returncode == 0, ran.stderr
    calls = (tmp_path / "calls").read_text()
    assert all(word in calls for word in method.split()) and "body=@comment.md" in calls
