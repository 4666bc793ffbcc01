"""Repositories made to do harm, through real git: what of SG-09 … SG-25 is not in test_git_source.py."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from reconciler.adapters.git import GitSource
from reconciler.adapters.git.process import MIB
from reconciler.errors import SourceUnusable, Unreachable
from reconciler.planning.declare import declare
from reconciler.planning.source import SourceTree
from reconciler.steady import SteadySource
from tests.reconciler.git_http import git_server
from tests.reconciler.git_world import CODE, FILES, MANIFEST, Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repo")


def fetch(repository: Repository) -> SourceTree:
    return GitSource(str(repository.path), mirror_dir=repository.path.parent / "mirrors").fetch_blocking()


def messages(tree: SourceTree) -> str:
    return " ".join(problem.message for problem in declare(tree).broken.get("demo", ()))


def test_sg_10_a_carriage_return_in_a_submodules_path_leads_nowhere(repository: Repository, tmp_path: Path) -> None:
    """As in CVE-2025-48384: a hook that git would then run from the other place."""
    pwned = tmp_path / "pwned"
    repository.plant("100644", ".gitmodules", '[submodule "x"]\n\tpath = "apps/sub\r"\n\turl = ./sub\n')
    repository.plant("100755", "apps/sub/hooks/post-checkout", f"#!/bin/sh\ntouch {pwned}\n")
    repository.plant("160000", "apps/sub\r", repository.head)
    assert any("submodule" in reason for reason in fetch(repository).refused.values())
    with git_server(tmp_path) as server:
        source = GitSource(f"{server.url}/repo/.git", mirror_dir=tmp_path / "mirrors")
        try:
            source.fetch_blocking()
        except SourceUnusable as refused:
            assert "attack" in str(refused)
    assert not pwned.exists()


def test_sg_13_a_link_to_another_app_of_the_same_repository_is_refused_too(repository: Repository) -> None:
    repository.plant("120000", "apps/linked", "demo-app")
    repository.plant("120000", "apps/demo-app/shared.py", "../other/shared.py")
    tree = fetch(repository)
    assert "symbolic link" in tree.refused["apps/linked"] and "symbolic link" in messages(tree)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Data/x.txt", "data/x.txt"), ("caf\u00e9.txt", "cafe\u0301.txt")],
    ids=["upper and lower case", "composed and decomposed"],
)
def test_sg_15_names_that_some_systems_cannot_tell_apart_are_a_conflict(
    repository: Repository, one: str, other: str
) -> None:
    for name in (one, other):
        repository.plant("100644", f"apps/demo-app/{name}", "x")
    assert "are the same name on some systems" in messages(fetch(repository))


def test_sg_15_so_are_two_app_folders(repository: Repository) -> None:
    for name, content in FILES.items():
        if name.startswith("apps/"):
            repository.plant("100644", name.replace("demo-app", "Demo-App"), content)
    assert "apps/Demo-App and apps/demo-app" in messages(fetch(repository))


def test_sg_17_a_pointer_of_git_lfs_is_not_the_file(repository: Repository) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1234567\n"
    repository.commit("Weights", {"apps/demo-app/model.pt": pointer})
    assert "Git LFS pointer" in messages(fetch(repository))


def test_sg_18_a_tree_of_ten_thousand_levels_ends_in_words_and_in_time(repository: Repository) -> None:
    began = time.monotonic()
    _import(repository, "apps/demo-app/" + "d/" * 10_000 + "x")
    with pytest.raises((SourceUnusable, Unreachable)):
        fetch(repository)
    assert time.monotonic() - began < 25


def test_sg_18_a_deep_tree_that_can_be_listed_breaks_its_app_only(repository: Repository) -> None:
    repository.commit(
        "Other", {"apps/other/manifest.yaml": MANIFEST.replace("demo-app", "other"), "apps/other/main.py": CODE}
    )
    repository.commit("Wanted", {"cluster.yaml": FILES["cluster.yaml"] + "  other: {source: apps/other}\n"})
    _import(repository, "apps/demo-app/" + "d/" * 500 + "x")
    state = declare(fetch(repository))
    assert state.broken.keys() == {"demo"} and state.apps.keys() == {"other"}


def test_sg_18_a_large_file_is_refused_by_its_size_without_being_read(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.adapters.git.objects.MAX_ANSWER", 50 * MIB)
    with (repository.path / "apps/demo-app/weights.bin").open("wb") as file:
        file.truncate(101 * MIB)
    repository.commit("Weights", {})
    tree = fetch(repository)
    assert "MiB of files" in messages(tree)
    with pytest.raises(SourceUnusable, match="answered with more than"):
        tree.read(tree.folders["apps/demo-app"].files["weights.bin"].oid)


def test_sg_18_a_million_files_are_too_many_and_nothing_is_made_of_them(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred stand for them, under a limit as much lower."""
    monkeypatch.setattr("reconciler.adapters.git.listing.MAX_ENTRIES", 20)
    _import(repository, *(f"apps/demo-app/f{number}" for number in range(100)))
    with pytest.raises(SourceUnusable, match="more than 20 files"):
        fetch(repository)


def _import(repository: Repository, *paths: str) -> None:
    """Commit small files at these paths without writing them to disk."""
    files = "".join(f"M 100644 inline {path}\ndata 1\nx\n" for path in paths)
    who = "committer a <a@b.example> 1700000000 +0000"
    text = f"commit refs/heads/main\n{who}\ndata 4\ndeep\nfrom refs/heads/main^0\n{files}\n"
    done = subprocess.run(
        ["git", "fast-import", "--quiet", "--force"],
        cwd=repository.path,
        input=text.encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


async def test_sg_21_a_pinned_commit_that_cannot_be_fetched_any_more_stops_nothing_that_runs(
    repository: Repository, tmp_path: Path
) -> None:
    pinned = repository.commit("Pinned", {"apps/demo-app/main.py": CODE + "# pinned\n"})
    with git_server(tmp_path) as server:
        url = f"{server.url}/repo/.git"
        here = SteadySource(GitSource(url, ref=pinned, mirror_dir=tmp_path / "mirrors"), interval_s=0.0)
        assert (await here.fetch()).revision.commit == pinned
        repository.git("reset", "--quiet", "--hard", "HEAD~1")
        repository.git("reflog", "expire", "--expire=now", "--all")
        repository.git("gc", "--quiet", "--prune=now")
        assert (await here.fetch()).revision.commit == pinned
        with pytest.raises(SourceUnusable, match="nothing is changed or removed"):
            await SteadySource(GitSource(url, ref=pinned, mirror_dir=tmp_path / "new"), interval_s=0.0).fetch()


def test_sg_24_objects_that_git_holds_for_made_up_are_not_taken_in(repository: Repository, tmp_path: Path) -> None:
    """What `fetch` checks of every object (fsckObjects): here a tree that names one file twice. Objects of a known
    SHA-1 collision are refused by git's own hash function, whatever is set."""
    blob = repository.tree("cluster.yaml")
    twice = f"100644 blob {blob}\tcluster.yaml\n" * 2
    tree = repository.git("mktree", "--missing", stdin=twice)
    repository.git("update-ref", "HEAD", repository.git("commit-tree", tree, "-m", "Twice"))
    with git_server(tmp_path) as server, pytest.raises(SourceUnusable, match="takes for an attack"):
        GitSource(f"{server.url}/repo/.git", mirror_dir=tmp_path / "mirrors").fetch_blocking()


def test_sg_25_what_is_read_is_what_was_fetched_even_if_the_server_said_something_else(
    repository: Repository, tmp_path: Path
) -> None:
    with git_server(tmp_path) as server:
        source = GitSource(f"{server.url}/repo/.git", mirror_dir=tmp_path / "mirrors")
        mirror = source._mirror  # pyright: ignore[reportPrivateUsage]
        assert mirror
        ask, said = mirror._ask, list[str]()  # pyright: ignore[reportPrivateUsage]

        def ask_and_push(ref: str | None):
            answer = ask(ref)
            said.append(answer.commit)
            repository.commit("Meanwhile", {"apps/demo-app/main.py": CODE + f"# {len(said)}\n"})
            return answer

        mirror._ask = ask_and_push  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]
        for number in range(2):
            repository.commit("Before", {"apps/demo-app/main.py": CODE + f"# before {number}\n"})
            tree = source.fetch_blocking()
            folder = tree.folders["apps/demo-app"]
            assert tree.revision.commit == repository.head != said[-1]
            assert folder.tree == repository.tree("apps/demo-app")
            assert tree.read(folder.files["main.py"].oid).decode().endswith(f"# {len(said)}\n")
