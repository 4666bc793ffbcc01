"""Several clusters from one repository: a file for each, over a base they share, from git to the plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reconciler.adapters.git import GitSource
from reconciler.cli.commands import app
from reconciler.errors import InvalidDesiredState, SourceUnusable
from reconciler.planning.declare import declare
from reconciler.planning.problems import Location
from reconciler.planning.source import SourceTree
from tests.reconciler.git_world import FILES, Repository

BASE = """\
variables: {SITE: dev}
hypha: {server_url: 'https://${SITE}.example.org'}
apps:
  demo: {source: apps/demo-app}
"""
PROD = """\
extends: base.yaml
name: prod
variables: {SITE: prod}
apps:
  demo: {replicas: 3}
  more: {source: apps/demo-app}
"""


@pytest.fixture(params=["", "lab [1]*"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    folder = f"{request.param}/" if request.param else ""
    files = {**FILES, "base.yaml": BASE, "prod.yaml": PROD, "mkdocs.yaml": "site: !x y\n"}
    made = Repository(tmp_path / "repo", {f"{folder}{name}": content for name, content in files.items()})
    made.folder = request.param  # type: ignore[attr-defined]
    return made


def fetch(repository: Repository, *, cluster: str = "prod.yaml", worktree: bool = False) -> SourceTree:
    folder = repository.folder  # type: ignore[attr-defined]
    mirrors = repository.path.parent / "mirrors"
    source = GitSource(repository.path, path=folder, mirror_dir=mirrors, cluster=cluster, worktree=worktree)
    return source.fetch_blocking()


@pytest.mark.parametrize("worktree", [False, True])
def test_each_cluster_has_what_the_base_says_and_its_own(repository: Repository, worktree: bool) -> None:
    prod = declare(fetch(repository, worktree=worktree))
    assert prod.cluster.name == "prod" and prod.cluster.hypha.server_url == "https://prod.example.org"
    assert {app_id: one.spec.replicas for app_id, one in prod.apps.items()} == {"demo": {"*": 3}, "more": {}}
    assert prod.apps["more"].where == Location("prod.yaml", 6, 3)
    lab = declare(fetch(repository, cluster="cluster.yaml", worktree=worktree))
    assert lab.cluster.name == "lab" and set(lab.apps) == {"demo"}
    assert prod.revision.commit == lab.revision.commit and not prod.revision.worktree
    assert (prod.revision.file, lab.revision.file) == ("prod.yaml", "cluster.yaml")


def test_a_change_of_the_base_is_a_change_of_the_cluster(repository: Repository) -> None:
    folder = repository.folder  # type: ignore[attr-defined]
    first = fetch(repository)
    repository.commit("Elsewhere", {f"{folder}/mkdocs.yaml".lstrip("/"): "site: z\n"})
    assert fetch(repository).changed["cluster.yaml"] == first.changed["cluster.yaml"]
    repository.commit("Move", {f"{folder}/base.yaml".lstrip("/"): BASE + "  third: {source: apps/demo-app}\n"})
    tree = fetch(repository)
    assert tree.changed["cluster.yaml"][1] == "Move" and "third" in declare(tree).apps


def test_uncommitted_changes_of_the_base_are_seen(repository: Repository) -> None:
    file = repository.path / repository.folder / "base.yaml"  # type: ignore[attr-defined]
    file.write_text(BASE.replace("dev", "test") + "  third: {source: apps/demo-app}\n")
    seen = declare(fetch(repository, worktree=True))
    assert seen.revision.worktree and "third" in seen.apps and seen.apps["third"].where.path == "base.yaml"


def test_a_mistake_of_the_base_is_told_in_the_base(repository: Repository) -> None:
    file = repository.path / repository.folder / "base.yaml"  # type: ignore[attr-defined]
    file.write_text(BASE.replace("source: apps/demo-app", "source: apps/demo-app, replicsa: 1"))
    with pytest.raises(InvalidDesiredState) as error:
        declare(fetch(repository, worktree=True))
    assert [str(problem.where) for problem in error.value.problems] == ["base.yaml:4:33"]


def test_a_link_is_no_base(repository: Repository) -> None:
    folder = repository.path / repository.folder  # type: ignore[attr-defined]
    (folder / "base.yaml").unlink()
    (folder / "base.yaml").symlink_to("/etc/passwd")
    with pytest.raises(InvalidDesiredState) as error:
        declare(fetch(repository, worktree=True))
    assert error.value.problems[0].message.startswith("base.yaml: a symbolic link")


@pytest.mark.parametrize("name", ["../prod.yaml", "a/b.yaml", "prod.json", "-x.yaml", ""])
def test_a_name_that_is_none_is_refused(repository: Repository, name: str) -> None:
    with pytest.raises(SourceUnusable, match="no cluster file"):
        fetch(repository, cluster=name)


def test_a_file_that_is_not_there_is_told_with_a_guess(repository: Repository) -> None:
    with pytest.raises(SourceUnusable) as error:
        declare(fetch(repository, cluster="prood.yaml"))
    assert "no prood.yaml" in str(error.value) and error.value.hint == 'did you mean "prod.yaml"?'


def test_the_command_line_names_the_cluster_and_repeats_it(repository: Repository) -> None:
    where = [str(repository.path), "--path", repository.folder, "--cluster", "prod.yaml"]  # type: ignore[attr-defined]
    checked = CliRunner().invoke(app, ["validate", *where])
    assert checked.exit_code == 0 and "2 apps are valid" in checked.stdout, checked.output
    assert "--cluster prod.yaml" in checked.stdout
    planned = CliRunner().invoke(app, ["plan", *where, "--server-url", "http://127.0.0.1:9", "-o", "json"])
    assert json.loads(planned.stdout)["cluster"] == "prod"
