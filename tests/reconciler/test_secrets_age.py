"""Secrets that stand in git: opened with the right key only, written without harm, edited and rotated."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bioengine_runtime.contract.base import SecretFromAge, SecretRef
from reconciler.age import RECIPIENTS_FILE, decrypt, encrypt, new_identity, read_identities
from reconciler.cli.commands import app
from reconciler.errors import InvalidDesiredState
from reconciler.planning.declare import declare
from reconciler.planning.problems import Location
from reconciler.ports import SecretUnavailable
from reconciler.secrets import CannotOpen, LocalSecrets
from tests.fakes import FakeSource, an_app_folder

VALUE = "xK9-canary-value-77"
CLUSTER = """\
# The lab's cluster.
name: lab   # where it stands

apps:
  one:
    source: apps/one
    # of the database
    env:
      Main:
        LEVEL: "1.10"   # in quotes
    depends_on:
      - two
  two: {source: apps/two}
"""


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "home" / "secrets" / "age.key"
    file.parent.mkdir(parents=True)
    file.write_text(new_identity()[0] + "\n")
    return file


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "cluster.yaml").write_text(CLUSTER)
    return folder


@pytest.fixture(autouse=True)
def no_key_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECONCILE_AGE_IDENTITY", raising=False)


def a_ref(file: Path, value: str = VALUE) -> SecretFromAge:
    return SecretFromAge(age=encrypt(value, [str(read_identities(file)[-1].to_public())]))


def secrets(tmp_path: Path, file: Path | None) -> LocalSecrets:
    environ = {"RECONCILE_AGE_IDENTITY": str(file)} if file else {}
    ours = LocalSecrets(tmp_path / "fingerprint.key", environ=environ)
    ours.made_key()
    return ours


def run(tmp_path: Path, *words: str, value: str | None = None) -> Any:
    at = ["--repo", str(tmp_path / "repo"), "--home", str(tmp_path / "home")]
    return CliRunner().invoke(app, ["secrets", *words, *at], input=value)


def cluster(repo: Path) -> str:
    return (repo / "cluster.yaml").read_text()


def value_of(repo: Path, key: Path, app_id: str = "one", name: str = "PASS", file: str = "cluster.yaml") -> str:
    source = FakeSource({"cluster.yaml": (repo / file).read_text(), **an_app_folder("one"), **an_app_folder("two")})
    desired = declare(_fetched(source))
    assert desired.broken == {}
    ref = next(table[name] for table in desired.apps[app_id].secrets.values() if name in table)
    assert isinstance(ref, SecretFromAge)
    return decrypt(ref.age, read_identities(key))


def _fetched(source: FakeSource) -> Any:
    return asyncio.run(source.fetch())


# ── Opening ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("armored", [True, False])
def test_an_encrypted_value_is_opened_in_either_form(tmp_path: Path, key: Path, armored: bool) -> None:
    ref = a_ref(key)
    if not armored:
        ref = SecretFromAge(age="".join(ref.age.splitlines()[1:-1]))
    assert secrets(tmp_path, key).resolve("one", {"*": {"PASS": ref}}).values == {"*": {"PASS": VALUE}}


def test_the_key_lies_beside_that_of_the_fingerprints(tmp_path: Path, key: Path) -> None:
    ours = LocalSecrets(key.with_name("fingerprint.key"), environ={})
    assert ours.read(a_ref(key)) == VALUE and tmp_path.exists()


def damaged(ref: SecretFromAge) -> SecretFromAge:
    lines = ref.age.splitlines()
    lines[-2] = lines[-2][::-1] if lines[-2] != lines[-2][::-1] else "A" + lines[-2][1:]
    return SecretFromAge(age="\n".join(lines))


def test_ss_07_wrong_key_damage_and_no_key_are_told_by_app_variable_and_line(tmp_path: Path, key: Path) -> None:
    other = tmp_path / "other.key"
    other.write_text("# ours\n" + new_identity()[0])
    ref = a_ref(key)
    for file, broken, why in [
        (other, ref, "encrypted for another key"),
        (key, damaged(ref), "it is damaged"),
        (tmp_path / "nowhere.key", ref, "nowhere.key cannot be read: No such file"),
        (None, ref, "age.key cannot be read: No such file"),
    ]:
        with pytest.raises(SecretUnavailable) as error:
            secrets(tmp_path, file).resolve("one", {"*": {"PASS": broken.at("cluster.yaml:9:7")}})
        assert all(word in str(error.value) for word in ("one:", "PASS", "cluster.yaml:9:7", why)), str(error.value)
        assert VALUE not in str(error.value) and ref.age.splitlines()[1] not in str(error.value)
        assert error.value.__cause__ is None or VALUE not in repr(error.value.__cause__)


def test_ss_07_what_cannot_be_opened_is_not_compared_and_no_change(tmp_path: Path, key: Path) -> None:
    table = {"*": {"PASS": damaged(a_ref(key))}}
    assert secrets(tmp_path, key).fingerprints("one", table) == {"*/PASS": None}


def test_ss_07_a_key_file_with_something_else_in_it_names_the_line_and_not_the_content(tmp_path: Path) -> None:
    file = tmp_path / "age.key"
    file.write_text(f"# a comment\n{VALUE}\n")
    with pytest.raises(CannotOpen) as error:
        read_identities(file)
    assert "age.key:2" in str(error.value) and VALUE not in str(error.value)


def test_ss_03_a_changed_value_has_another_fingerprint_and_the_same_value_the_same(tmp_path: Path, key: Path) -> None:
    ours = secrets(tmp_path, key)

    def fingerprint(ref: SecretRef) -> str | None:
        return ours.fingerprints("one", {"*": {"PASS": ref}})["*/PASS"]

    again = a_ref(key)
    assert again.age != a_ref(key).age, "age never writes the same text twice"
    assert fingerprint(again) == fingerprint(a_ref(key)) != fingerprint(a_ref(key, "another value"))


def test_a_reference_shows_where_it_stands_and_neither_text_nor_value(key: Path) -> None:
    ref = a_ref(key).at("cluster.yaml:3:1")
    assert ref.described() == "age:cluster.yaml:3:1"
    assert ref.age.splitlines()[1] not in repr(ref)


def test_declaring_tells_the_reference_its_line() -> None:
    armored = "\n".join(f"            {line}" for line in encrypt(VALUE, [new_identity()[1]]).splitlines())
    head = "name: lab\napps:\n  one:\n    source: apps/one\n    env:\n      Main:\n        PASS:\n"
    text = f"{head}          age: |\n{armored}\n"
    desired = declare(_fetched(FakeSource({"cluster.yaml": text, **an_app_folder("one")})))
    assert desired.apps["one"].where == Location("cluster.yaml", 3, 3)
    assert desired.apps["one"].secrets["Main"]["PASS"].described() == "age:cluster.yaml:7:9"
    assert desired.apps["one"].spec.secrets == {"Main": ["PASS"]}


@pytest.mark.parametrize(
    "reference", ["{age: hunter-22}", "{age: hunter-22, extra: 1}", "{ag: hunter-22}", "\n          age: hunter-22"]
)
def test_ss_07_a_plain_value_where_an_encrypted_one_belongs_is_not_repeated(reference: str) -> None:
    text = f"name: lab\napps:\n  one:\n    source: apps/one\n    env:\n      Main:\n        MODE: {reference}\n"
    with pytest.raises(InvalidDesiredState) as error:
        declare(_fetched(FakeSource({"cluster.yaml": text, **an_app_folder("one")})))
    assert any(problem.where.line >= 7 for problem in error.value.problems)
    if "{ag:" not in reference:
        assert "hunter-22" not in repr(error.value.problems)


# ── keygen ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ss_04_a_key_is_made_for_us_alone_and_never_overwritten(tmp_path: Path, repo: Path) -> None:
    made = run(tmp_path, "keygen")
    file = tmp_path / "home" / "secrets" / "age.key"
    assert made.exit_code == 0 and made.stdout.strip() == str(read_identities(file)[0].to_public())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    before = file.read_text()
    again = run(tmp_path, "keygen")
    assert again.exit_code == 1 and "there already" in again.stderr and file.read_text() == before
    assert before.splitlines()[1] not in made.output + again.output
    assert repo.exists()


def test_a_key_is_not_made_among_the_files_of_the_repository(repo: Path) -> None:
    made = CliRunner().invoke(app, ["secrets", "keygen", "--repo", str(repo), "--home", str(repo / "home")])
    assert made.exit_code == 1 and "among the files" in made.stderr and not (repo / "home").exists()


def test_ss_04_a_key_of_a_sub_folder_of_a_repository_is_ignored_by_git(tmp_path: Path) -> None:
    """What we keep lies beside the folder that is named, and so in the repository."""
    (tmp_path / "deploy").mkdir()
    git(tmp_path, "init", "-q")
    made = CliRunner().invoke(app, ["secrets", "keygen", "--repo", str(tmp_path / "deploy")])
    assert made.exit_code == 0 and (tmp_path / ".bioengine" / "secrets" / "age.key").is_file()
    assert git(tmp_path, "status", "--porcelain", "--untracked-files=all") == ""


def test_ss_04_no_key_is_made_where_the_next_git_add_takes_it_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").touch()
    git(tmp_path, "init", "-q")
    words = ["secrets", "keygen", "--repo", str(tmp_path / "deploy"), "--home", str(tmp_path / "own")]
    made = CliRunner().invoke(app, words)
    assert made.exit_code == 1 and f"the repository {tmp_path}" in made.stderr
    monkeypatch.setenv("RECONCILE_AGE_IDENTITY", str(tmp_path / "mine.key"))
    assert CliRunner().invoke(app, words[:4]).exit_code == 1
    assert git(tmp_path, "status", "--porcelain", "--untracked-files=all") == "?? own/notes.txt"


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_a_key_may_lie_elsewhere(tmp_path: Path, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILE_AGE_IDENTITY", str(tmp_path / "elsewhere" / "my.key"))
    assert run(tmp_path, "keygen").exit_code == 0
    assert read_identities(tmp_path / "elsewhere" / "my.key")
    assert not (tmp_path / "home").exists() and repo.exists()


# ── encrypt ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_printed_can_be_put_into_the_file(tmp_path: Path, repo: Path, key: Path) -> None:
    printed = run(tmp_path, "encrypt", "PASS", value=VALUE + "\n")
    assert printed.exit_code == 0 and VALUE not in printed.output
    snippet = "".join(f"        {line}\n" for line in printed.stdout.splitlines())
    (repo / "cluster.yaml").write_text(CLUSTER.replace("      Main:\n", f"      Main:\n{snippet}"))
    assert value_of(repo, key) == VALUE


@pytest.mark.parametrize(
    ("target", "name", "app_id"),
    [("one.Main.PASS", "PASS", "one"), ("one.*.PASS", "PASS", "one"), ("two.hypha_token", "HYPHA_TOKEN", "two")],
)
def test_a_value_is_written_in_place_and_all_else_stays(
    tmp_path: Path, repo: Path, key: Path, target: str, name: str, app_id: str
) -> None:
    done = run(tmp_path, "encrypt", "--set", target, value=VALUE)
    assert done.exit_code == 0 and VALUE not in done.output + cluster(repo)
    assert value_of(repo, key, app_id, name) == VALUE
    kept = [line for line in CLUSTER.splitlines() if "two: {" not in line]
    assert [line for line in cluster(repo).splitlines() if line in kept] == kept


def test_the_example_keeps_every_line_when_a_value_is_written(tmp_path: Path, repo: Path, key: Path) -> None:
    example = (Path(__file__).parents[2] / "example-desired-state" / "cluster.yaml").read_text()
    (repo / "cluster.yaml").write_text(example)
    assert run(tmp_path, "encrypt", "--set", "demo-app.DemoApp.PASS", value=VALUE).exit_code == 0
    left = iter(cluster(repo).splitlines())
    assert all(line in left for line in example.splitlines()), "every line is there still, in the same order"
    assert key.exists()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("onee.Main.PASS", 'did you mean "one"?'),
        ("one.PASS", "names no place of a secret"),
        ("one.Main.PA-SS", "names no place of a secret"),
    ],
)
def test_a_target_that_is_none_changes_nothing(tmp_path: Path, repo: Path, key: Path, target: str, words: str) -> None:
    done = run(tmp_path, "encrypt", "--set", target, value=VALUE)
    assert done.exit_code == 1 and words in done.stderr and cluster(repo) == CLUSTER and key.exists()


def test_an_empty_value_and_a_bad_recipient_are_refused(tmp_path: Path, repo: Path, key: Path) -> None:
    assert "the value is empty" in run(tmp_path, "encrypt", value="\n").stderr
    bad = run(tmp_path, "encrypt", "--recipient", VALUE, value=VALUE)
    assert bad.exit_code == 1 and "no public key of age" in bad.stderr and VALUE not in bad.output
    assert cluster(repo) == CLUSTER and key.exists()


def test_without_a_key_it_says_how_to_make_one(tmp_path: Path, repo: Path) -> None:
    done = run(tmp_path, "encrypt", value=VALUE)
    where = f"--repo {repo} --home {tmp_path / 'home'}"
    assert done.exit_code == 1 and f"reconcile secrets keygen {where}. Or" in done.stderr


def test_a_place_without_a_secret_says_how_to_set_one_there(tmp_path: Path, repo: Path, key: Path) -> None:
    done = run(tmp_path, "edit", "one.*.PASS")
    where = f"--repo {repo} --home {tmp_path / 'home'}"
    assert done.exit_code == 1 and f"reconcile secrets encrypt {where} --set 'one.*.PASS'" in done.stderr
    assert key.exists()


def test_all_recipients_of_the_file_can_open_it(tmp_path: Path, repo: Path, key: Path) -> None:
    other, recipient = new_identity()
    (repo / RECIPIENTS_FILE).write_text(f"# us\n{read_identities(key)[0].to_public()}\n\n{recipient}\n")
    run(tmp_path, "encrypt", "--set", "one.Main.PASS", value=VALUE)
    (tmp_path / "other.key").write_text(other)
    assert value_of(repo, key) == value_of(repo, tmp_path / "other.key") == VALUE


def test_the_value_is_on_no_command_line(tmp_path: Path, repo: Path, key: Path) -> None:
    words = [sys.executable, "-m", "reconciler", "secrets", "encrypt", "--set", "one.Main.PASS"]
    words += ["--repo", str(repo), "--home", str(tmp_path / "home")]
    done = subprocess.run(words, input=VALUE, capture_output=True, text=True, check=True)
    assert VALUE not in done.stdout + done.stderr and value_of(repo, key) == VALUE


# ── edit ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A script that notes what it is given, and writes what stands beside it."""
    program = tmp_path / "editor.sh"
    program.write_text(
        f'#!/bin/sh\ncat "$1" > {tmp_path}/given; stat -c "%a %n" "$1" "$(dirname "$1")" > {tmp_path}/rights\n'
        f'[ -f {tmp_path}/write ] && cat {tmp_path}/write > "$1"; cp "$1" "$1~"; exit $(cat {tmp_path}/code)\n'
    )
    program.chmod(0o700)
    (tmp_path / "code").write_text("0")
    monkeypatch.setenv("VISUAL", str(program))
    yield tmp_path
    for line in (tmp_path / "rights").read_text().splitlines() if (tmp_path / "rights").exists() else ():
        assert not Path(line.partition(" ")[2]).exists(), "nothing of the value is left on the disk"


def test_a_value_is_edited_where_only_we_can_read_it(tmp_path: Path, repo: Path, key: Path, editor: Path) -> None:
    run(tmp_path, "encrypt", "--set", "one.Main.PASS", value=VALUE)
    (editor / "write").write_text("another\n")
    done = run(tmp_path, "edit", "one.Main.PASS")
    assert done.exit_code == 0 and "is changed" in done.stderr and (editor / "given").read_text() == VALUE
    assert [line.split()[0] for line in (editor / "rights").read_text().splitlines()] == ["600", "700"]
    assert value_of(repo, key) == "another" and "another" not in done.output + cluster(repo)


@pytest.mark.parametrize(("written", "code"), [(None, "0"), (VALUE + "\n", "0"), ("another", "1")])
def test_an_edit_that_changes_nothing_or_fails_leaves_the_file(
    tmp_path: Path, repo: Path, key: Path, editor: Path, written: str | None, code: str
) -> None:
    run(tmp_path, "encrypt", "--set", "one.Main.PASS", value=VALUE)
    before = cluster(repo)
    (editor / "code").write_text(code)
    if written:
        (editor / "write").write_text(written)
    assert run(tmp_path, "edit", "one.Main.PASS").exit_code == int(code)
    assert cluster(repo) == before and key.exists()


def test_what_is_not_encrypted_is_not_edited(tmp_path: Path, repo: Path, key: Path, editor: Path) -> None:
    done = run(tmp_path, "edit", "one.Main.LEVEL")
    assert done.exit_code == 1 and "has no encrypted secret one.Main.LEVEL" in done.stderr
    assert not (editor / "given").exists() and cluster(repo) == CLUSTER and key.exists()


# ── rotate ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ss_03_rotating_encrypts_everything_for_the_new_key_and_changes_no_app(
    tmp_path: Path, repo: Path, key: Path
) -> None:
    run(tmp_path, "encrypt", "--set", "one.Main.PASS", value=VALUE)
    (repo / "prod.yaml").write_text(cluster(repo))
    run(tmp_path, "encrypt", "--set", "two.hypha_token", value="token-" + VALUE)
    ours = secrets(tmp_path, key)

    def as_declared() -> Any:
        files = {"cluster.yaml": cluster(repo), **an_app_folder("one"), **an_app_folder("two")}
        apps = declare(_fetched(FakeSource(files))).apps.values()
        return [(one.spec.digest(), ours.fingerprints(one.app_id, one.secrets)) for one in apps]

    before, text = as_declared(), cluster(repo)
    assert run(tmp_path, "keygen", "--more").exit_code == 0
    done = run(tmp_path, "rotate")
    assert done.exit_code == 0 and "2 values" in done.stderr and "1 value " in done.stderr
    assert cluster(repo) != text and as_declared() == before
    newest = tmp_path / "newest.key"
    newest.write_text(key.read_text().splitlines()[-1])
    assert value_of(repo, newest) == value_of(repo, newest, file="prod.yaml") == VALUE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_rotating_writes_nothing_when_one_value_cannot_be_opened(tmp_path: Path, repo: Path, key: Path) -> None:
    run(tmp_path, "encrypt", "--set", "one.Main.PASS", value=VALUE)
    run(tmp_path, "encrypt", "--set", "two.Main.PASS", "--recipient", new_identity()[1], value=VALUE)
    before = cluster(repo)
    done = run(tmp_path, "rotate")
    assert done.exit_code == 1 and cluster(repo) == before and key.exists()
    assert "cluster.yaml:" in done.stderr and "two.Main.PASS" in done.stderr and "another key" in done.stderr
    assert VALUE not in done.output


@pytest.mark.parametrize("other", ["- a list\n", "a: &anchor 1\nb: *anchor\n", "tab:\n\t- x\n"])
def test_rotating_minds_only_files_with_something_to_rotate(tmp_path: Path, repo: Path, key: Path, other: str) -> None:
    """Caught: a docker-compose.yaml beside cluster.yaml stopped the rotation of keys."""
    run(tmp_path, "encrypt", "--set", "one.Main.PASS", value=VALUE)
    (repo / "other.yaml").write_text(other)
    (repo / "folder.yaml").mkdir()
    done = run(tmp_path, "rotate")
    assert done.exit_code == 0 and value_of(repo, key) == VALUE, done.stderr
    assert (repo / "other.yaml").read_text() == other


def test_a_file_with_secrets_that_cannot_be_read_is_named_with_its_line(tmp_path: Path, repo: Path, key: Path) -> None:
    run(tmp_path, "encrypt", "--set", "one.Main.PASS", value=VALUE)
    (repo / "prod.yaml").write_text(cluster(repo) + "a: yes\n")
    done = run(tmp_path, "rotate")
    assert done.exit_code == 1 and key.exists() and "prod.yaml:" in done.stderr and 'quote it: "yes"' in done.stderr


def test_a_value_that_is_no_text_and_a_name_that_is_none_are_refused_in_words(tmp_path: Path, key: Path) -> None:
    """Caught: a traceback, and YAML that we refuse to read."""
    home = ["--repo", str(tmp_path / "repo"), "--home", str(key.parents[1])]
    raw = CliRunner().invoke(app, ["secrets", "encrypt", *home], input=b"h\xe4")
    assert raw.exit_code == 1 and "the value is not UTF-8" in raw.stderr
    named = CliRunner().invoke(app, ["secrets", "encrypt", "bad name", *home], input=VALUE)
    assert named.exit_code == 2 and "letters, digits and underscores" in named.stderr and not named.stdout


def test_an_editor_that_is_no_command_is_told(
    tmp_path: Path, repo: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, "encrypt", "--set", "one.Main.PASS", value=VALUE)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "'vi")
    done = run(tmp_path, "edit", "one.Main.PASS")
    assert done.exit_code == 1 and "EDITOR is no command" in done.stderr and value_of(repo, key) == VALUE


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = ["secrets", "keygen", "--repo", str(tmp_path / "repo"), "--home", str(tmp_path / "file" / "x")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1 and f"{tmp_path}/file" in done.stderr and "--home" in done.stderr


def test_files_keep_their_rights(tmp_path: Path, repo: Path, key: Path) -> None:
    (repo / "cluster.yaml").chmod(0o640)
    run(tmp_path, "encrypt", "--set", "one.Main.PASS", value=VALUE)
    assert stat.S_IMODE((repo / "cluster.yaml").stat().st_mode) == 0o640 and key.exists()


def test_a_repository_that_is_not_there_has_nothing_to_rotate(tmp_path: Path, repo: Path) -> None:
    done = CliRunner().invoke(app, ["secrets", "rotate", "--repo", str(tmp_path / "nowhere")])
    assert done.exit_code == 1 and "is no folder" in done.stderr and "--repo" in done.stderr and repo.exists()


@pytest.mark.parametrize("command", ["keygen", "encrypt", "edit", "rotate"])
def test_every_command_explains_itself_with_examples(command: str) -> None:
    result = CliRunner().invoke(app, ["secrets", command, "--help"])
    assert result.exit_code == 0 and f"reconcile secrets {command}" in result.stdout
