"""`reconcile adopt`: what people deployed by hand is written into cluster.yaml, as it runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from bioengine_runtime.contract.app import AppSpec, Autoscaling, Rollout
from bioengine_runtime.contract.cluster import ClusterSpec
from bioengine_runtime.contract.status import AppState, Provenance
from reconciler.planning.declare import parse_cluster
from tests.fakes import FakeSource, FakeWorld, a_repository
from tests.reconciler.test_cli import reconcile

CLUSTER = """\
# What the lab runs.
name: lab
apps:
  one:  # the first one
    source: apps/one
"""
SPEC = AppSpec(
    app_id="segmenter",
    artifact_id="ws/segmenter",
    version="2.1.0",
    kwargs={"Main": {"size": 3}},
    env={"*": {"MODE": "fast"}},
    secrets={"*": ["HYPHA_TOKEN"], "Main": ["API_KEY"]},
    authorized_users=["anna@example.org"],
    autoscaling={"*": Autoscaling(max_replicas=4)},
    rollout=Rollout(surge=False),
)


def by_hand(fake: FakeWorld, spec: AppSpec = SPEC, owner: str = "user:anna") -> None:
    origin = Provenance(owner=owner, source=spec.artifact_id, commit=spec.version, by="anna@example.org")
    app = AppState(app_id=spec.app_id, status="RUNNING", spec=spec, digest=spec.digest(), provenance=origin)
    fake.runtime.apps[spec.app_id] = app


@pytest.fixture
def fake() -> FakeWorld:
    return FakeWorld(FakeSource(a_repository("one")))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    return tmp_path


def test_an_app_is_written_as_it_runs_and_the_file_stays_a_persons(fake: FakeWorld, clone: Path) -> None:
    by_hand(fake)
    result = reconcile(fake, "adopt", "segmenter", "--repo", str(clone))
    text = (clone / "cluster.yaml").read_text()
    assert result.exit_code == 0, result.stderr
    assert text.startswith("# What the lab runs.") and "# the first one" in text
    wanted = ClusterSpec.model_validate(yaml.safe_load(text)).apps["segmenter"]
    assert (wanted.artifact, wanted.version, wanted.adopt) == (SPEC.artifact_id, SPEC.version, True)
    assert wanted.kwargs == SPEC.kwargs and wanted.authorized_users == SPEC.authorized_users
    assert wanted.rollout == SPEC.rollout and wanted.autoscaling == SPEC.autoscaling["*"]
    assert "\n    authorized_users:\n      - anna@example.org\n" in text
    assert "+  segmenter:" in result.stdout and "commit -m 'Adopt segmenter'" in result.stdout.splitlines()[-1]
    assert not fake.writes


def test_an_app_that_is_nobodys_stays_so_where_the_policy_lets_everybody_in(fake: FakeWorld, clone: Path) -> None:
    """Caught: an empty list was left out, and the policy's default opened a private app."""
    by_hand(fake, SPEC.model_copy(update={"authorized_users": []}))
    reconcile(fake, "adopt", "segmenter", "--repo", str(clone))
    text = (clone / "cluster.yaml").read_text()
    assert ClusterSpec.model_validate(yaml.safe_load(text)).apps["segmenter"].authorized_users == []


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "OFF",
        "on",
        "010",
        "1:30",
        "1_000",
        "~",
        "1e3",
        "${HOME}/x",
        "$${A}",
        "*x",
        "#",
        " x: y",
        "a\r\nb\n",
        "\x07",
    ],
)
def test_whatever_a_text_looks_like_it_is_read_as_it_runs(fake: FakeWorld, clone: Path, text: str) -> None:
    """Caught: what was written was refused by our own reader, and with it the whole file."""
    runs = {"Main": {"a": text, "b": {text: [text]}}}
    by_hand(fake, SPEC.model_copy(update={"kwargs": runs, "env": {"*": {"A": text}}}))
    assert reconcile(fake, "adopt", "segmenter", "--repo", str(clone)).exit_code == 0
    cluster, _, faults = parse_cluster((clone / "cluster.yaml").read_bytes())
    assert cluster and not faults, faults
    entry = cluster.apps["segmenter"]
    assert entry.kwargs == runs and entry.env["*"] == {"A": text}


def test_what_no_file_can_say_is_not_written(fake: FakeWorld, clone: Path) -> None:
    by_hand(fake, SPEC.model_copy(update={"kwargs": {"Main": {"a": float("inf")}}}))
    result = reconcile(fake, "adopt", "segmenter", "--repo", str(clone))
    assert result.exit_code == 1 and ".inf is not a number that can be passed on" in result.stderr
    assert (clone / "cluster.yaml").read_text() == CLUSTER


@pytest.mark.parametrize("before", [CLUSTER.replace("\n", "\r\n"), CLUSTER + "policy:\n  approvers:\n  - anna\n"])
def test_lines_that_were_there_stay_as_they_are(fake: FakeWorld, clone: Path, before: str) -> None:
    """Caught: a file with the other line ends came back changed in every line."""
    by_hand(fake)
    (clone / "cluster.yaml").write_bytes(before.encode())
    assert reconcile(fake, "adopt", "segmenter", "--repo", str(clone)).exit_code == 0
    after = (clone / "cluster.yaml").read_bytes().decode()
    assert set(before.splitlines(keepends=True)) <= set(after.splitlines(keepends=True))
    assert ("\r\n" in before) == ("\r\n" in after) and after.count("\r\n") in (0, after.count("\n"))


def test_the_commit_that_is_told_works_also_in_a_new_folder(fake: FakeWorld, tmp_path: Path) -> None:
    """Caught: it was no repository, and a name with a space was two files."""
    by_hand(fake)
    result = reconcile(fake, "adopt", "--all", "--repo", str(tmp_path), "--cluster", "my lab.yaml")
    told = result.stdout.split("Next: ")[1].split(" && reconcile")[0]
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    subprocess.run(told, shell=True, check=True, capture_output=True, env={**os.environ, **who})
    listed = subprocess.run(["git", "-C", str(tmp_path), "ls-files", "-z"], check=True, capture_output=True)
    assert listed.stdout == b"my lab.yaml\0"


@pytest.mark.parametrize(("kind", "why"), [("latin", "is not UTF-8"), ("folder", "cannot be read"), ("link", "a link")])
def test_a_file_that_cannot_be_changed_in_git_is_left_alone(fake: FakeWorld, clone: Path, kind: str, why: str) -> None:
    by_hand(fake)
    file = clone / "cluster.yaml"
    file.rename(clone / "other.yaml")
    if kind == "latin":
        file.write_bytes(b"name: l\xe4b\n")
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("other.yaml")
    result = reconcile(fake, "adopt", "segmenter", "--repo", str(clone))
    assert result.exit_code == 1 and why in result.stderr and "fix: " in result.stderr
    assert (clone / "other.yaml").read_text() == CLUSTER


def test_secrets_become_references_to_variables_that_are_named(fake: FakeWorld, clone: Path) -> None:
    by_hand(fake)
    result = reconcile(fake, "adopt", "segmenter", "--repo", str(clone))
    entry = yaml.safe_load((clone / "cluster.yaml").read_text())["apps"]["segmenter"]
    assert entry["env"] == {"*": {"MODE": "fast"}, "Main": {"API_KEY": {"env": "SEGMENTER_API_KEY"}}}
    assert entry["hypha_token"] == {"env": "SEGMENTER_HYPHA_TOKEN"}
    assert "SEGMENTER_API_KEY" in result.stdout and "SEGMENTER_HYPHA_TOKEN" in result.stdout


def test_a_whole_repository_comes_from_what_a_worker_runs(fake: FakeWorld, tmp_path: Path) -> None:
    by_hand(fake)
    by_hand(fake, SPEC.model_copy(update={"app_id": "search", "secrets": {}}))
    new = tmp_path / "Our lab"
    new.mkdir()
    assert reconcile(fake, "adopt", "--all", "--repo", str(new)).exit_code == 0
    cluster = ClusterSpec.model_validate(yaml.safe_load((new / "cluster.yaml").read_text()))
    assert cluster.name == "our-lab" and set(cluster.apps) == {"segmenter", "search"}


def test_a_new_repository_is_reached_as_the_worker_was(fake: FakeWorld, tmp_path: Path) -> None:
    """Caught: without it the next command looked for an embedded Hypha."""
    by_hand(fake)
    where = ("--server-url", "https://hypha.example", "--workspace", "lab", "--token-file", "/run/secrets/token")
    result = reconcile(fake, "adopt", "--all", "--repo", str(tmp_path), *where)
    assert result.exit_code == 0, result.stderr
    written = yaml.safe_load((tmp_path / "cluster.yaml").read_text())
    assert written["hypha"] == {"server_url": "https://hypha.example", "workspace": "lab"}


@pytest.mark.parametrize(("folder", "name"), [("2026-Lab", "lab"), ("x" * 80, "x" * 63), ("7", "lab")])
def test_a_folder_of_any_name_can_become_a_cluster(fake: FakeWorld, tmp_path: Path, folder: str, name: str) -> None:
    """Caught: of one that begins with a digit, or is long, it was said that --server-url is wrong."""
    by_hand(fake)
    (tmp_path / folder).mkdir()
    result = reconcile(fake, "adopt", "--all", "--repo", str(tmp_path / folder))
    assert result.exit_code == 0, result.stderr
    assert yaml.safe_load((tmp_path / folder / "cluster.yaml").read_text())["name"] == name


def test_the_file_that_is_named_is_the_one_that_is_written(fake: FakeWorld, clone: Path) -> None:
    """Caught: with --cluster staging.yaml the apps of staging went into production's file."""
    by_hand(fake)
    (clone / "staging.yaml").write_text(CLUSTER)
    fake.source.commit({"staging.yaml": CLUSTER})
    result = reconcile(fake, "adopt", "segmenter", "--repo", str(clone), "--cluster", "staging.yaml")
    assert result.exit_code == 0, result.stderr
    assert (clone / "cluster.yaml").read_text() == CLUSTER
    assert "segmenter" in yaml.safe_load((clone / "staging.yaml").read_text())["apps"]
    assert "add staging.yaml" in result.stdout and "--cluster staging.yaml" in result.stdout


def test_an_entry_that_is_not_committed_yet_is_not_overwritten(fake: FakeWorld, clone: Path) -> None:
    by_hand(fake)
    mine = CLUSTER + "  segmenter: {artifact: ws/segmenter, version: 3.0.0}\n"
    (clone / "cluster.yaml").write_text(mine)
    result = reconcile(fake, "adopt", "segmenter", "--repo", str(clone))
    assert result.exit_code == 1 and "segmenter is in cluster.yaml already" in result.stderr
    assert "Nothing to adopt" in reconcile(fake, "adopt", "--all", "--repo", str(clone)).stdout
    assert (clone / "cluster.yaml").read_text() == mine


@pytest.mark.parametrize("broken", ["", "apps: [", "- 1\n", "name: lab\napps: [one]\n"])
def test_a_file_that_is_being_edited_and_broken_is_left_alone(fake: FakeWorld, clone: Path, broken: str) -> None:
    by_hand(fake)
    (clone / "cluster.yaml").write_text(broken)
    result = reconcile(fake, "adopt", "segmenter", "--repo", str(clone))
    assert result.exit_code == 1 and "reconcile validate" in result.stderr and "--worktree" in result.stderr
    assert (clone / "cluster.yaml").read_text() == broken


@pytest.mark.parametrize(
    ("asked", "owner", "why"),
    [
        ("one", "user:anna", "one does not run"),
        ("segmenter", "other-lab", "segmenter belongs to other-lab, another reconciler"),
    ],
)
def test_what_cannot_be_adopted_is_refused_and_nothing_is_written(
    fake: FakeWorld, clone: Path, asked: str, owner: str, why: str
) -> None:
    by_hand(fake, owner=owner)
    result = reconcile(fake, "adopt", asked, "--repo", str(clone))
    assert result.exit_code == 1 and why in result.stderr and "Apps that can be adopted" in result.stderr
    assert (clone / "cluster.yaml").read_text() == CLUSTER


def test_nothing_by_hand_is_said(fake: FakeWorld, clone: Path) -> None:
    result = reconcile(fake, "adopt", "--all", "--repo", str(clone))
    assert result.exit_code == 0 and "Nothing to adopt" in result.stdout
