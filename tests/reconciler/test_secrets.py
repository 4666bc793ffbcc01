"""Where values are read from, and that they stay out of sight (SS-02, SS-04, SS-06; all of SS in _canary)."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import subprocess
from pathlib import Path

import pytest

from bioengine_runtime.contract.base import SecretFromEnv, SecretFromFile
from reconciler.cli.place import Place, keep_out_of_git, opened
from reconciler.ports import SecretUnavailable
from reconciler.secrets import KeyUnusable, LocalSecrets, Mask, masking_filter

VALUE = "s3cr3t-value"
TABLE = {"*": {"PASS": SecretFromEnv(env="CI_PASS")}}


def some_secrets(folder: Path, *, make_key: bool = True, **environ: str) -> LocalSecrets:
    made = LocalSecrets(folder / "fingerprint.key", environ=environ)
    if make_key:
        made.made_key()
    return made


def test_a_file_loses_one_trailing_newline(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("abc\n\n")
    assert some_secrets(tmp_path).read(SecretFromFile(file=str(file))) == "abc\n"


def test_all_that_cannot_be_read_is_named_at_once_and_no_value_is(tmp_path: Path) -> None:
    table = {"Main": {"A": SecretFromEnv(env="NOPE"), "B": SecretFromFile(file="/nowhere")}, **TABLE}
    with pytest.raises(SecretUnavailable) as error:
        some_secrets(tmp_path, CI_PASS=VALUE).resolve("app", table)
    assert "NOPE" in str(error.value) and "/nowhere" in str(error.value) and VALUE not in str(error.value)


def test_ss_04_fingerprints_need_the_key_of_this_installation(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    one = some_secrets(here, CI_PASS=VALUE).fingerprints("app", TABLE)["*/PASS"]
    assert one == some_secrets(here, CI_PASS=VALUE).fingerprints("other-app", TABLE)["*/PASS"]
    assert one != some_secrets(there, CI_PASS=VALUE).fingerprints("app", TABLE)["*/PASS"]
    assert one and one not in hashlib.sha256(VALUE.encode()).hexdigest()
    assert (here / "fingerprint.key").stat().st_mode & 0o777 == 0o600


def test_without_the_key_a_plan_does_not_know_rather_than_see_a_change(tmp_path: Path) -> None:
    reading = some_secrets(tmp_path / "new", make_key=False, CI_PASS=VALUE)
    assert reading.fingerprints("app", TABLE) == {"*/PASS": None}
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("content", "why"), [(b"", "is empty"), (b" \n", "is empty"), (b"k" * 31 + b"\n", "has 31 characters")]
)
def test_ss_04_a_key_that_can_be_guessed_is_none(tmp_path: Path, content: bytes, why: str) -> None:
    """As a pipeline writes it whose secret is not set: from an HMAC with a key that is known, values can be guessed."""
    (tmp_path / "fingerprint.key").write_bytes(content)
    ours = some_secrets(tmp_path, make_key=False, CI_PASS=VALUE)
    for ask in (ours.key, ours.made_key):
        with pytest.raises(KeyUnusable, match=why) as error:
            ask()
        assert "fingerprint.key" in str(error.value) and "32 characters" in error.value.hint
    assert ours.fingerprints("app", TABLE) == {"*/PASS": None}
    with pytest.raises(SecretUnavailable, match=why):
        ours.resolve("app", TABLE)
    assert (tmp_path / "fingerprint.key").read_bytes() == content


def test_a_key_is_the_same_with_a_newline_behind_it(tmp_path: Path) -> None:
    (tmp_path / "fingerprint.key").write_bytes(b"k" * 32 + b"\n")
    assert some_secrets(tmp_path, make_key=False).key() == b"k" * 32


def test_a_key_that_cannot_be_read_or_made_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "a" / "fingerprint.key").mkdir(parents=True)
    (tmp_path / "b").write_text("no folder")
    for folder, why in (("a", "cannot be read: Is a directory"), ("b", "cannot be read: Not a directory")):
        ours = some_secrets(tmp_path / folder, make_key=False, CI_PASS=VALUE)
        with pytest.raises(KeyUnusable, match=why):
            ours.made_key()
        assert ours.fingerprints("app", TABLE) == {"*/PASS": None}
    with pytest.raises(KeyUnusable, match="cannot be made"):
        LocalSecrets(Path("/proc/self/nowhere/fingerprint.key")).made_key()


def test_what_a_killed_start_left_is_in_nobodys_way(tmp_path: Path) -> None:
    """In a container every start has the same process id."""
    (tmp_path / f"fingerprint.key.{os.getpid()}").touch()
    key = some_secrets(tmp_path).key()
    assert key and len(key) == 64 and LocalSecrets(tmp_path / "fingerprint.key").made_key() == key
    assert len(list(tmp_path.iterdir())) == 2


async def test_ss_04_what_we_keep_beside_a_sub_folder_is_ignored_by_git_and_a_key_is_made_when_something_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECONCILE_KEY_FILE", raising=False)
    (tmp_path / "deploy").mkdir()
    git(tmp_path, "init", "-q")
    place = Place(str(tmp_path / "deploy"))
    async with opened(place, writes=False):
        assert not place.home.exists()
    async with opened(place, writes=True) as world:
        assert isinstance(world.secrets, LocalSecrets)
        assert world.secrets.key() is None and not place.key_file.exists()
        world.secrets.made_key()
    assert place.key_file.is_file() and place.key_file.is_relative_to(tmp_path / ".bioengine")
    assert git(tmp_path, "status", "--porcelain", "-uall") == b""


def git(folder: Path, *words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True).stdout


def test_a_folder_with_other_things_in_it_is_left_as_it_is(tmp_path: Path) -> None:
    """--home may name any folder: in somebody's own, `*` would hide their new files from git."""
    (tmp_path / "notes.txt").touch()
    keep_out_of_git(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "older" / "mirrors").mkdir(parents=True)
    keep_out_of_git(tmp_path / "older")
    assert (tmp_path / "older" / ".gitignore").read_text() == "*\n"


def test_ss_02_logs_are_masked_with_their_arguments_and_tracebacks() -> None:
    mask, written = Mask(), io.StringIO()
    mask.add(VALUE)
    handler = logging.StreamHandler(written)
    handler.addFilter(masking_filter(mask))
    log = logging.Logger("alone")
    log.addHandler(handler)
    try:
        raise RuntimeError(f"upstream says {VALUE}")
    except RuntimeError:
        log.exception("failed with %s", VALUE)
    assert VALUE not in written.getvalue() and written.getvalue().count("(secret)") == 2


def test_ss_06_short_values_do_not_blot_out_words() -> None:
    mask = Mask()
    mask.add("on")
    assert mask("on and on") == "on and on"
