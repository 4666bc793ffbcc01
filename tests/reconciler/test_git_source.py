"""The git source on real repositories: what is read, what is followed, what is refused, and that nothing is run."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from reconciler.adapters.git import GitSource
from reconciler.adapters.git.mirror import Mirror
from reconciler.adapters.git.process import Git, GitFailed, as_source_error
from reconciler.errors import SourceUnusable, Unreachable
from reconciler.planning.declare import declare
from reconciler.planning.source import SourceTree
from tests.reconciler.git_http import GitServer, git_server
from tests.reconciler.git_world import CODE, FILES, MANIFEST, Repository


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Repository(tmp_path_factory.mktemp("template") / "repo").path


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Repository:
    return Repository.copy(template, tmp_path / "repo")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with git_server(tmp_path) as running:
        yield running


def source(place: object, tmp_path: Path, **options: object) -> GitSource:
    return GitSource(str(place), mirror_dir=tmp_path / "mirrors", **options)  # pyright: ignore[reportArgumentType]


def fetch(repository: Repository, **options: object) -> SourceTree:
    return source(repository.path, repository.path.parent, **options).fetch_blocking()


def contents(tree: SourceTree, folder: str = "apps/demo-app") -> Mapping[str, str]:
    return {path: tree.read(blob.oid).decode() for path, blob in tree.folders[folder].files.items()}


# ── What is read ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_commit_is_read_as_folders_with_gits_own_ids(repository: Repository, tmp_path: Path) -> None:
    tree = await source(repository.path, tmp_path).fetch()
    assert tree.revision.commit == repository.head
    assert (tree.revision.ref, tree.revision.subject, tree.revision.worktree) == ("main", "First", False)
    assert tree.revision.url == str(repository.path)
    assert tree.cluster_file is not None
    assert tree.cluster_file.oid == repository.tree("cluster.yaml")
    assert set(tree.folders) == {"apps/demo-app"}
    assert tree.folders["apps/demo-app"].tree == repository.tree("apps/demo-app")
    assert contents(tree) == {
        "manifest.yaml": MANIFEST,
        "main.py": CODE,
        "frontend/index.html": FILES["apps/demo-app/frontend/index.html"],
    }
    assert declare(tree).broken == {}


def test_sizes_and_the_executable_bit_are_known_without_reading(repository: Repository) -> None:
    repository.write({"apps/demo-app/run.sh": "#!/bin/sh\n"})
    (repository.path / "apps/demo-app/run.sh").chmod(0o755)
    repository.commit("Script", {})
    files = fetch(repository).folders["apps/demo-app"].files
    assert (files["run.sh"].size, files["run.sh"].executable) == (10, True)
    assert not files["main.py"].executable


def test_uncommitted_changes_are_not_read(repository: Repository) -> None:
    repository.write({"apps/demo-app/main.py": "changed\n", "apps/other/manifest.yaml": "x\n"})
    tree = fetch(repository)
    assert contents(tree)["main.py"] == CODE
    assert set(tree.folders) == {"apps/demo-app"}


def test_files_beside_the_app_folders_are_no_apps(repository: Repository) -> None:
    repository.commit("More", {"apps/README.md": "x", "docs/a.md": "x", "manifest.yaml": "x"})
    assert set(fetch(repository).folders) == {"apps/demo-app"}


def test_the_same_commit_is_read_once(repository: Repository, tmp_path: Path) -> None:
    here = source(repository.path, tmp_path)
    assert here.fetch_blocking() is here.fetch_blocking()


def test_a_push_changes_the_tree_id_of_its_folder_only(repository: Repository, tmp_path: Path) -> None:
    repository.commit("Other", {"apps/other/manifest.yaml": "x\n"})
    here = source(repository.path, tmp_path)
    before = here.fetch_blocking()
    repository.commit("Change", {"apps/other/manifest.yaml": "y\n"})
    after = here.fetch_blocking()
    assert before.folders["apps/demo-app"] == after.folders["apps/demo-app"]
    assert before.folders["apps/other"].tree != after.folders["apps/other"].tree


def test_a_revert_gives_back_the_old_tree_id(repository: Repository, tmp_path: Path) -> None:
    here = source(repository.path, tmp_path)
    first = here.fetch_blocking().folders["apps/demo-app"].tree
    repository.commit("Change", {"apps/demo-app/main.py": "x = 1\n"})
    assert here.fetch_blocking().folders["apps/demo-app"].tree != first
    repository.git("revert", "--no-edit", "HEAD")
    assert here.fetch_blocking().folders["apps/demo-app"].tree == first


def test_each_folder_knows_the_commit_that_last_touched_it(repository: Repository, tmp_path: Path) -> None:
    first = repository.head
    second = repository.commit("Add other", {"apps/other/deep/er/x.py": "1\n"})
    here = source(repository.path, tmp_path)
    assert here.fetch_blocking().changed == {
        "cluster.yaml": (first, "First"),
        "apps/demo-app": (first, "First"),
        "apps/other": (second, "Add other"),
    }
    third = repository.commit("Change both\n\nAnd a body.", {"apps/other/x.py": "2\n", "cluster.yaml": "name: lab\n"})
    changed = here.fetch_blocking().changed
    assert changed["apps/other"] == changed["cluster.yaml"] == (third, "Change both")
    assert changed["apps/demo-app"] == (first, "First")
    repository.commit("Remove", {"apps/other/x.py": None, "apps/other/deep/er/x.py": None})
    assert "apps/other" not in here.fetch_blocking().changed


def test_a_subject_cannot_play_tricks_with_a_terminal(repository: Repository) -> None:
    repository.commit("Red \x1b[31m alert \x07 \u202e", {"cluster.yaml": "name: lab\n"})
    tree = fetch(repository)
    assert tree.revision.subject == "Red  [31m alert"
    assert tree.changed["cluster.yaml"][1] == "Red  [31m alert"


# ── What is followed ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("remote", [False, True], ids=["path", "url"])
class TestRefs:
    """The same refs, of a local path and through a mirror."""

    @pytest.fixture
    def place(self, repository: Repository, server: GitServer, remote: bool) -> str:
        repository.git("tag", "v1")
        repository.git("tag", "-a", "v2", "-m", "annotated")
        repository.git("branch", "feature/x")
        repository.commit("Second", {"cluster.yaml": "name: second\n"})
        return f"{server.url}/repo/.git" if remote else str(repository.path)

    def test_without_a_ref_the_default_branch_is_followed(
        self, repository: Repository, place: str, tmp_path: Path
    ) -> None:
        tree = source(place, tmp_path).fetch_blocking()
        assert (tree.revision.ref, tree.revision.commit) == ("main", repository.head)
        assert tree.revision.url == place

    @pytest.mark.parametrize("ref", ["v1", "v2", "feature/x", "refs/tags/v1", "refs/tags/v2", "refs/heads/feature/x"])
    def test_a_branch_or_tag_is_followed(self, repository: Repository, place: str, tmp_path: Path, ref: str) -> None:
        tree = source(place, tmp_path, ref=ref).fetch_blocking()
        assert tree.revision.commit == repository.git("rev-parse", "HEAD^")
        assert tree.revision.ref == ref

    @pytest.mark.parametrize("length", [7, 12, 40])
    def test_a_commit_is_pinned_by_its_id_whole_or_short(
        self, repository: Repository, place: str, tmp_path: Path, length: int
    ) -> None:
        wanted = repository.git("rev-parse", "HEAD^")
        here = source(place, tmp_path, ref=wanted[:length])
        assert here.fetch_blocking().revision.commit == wanted
        repository.commit("Third", {"cluster.yaml": "name: third\n"})
        assert here.fetch_blocking().revision.commit == wanted

    def test_a_new_commit_on_the_branch_is_seen(self, repository: Repository, place: str, tmp_path: Path) -> None:
        here = source(place, tmp_path, ref="main")
        before = here.fetch_blocking()
        pushed = repository.commit("Third", {"apps/demo-app/main.py": "x = 1\n"})
        after = here.fetch_blocking()
        assert (after.revision.commit, after.revision.subject) == (pushed, "Third")
        assert contents(after)["main.py"] == "x = 1\n"
        assert not after.rewritten
        assert after.changed["apps/demo-app"] == (pushed, "Third")
        assert after.changed["cluster.yaml"] == before.changed["cluster.yaml"]

    def test_a_forced_push_is_followed_and_said(self, repository: Repository, place: str, tmp_path: Path) -> None:
        """SG-19."""
        here = source(place, tmp_path, ref="main")
        here.fetch_blocking()
        repository.git("reset", "-q", "--hard", "HEAD^")
        repository.commit("Other history", {"cluster.yaml": "name: rewritten\n"})
        tree = here.fetch_blocking()
        assert tree.revision.commit == repository.head
        assert tree.rewritten
        assert tree.changed["cluster.yaml"][1] == "Other history"

    def test_a_vanished_branch_says_so_and_asks_for_nothing(
        self, repository: Repository, place: str, tmp_path: Path
    ) -> None:
        """SG-20."""
        here = source(place, tmp_path, ref="feature/x")
        here.fetch_blocking()
        repository.git("branch", "-D", "feature/x")
        with pytest.raises(
            SourceUnusable, match="has no branch, tag or commit feature/x; nothing is changed or removed"
        ):
            here.fetch_blocking()

    def test_a_misspelt_branch_is_answered_with_the_right_one(self, place: str, tmp_path: Path) -> None:
        with pytest.raises(SourceUnusable) as caught:
            source(place, tmp_path, ref="featur/x").fetch_blocking()
        assert caught.value.hint == 'did you mean "feature/x"?'

    def test_an_unknown_commit_is_said(self, place: str, tmp_path: Path) -> None:
        for ref in ("1234567", "1" * 40):
            with pytest.raises(SourceUnusable, match="has no branch, tag or commit"):
                source(place, tmp_path, ref=ref).fetch_blocking()

    def test_a_branch_and_a_tag_of_one_name_are_not_guessed(
        self, repository: Repository, place: str, tmp_path: Path
    ) -> None:
        repository.git("branch", "v1")
        with pytest.raises(SourceUnusable, match="v1 is a branch and a tag"):
            source(place, tmp_path, ref="v1").fetch_blocking()

    def test_a_tag_of_a_file_is_no_commit(self, repository: Repository, place: str, tmp_path: Path) -> None:
        repository.git("tag", "blob", repository.tree("cluster.yaml"))
        with pytest.raises(SourceUnusable):
            source(place, tmp_path, ref="blob").fetch_blocking()

    def test_only_the_named_folder_of_the_repository_counts(
        self, repository: Repository, place: str, tmp_path: Path
    ) -> None:
        inner = {f"clusters/lab/{name}": content for name, content in FILES.items()}
        repository.commit("Inner", {**inner, "clusters/lab/apps/inner/manifest.yaml": "x\n"})
        tree = source(place, tmp_path, path="clusters/lab").fetch_blocking()
        assert set(tree.folders) == {"apps/demo-app", "apps/inner"}
        assert set(tree.changed) == {"apps/demo-app", "apps/inner", "cluster.yaml"}
        assert contents(tree)["main.py"] == CODE

    def test_a_folder_that_holds_nothing_is_said(self, place: str, tmp_path: Path) -> None:
        with pytest.raises(SourceUnusable, match=r"nowhere/ of main .* holds neither cluster.yaml nor apps/"):
            source(place, tmp_path, path="nowhere").fetch_blocking()


def test_a_path_inside_a_repository_counts_from_there(repository: Repository, tmp_path: Path) -> None:
    repository.commit("Inner", {f"clusters/lab/{name}": content for name, content in FILES.items()})
    tree = source(repository.path / "clusters", tmp_path, path="lab").fetch_blocking()
    assert set(tree.folders) == {"apps/demo-app"}
    assert tree.folders["apps/demo-app"].tree == repository.tree("clusters/lab/apps/demo-app")


def test_a_detached_head_and_a_bare_repository_are_fine(repository: Repository, tmp_path: Path) -> None:
    repository.git("checkout", "-q", "--detach")
    assert fetch(repository).revision.ref == "HEAD"
    repository.git("clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    assert source(tmp_path / "bare.git", tmp_path).fetch_blocking().revision.commit == repository.head


def test_the_branch_that_was_checked_out_at_first_is_followed(repository: Repository, tmp_path: Path) -> None:
    here = source(repository.path, tmp_path)
    first = here.fetch_blocking()
    repository.git("checkout", "-q", "-b", "other")
    repository.commit("Elsewhere", {"cluster.yaml": "name: other\n"})
    assert here.fetch_blocking() is first
    repository.git("checkout", "-q", "main")
    newest = repository.commit("Here", {"cluster.yaml": "name: here\n"})
    assert here.fetch_blocking().revision.commit == newest


def test_a_head_that_is_detached_later_leaves_the_last_commit_in_force(repository: Repository, tmp_path: Path) -> None:
    """What `git rebase`, `git bisect` and `git checkout COMMIT` make of the folder that is followed."""
    repository.commit("Second", {"apps/two/manifest.yaml": "x\n"})
    here = source(repository.path, tmp_path)
    here.fetch_blocking()
    repository.git("checkout", "-q", "--detach", "HEAD^")
    with pytest.raises(SourceUnusable, match=r"is detached.* what was read of main last stays in force") as told:
        here.fetch_blocking()
    assert "git switch main" in told.value.hint and "--ref main" in told.value.hint
    repository.git("checkout", "-q", "main")
    assert here.fetch_blocking().revision.ref == "main"


def test_a_branch_that_a_rebase_rewrote_is_said_to_be(repository: Repository, tmp_path: Path) -> None:
    """SG-19."""
    repository.commit("Second", {"apps/two/manifest.yaml": "x\n"})
    here = source(repository.path, tmp_path)
    here.fetch_blocking()
    repository.git("checkout", "-q", "--detach", "HEAD^")
    with pytest.raises(SourceUnusable):
        here.fetch_blocking()
    rebased = repository.commit("Second, again", {"apps/three/manifest.yaml": "x\n"})
    repository.git("checkout", "-q", "-B", "main")
    tree = here.fetch_blocking()
    assert (tree.revision.commit, tree.rewritten) == (rebased, True)
    assert tree.changed["apps/three"] == (rebased, "Second, again")


def test_another_default_branch_without_what_was_seen_is_another_history(repository: Repository) -> None:
    bare = repository.path.parent / "bare.git"
    repository.git("clone", "-q", "--bare", ".", str(bare))
    here = source(bare, bare.parent)
    here.fetch_blocking()
    repository.git("checkout", "-q", "--orphan", "trunk")
    repository.commit("Anew", {})
    repository.git("push", "-q", str(bare), "trunk")
    repository.git("--git-dir", str(bare), "symbolic-ref", "HEAD", "refs/heads/trunk")
    tree = here.fetch_blocking()
    assert (tree.revision.ref, tree.rewritten) == ("trunk", True)


def test_who_starts_on_a_detached_head_follows_it(repository: Repository, tmp_path: Path) -> None:
    repository.git("checkout", "-q", "--detach")
    here = source(repository.path, tmp_path)
    here.fetch_blocking()
    second = repository.commit("Second", {"cluster.yaml": "name: second\n"})
    assert here.fetch_blocking().revision.commit == second


def test_a_branch_that_only_the_remote_has_is_found_in_a_ci_checkout(repository: Repository, tmp_path: Path) -> None:
    repository.git("branch", "feature")
    repository.git("clone", "-q", "-b", "main", ".", str(tmp_path / "clone"))
    assert source(tmp_path / "clone", tmp_path, ref="feature").fetch_blocking().revision.ref == "feature"


# ── What cannot be used ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_repository_without_commits_is_said(tmp_path: Path) -> None:
    empty = Repository(tmp_path / "repo", {})
    with pytest.raises(SourceUnusable, match="has no commits"):
        fetch(empty)


def test_an_empty_commit_is_a_mistake_not_a_wish(repository: Repository) -> None:
    """SG-20."""
    repository.git("rm", "-rq", ".")
    repository.git("commit", "-qm", "Remove everything")
    with pytest.raises(SourceUnusable, match="nothing is changed or removed"):
        fetch(repository)


def test_a_missing_cluster_file_is_said_and_removes_nothing(repository: Repository) -> None:
    """SG-20."""
    repository.commit("Oops", {"cluster.yaml": None})
    tree = fetch(repository)
    assert tree.cluster_file is None
    with pytest.raises(SourceUnusable, match=r"no cluster\.yaml in main@sha1:"):
        declare(tree)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("nowhere", "nowhere does not exist"),
        ("file.txt", "file.txt cannot be entered"),
        ("plain", "plain is not a git repository"),
    ],
)
def test_what_is_no_repository_is_said(tmp_path: Path, place: str, told: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "plain").mkdir()
    with pytest.raises(SourceUnusable, match=told) as refused:
        source(tmp_path / place, tmp_path).fetch_blocking()
    assert "install" not in refused.value.hint


def test_where_git_is_not_installed_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceUnusable, match="git is not installed"):
        source(tmp_path, tmp_path).fetch_blocking()


def test_a_server_that_does_not_answer_is_unreachable(server: GitServer, tmp_path: Path) -> None:
    url = f"{server.url}/repo/.git"
    server.shutdown()
    server.server_close()
    with pytest.raises(Unreachable):
        source(url, tmp_path).fetch_blocking()


def test_a_repository_that_is_not_there_is_said(server: GitServer, tmp_path: Path) -> None:
    with pytest.raises(SourceUnusable, match="may not be read or is not there"):
        source(f"{server.url}/nowhere.git", tmp_path).fetch_blocking()


async def test_who_stops_waiting_for_a_server_ends_git_and_its_thread(tmp_path: Path) -> None:
    """Else a signal to end waits until git does: half a minute for a question, five minutes for a fetch."""
    asked = asyncio.Event()
    connected: list[asyncio.StreamWriter] = []

    def says_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(writer)
        asked.set()

    async with await asyncio.start_server(says_nothing, "127.0.0.1", 0) as silent:
        here = source(f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/lab.git", tmp_path)
        fetching = asyncio.create_task(here.fetch())
        await asyncio.wait_for(asked.wait(), 20)
        fetching.cancel()
        await asyncio.wait({fetching})
        ended = asyncio.create_task(asyncio.to_thread(here._lock.acquire))  # pyright: ignore[reportPrivateUsage]
        try:
            await asyncio.wait_for(ended, 10)
        finally:
            for writer in connected:
                writer.close()


# ── Through a mirror ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("repository")
def test_a_pass_without_news_asks_and_fetches_nothing(server: GitServer, tmp_path: Path) -> None:
    here = source(f"{server.url}/repo/.git", tmp_path)
    first = here.fetch_blocking()
    server.requests.clear()
    assert here.fetch_blocking() is first
    assert sum("git-upload-pack" in request for request in server.requests) == 2, "one question is two requests"


@pytest.mark.usefixtures("repository")
def test_a_restarted_process_reads_from_the_mirror_it_finds(server: GitServer, tmp_path: Path) -> None:
    url = f"{server.url}/repo/.git"
    first = source(url, tmp_path).fetch_blocking()
    again = source(url, tmp_path).fetch_blocking()
    assert (again.revision, again.folders) == (first.revision, first.folders)
    mirrors = [path for path in (tmp_path / "mirrors").iterdir() if path.suffix == ".git"]
    assert len(mirrors) == 1
    assert not (mirrors[0] / "hooks").exists()


def test_a_pinned_commit_needs_no_server_once_it_is_here(
    repository: Repository, server: GitServer, tmp_path: Path
) -> None:
    url, ref = f"{server.url}/repo/.git", repository.head
    source(url, tmp_path, ref=ref).fetch_blocking()
    server.shutdown()
    server.server_close()
    assert source(url, tmp_path, ref=ref).fetch_blocking().revision.commit == ref


@pytest.mark.usefixtures("repository")
def test_credentials_of_the_url_open_the_repository_and_are_never_shown(server: GitServer, tmp_path: Path) -> None:
    """SG-05."""
    server.authorization = "Basic " + base64.b64encode(b"anna:s3cr3t").decode()
    place = f"127.0.0.1:{server.server_port}/repo/.git"
    tree = source(f"http://anna:s3cr3t@{place}", tmp_path).fetch_blocking()
    assert tree.revision.url == f"http://{place}"
    with pytest.raises(SourceUnusable) as caught:
        source(f"http://anna:wr0ng@{place}", tmp_path).fetch_blocking()
    assert "wr0ng" not in f"{caught.value} {caught.value.hint}"
    stored = [path.read_bytes() for path in (tmp_path / "mirrors").rglob("*") if path.is_file()]
    assert not any(b"s3cr3t" in data for data in stored)


@pytest.mark.usefixtures("repository")
def test_a_redirect_is_not_followed(server: GitServer, tmp_path: Path) -> None:
    """SG-06."""
    with git_server(tmp_path) as elsewhere:
        server.redirect = elsewhere.url
        with pytest.raises(SourceUnusable, match="redirect"):
            source(f"{server.url}/repo/.git", tmp_path).fetch_blocking()
        assert elsewhere.requests == []


def test_objects_made_to_attack_git_are_not_taken_in(repository: Repository, server: GitServer, tmp_path: Path) -> None:
    """SG-24, SG-09."""
    repository.plant("100644", ".gitmodules", '[submodule "x"]\n\tpath = x\n\turl = --upload-pack=touch\n')
    with pytest.raises(SourceUnusable, match="takes for an attack"):
        source(f"{server.url}/repo/.git", tmp_path).fetch_blocking()


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        (
            "git@host: Permission denied (publickey).\nfatal: Could not read from remote repository.\n\n"
            "Please make sure you have the correct access rights\nand the repository exists.",
            SourceUnusable,
            "git@host: Permission denied (publickey).",
        ),
        (
            "ssh: Could not resolve hostname host: Name or service not known\n"
            "fatal: Could not read from remote repository.",
            Unreachable,
            "Could not resolve hostname host",
        ),
        ("fatal: Authentication failed for 'https://h/'", SourceUnusable, "Authentication failed"),
        ("fatal: unable to access 'https://h/': Could not resolve host: h", Unreachable, "Could not resolve host"),
        ("", Unreachable, "git ended with code 128"),
    ],
)
def test_of_all_that_git_says_the_reason_is_told(said: str, kind: type[Exception], told: str) -> None:
    error = as_source_error(GitFailed(128, said), "https://h/")
    assert isinstance(error, kind)
    assert told in str(error)


def test_a_mirror_does_not_grow_without_bound(
    repository: Repository, server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SG-18."""
    repository.commit("Big", {"apps/demo-app/data.bin": os.urandom(2_000_000)})
    monkeypatch.setattr("reconciler.adapters.git.mirror.MAX_MIRROR", 100_000)
    with pytest.raises(SourceUnusable, match="is larger than"):
        source(f"{server.url}/repo/.git", tmp_path).fetch_blocking()


def test_a_branch_that_is_gone_does_not_have_all_of_the_mirror_read(
    repository: Repository, server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsck takes minutes of a large one. A git that notes it stands in."""
    repository.git("branch", "prod")
    here = source(f"{server.url}/repo/.git", tmp_path, ref="prod")
    here.fetch_blocking()
    repository.git("branch", "-D", "prod")
    shim, noted = tmp_path / "bin" / "git", tmp_path / "noted"
    shim.parent.mkdir()
    shim.write_text(
        f'#!/bin/sh\nfor word; do [ "$word" = fsck ] && echo fsck >> {noted}; done\nPATH="${{PATH#*:}}" exec git "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(shim.parent), prepend=":")
    with pytest.raises(SourceUnusable, match="has no branch"):
        here.fetch_blocking()
    assert not noted.exists()


@pytest.mark.usefixtures("repository")
def test_a_second_process_waits_for_the_mirror(tmp_path: Path, server: GitServer) -> None:
    here = source(f"{server.url}/repo/.git", tmp_path)
    mirror = here._mirror  # pyright: ignore[reportPrivateUsage]
    assert isinstance(mirror, Mirror)
    (tmp_path / "mirrors").mkdir()
    with mirror._locked(), pytest.MonkeyPatch.context() as patch:  # pyright: ignore[reportPrivateUsage]
        patch.setattr("reconciler.adapters.git.mirror.FETCH_TIMEOUT", 0.1)
        with pytest.raises(Unreachable, match="another process keeps fetching"):
            here.fetch_blocking()
    here.fetch_blocking()


# ── Attacks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_hooks_filters_monitors_and_programs_of_a_repository_never_run(repository: Repository, tmp_path: Path) -> None:
    """SG-08."""
    pwned = tmp_path / "pwned"
    touch = f"touch {pwned}"
    for name in ("post-checkout", "reference-transaction", "pre-auto-gc", "fsmonitor-watchman", "post-index-change"):
        hook = repository.path / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\n{touch}\n")
        hook.chmod(0o755)
    for key in (
        *("core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass", "core.gitProxy"),
        *("diff.external", "gpg.program", "credential.helper", "filter.x.smudge", "filter.x.clean", "diff.x.textconv"),
        *("filter.x.process", "uploadpack.packObjectsHook", "core.alternateRefsCommand", "remote.origin.uploadpack"),
    ):
        repository.git("config", key, touch)
    repository.git("config", "log.showSignature", "true")
    repository.git("config", "core.hooksPath", str(repository.path / ".git" / "hooks"))
    repository.git("config", "extensions.partialClone", "origin")
    repository.git("config", "remote.origin.url", f"ext::{touch}")
    repository.write({".gitattributes": "* filter=x diff=x\n", "apps/demo-app/main.py": CODE + "# changed\n"})
    assert contents(fetch(repository))["main.py"] == CODE
    assert contents(fetch(repository, worktree=True))["main.py"] == CODE + "# changed\n"
    with git_server(tmp_path) as server:
        source(f"{server.url}/repo/.git", tmp_path).fetch_blocking()
    assert not pwned.exists()


def test_a_missing_object_is_never_fetched_from_where_the_repository_says(
    repository: Repository, tmp_path: Path
) -> None:
    """SG-08."""
    pwned = tmp_path / "pwned"
    oid = repository.plant("100644", "apps/demo-app/gone.bin", "precious")
    blob = repository.git("rev-parse", f"{oid}:apps/demo-app/gone.bin")
    (repository.path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    repository.git("config", "core.repositoryFormatVersion", "1")
    repository.git("config", "extensions.partialClone", "origin")
    repository.git("config", "remote.origin.promisor", "true")
    repository.git("config", "remote.origin.url", f"ext::sh -c 'touch {pwned}'")
    with pytest.raises(SourceUnusable):
        tree = fetch(repository)
        tree.read(blob)
    assert not pwned.exists()


@pytest.mark.parametrize("url", ["ext::sh -c 'touch {0}'", "--upload-pack=touch {0}", "file://{0}", "{0}"])
def test_git_itself_refuses_dangerous_transports_even_if_we_did_not(tmp_path: Path, url: str) -> None:
    """SG-01, SG-02, SG-03."""
    pwned = tmp_path / "pwned"
    with pytest.raises(GitFailed):
        Git(cwd=tmp_path)("ls-remote", "--end-of-options", url.format(pwned))
    assert not pwned.exists()


def test_a_symbolic_link_is_named_and_not_followed(repository: Repository) -> None:
    """SG-12, SG-13."""
    repository.plant("120000", "apps/demo-app/secret.yaml", "../../../../etc/passwd")
    tree = fetch(repository)
    assert tree.folders["apps/demo-app"].refused == {"secret.yaml": "a symbolic link; links are never followed"}
    assert "secret.yaml" not in tree.folders["apps/demo-app"].files
    assert "symbolic link" in declare(tree).broken["demo"][0].message


@pytest.mark.parametrize("path", ["apps/linked", "cluster.yaml", "apps/demo-app/manifest.yaml"])
def test_links_in_place_of_folders_and_files_are_refused(repository: Repository, path: str) -> None:
    """SG-11, SG-12."""
    repository.plant("120000", path, "/etc/passwd")
    tree = fetch(repository)
    assert path.endswith("manifest.yaml") or "symbolic link" in tree.refused[path]
    assert not path.endswith("manifest.yaml") or "manifest.yaml" in tree.folders["apps/demo-app"].refused


def test_a_submodule_is_named_and_never_fetched(repository: Repository) -> None:
    """SG-09, SG-16."""
    repository.plant("100644", ".gitmodules", '[submodule "x"]\n\tpath = apps/sub\n\turl = ext::touch pwned\n')
    repository.plant("160000", "apps/sub", repository.head)
    repository.plant("160000", "apps/demo-app/vendor", repository.head)
    tree = fetch(repository)
    assert tree.refused == {"apps/sub": "a submodule; submodules are never fetched"}
    assert "vendor" in tree.folders["apps/demo-app"].refused


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"caf\xe9.py", "its name is not UTF-8"),
        (b"a\nb.py", "its name has an invisible character"),
        (b"a\x01b.py", "its name has an invisible character"),
        ("a\u202eyp.exe".encode(), "its name has an invisible character"),
        (b"..\\x.py", "its name has a backslash, which divides folders on some systems"),
        (b"long/" * 60 + b"x", "its name is longer than 240 bytes"),
    ],
)
def test_an_odd_file_name_breaks_its_app_and_is_shown_harmlessly(
    repository: Repository, name: bytes, reason: str
) -> None:
    """SG-14."""
    place = os.fsencode(repository.path) + b"/apps/demo-app/" + name
    os.makedirs(os.path.dirname(place), exist_ok=True)  # noqa: PTH103, PTH120 - names that are no text
    descriptor = os.open(place, os.O_CREAT | os.O_WRONLY)
    os.close(descriptor)
    repository.commit("Odd", {})
    problems = declare(fetch(repository)).broken["demo"]
    assert [problem.message for problem in problems] == [reason]
    assert str(problems[0].where).isprintable()
    worktree = fetch(repository, worktree=True)
    assert worktree.folders["apps/demo-app"].tree == repository.tree("apps/demo-app")


def test_a_folder_name_cannot_forge_what_changed(repository: Repository) -> None:
    forged = "a" * 40
    repository.commit(f"Subject\x01{forged}", {f"apps/x\x01{forged}/f": "1"})
    changed = fetch(repository).changed
    assert changed["apps/demo-app"][0] != forged
    assert all(commit != forged for commit, _ in changed.values())


def test_too_many_files_are_refused(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """SG-18."""
    monkeypatch.setattr("reconciler.adapters.git.listing.MAX_ENTRIES", 3)
    with pytest.raises(SourceUnusable, match="more than 3 files"):
        fetch(repository)


def test_an_answer_that_is_too_long_or_takes_too_long_ends(repository: Repository) -> None:
    """SG-18."""
    git = Git(cwd=repository.path)
    with pytest.raises(SourceUnusable, match="answered with more than"):
        git("cat-file", "--batch-all-objects", "--batch", limit=10)
    with pytest.raises(Unreachable, match="did not end within"):
        git("cat-file", "--batch", "--batch-all-objects", timeout=0.0)


def test_settings_of_the_environment_do_not_reach_git(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    assert fetch(repository).revision.commit == repository.head.strip()


# ── Uncommitted files ──────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unchanged_work_tree_has_the_ids_of_head(repository: Repository) -> None:
    repository.commit("Shapes", {"apps/demo-app/a/x": "1", "apps/demo-app/a.b/x": "2", "apps/demo-app/a0": "3"})
    (repository.path / "apps/demo-app/a0").chmod(0o755)
    repository.commit("Mode", {})
    committed, worktree = fetch(repository), fetch(repository, worktree=True)
    assert worktree.folders == committed.folders
    assert worktree.cluster_file == committed.cluster_file
    assert worktree.revision == committed.revision
    assert not worktree.revision.worktree


@pytest.mark.parametrize(
    "change",
    [
        {"apps/demo-app/main.py": "x = 1\n"},
        {"apps/demo-app/new.py": "x = 1\n"},
        {"apps/demo-app/main.py": None},
        {"apps/new/manifest.yaml": "x\n"},
        {"cluster.yaml": "name: lab\n"},
    ],
    ids=["changed", "new", "deleted", "new folder", "cluster.yaml"],
)
def test_uncommitted_files_are_read_and_the_plan_is_marked(
    repository: Repository, change: dict[str, str | bytes | None]
) -> None:
    repository.write(change)
    tree = fetch(repository, worktree=True)
    assert tree.revision.worktree
    assert tree.revision.short.endswith("+worktree")
    for name, content in change.items():
        if name.startswith("apps/demo-app/"):
            assert contents(tree).get(name.removeprefix("apps/demo-app/")) == content
    ids = {path: folder.tree for path, folder in tree.folders.items()}
    repository.commit("Commit it", {})
    assert ids == {path: folder.tree for path, folder in fetch(repository).folders.items()}


def test_changes_elsewhere_do_not_mark_the_plan(repository: Repository) -> None:
    repository.write({"README.md": "x\n"})
    assert not fetch(repository, worktree=True).revision.worktree


def test_what_git_ignores_is_not_read(repository: Repository) -> None:
    repository.commit("Ignore", {".gitignore": "*.log\n__pycache__/\n"})
    repository.write({"apps/demo-app/x.log": "x", "apps/demo-app/__pycache__/m.pyc": "x"})
    tree = fetch(repository, worktree=True)
    assert not tree.revision.worktree
    assert "x.log" not in tree.folders["apps/demo-app"].files


def test_a_work_tree_needs_no_commit(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo", {})
    repository.write(dict(FILES))
    tree = fetch(repository, worktree=True)
    assert tree.revision.worktree
    assert declare(tree).broken == {}


def test_links_and_repositories_inside_a_work_tree_are_refused(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (repository.path / "apps/demo-app/link").symlink_to(tmp_path / "secret")
    (repository.path / "apps/out").symlink_to(tmp_path)
    Repository(repository.path / "apps/demo-app/inner")
    tree = fetch(repository, worktree=True)
    assert set(tree.folders["apps/demo-app"].refused) == {"link", "inner"}
    assert set(tree.refused) == {"apps/out"}


def test_a_pipe_in_a_work_tree_is_refused_not_waited_for(repository: Repository) -> None:
    os.mkfifo(repository.path / "apps/demo-app/pipe")
    tree = fetch(repository, worktree=True)
    assert "pipe" not in tree.folders["apps/demo-app"].files


def test_a_file_that_changes_while_it_is_read_is_said(repository: Repository) -> None:
    tree = fetch(repository, worktree=True)
    repository.write({"apps/demo-app/main.py": "later\n"})
    with pytest.raises(SourceUnusable, match="changed while it was being read"):
        contents(tree)


def test_a_work_tree_is_read_from_a_folder_inside_it(repository: Repository, tmp_path: Path) -> None:
    repository.commit("Inner", {f"clusters/lab/{name}": content for name, content in FILES.items()})
    repository.write({"clusters/lab/apps/demo-app/new.py": "x\n"})
    tree = source(repository.path / "clusters" / "lab", tmp_path, worktree=True).fetch_blocking()
    assert "new.py" in tree.folders["apps/demo-app"].files
    assert set(tree.folders) == {"apps/demo-app"}


@pytest.mark.parametrize(
    ("place", "options"),
    [("https://example.org/apps", {}), (".", {"ref": "main"})],
)
def test_a_work_tree_is_local_and_has_no_ref(tmp_path: Path, place: str, options: dict[str, str]) -> None:
    with pytest.raises(SourceUnusable):
        source(place, tmp_path, worktree=True, **options)


def test_a_bare_repository_has_no_work_tree(repository: Repository, tmp_path: Path) -> None:
    repository.git("clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    with pytest.raises(SourceUnusable, match="is a bare repository"):
        source(tmp_path / "bare.git", tmp_path, worktree=True).fetch_blocking()


def test_a_repository_of_longer_ids_is_read_too(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo", object_format="sha256")
    committed, worktree = fetch(repository), fetch(repository, worktree=True)
    assert len(committed.revision.commit) == 64
    assert worktree.folders == committed.folders
    assert not worktree.revision.worktree
