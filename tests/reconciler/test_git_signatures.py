"""Signed commits: only those of trusted keys are taken, whatever the repository says about signing (SG-22, SG-23)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.adapters.git import GitSource
from reconciler.adapters.git.process import Git, NotReadable
from reconciler.adapters.git.signatures import verify
from reconciler.errors import SourceUnusable
from reconciler.planning.source import Trust

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen (openssh-client)")
FILES = {"cluster.yaml": "name: lab\napps: {}\n"}


class Lab:
    """A repository, and people with keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repo = folder / "repo"
        self.signers = folder / "allowed_signers"
        self.signers.touch()
        self.git("init", "-q", "-b", "main", str(self.repo), at=folder)

    def git(self, *arguments: str, at: Path | None = None, **variables: str) -> str:
        named = ("-c", "user.name=Anna", "-c", "user.email=anna@lab.example")
        done = subprocess.run(
            ["git", *named, *arguments], cwd=at or self.repo, env={**os.environ, **variables}, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def key_of(self, person: str, *, options: str = "", trusted: bool = True) -> Path:
        key = self.folder / person.partition("@")[0]
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", person, "-f", key], check=True)
        if trusted:
            public = key.with_suffix(".pub").read_text().split()
            with self.signers.open("a") as file:
                file.write(f"{person} {options}{public[0]} {public[1]}\n")
        return key

    def commit(self, key: Path | None = None, *, message: str = "Change", **variables: str) -> str:
        (self.repo / "cluster.yaml").write_text(f"# {message}\n" + FILES["cluster.yaml"])
        self.git("add", "-A")
        signing = ("-c", "gpg.format=ssh", "-c", f"user.signingKey={key}") if key else ()
        self.git(*signing, "commit", "-q", *(["-S"] if key else []), "-m", message, **variables)
        return self.git("rev-parse", "HEAD")

    def source(self, tmp: str = "mirrors", **trust: Path) -> GitSource:
        said = Trust(**trust) if trust else Trust(allowed_signers=self.signers)
        return GitSource(str(self.repo), mirror_dir=self.folder / tmp, trust=said)

    def refusal(self, **trust: Path) -> str:
        with pytest.raises(SourceUnusable) as refusal:
            self.source(**trust).fetch_blocking()
        return str(refusal.value)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def gnupg() -> Iterator[Path]:
    # GnuPG's agent listens on a socket in there, whose path must be short.
    home = Path(subprocess.check_output(["mktemp", "-d", "/tmp/gpg.XXXX"], text=True).strip())
    home.chmod(0o700)
    yield home
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
    shutil.rmtree(home, ignore_errors=True)


def gpg_key(home: Path, person: str, expires: str = "never") -> str:
    made = ["gpg", "--homedir", str(home), "--batch", "--passphrase", "", "--quick-gen-key", person, "ed25519", "sign"]
    subprocess.run([*made, expires], check=True, capture_output=True)
    listed = subprocess.check_output(["gpg", "--homedir", str(home), "--list-keys", "--with-colons", person], text=True)
    return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))


def test_a_commit_of_a_trusted_key_says_whose_it_is(lab: Lab) -> None:
    lab.commit(lab.key_of("anna@lab.example"))
    signature = lab.source().fetch_blocking().revision.signature
    assert signature.startswith("anna@lab.example (SHA256:")


def test_without_an_anchor_nothing_is_asked(lab: Lab) -> None:
    lab.commit()
    assert GitSource(str(lab.repo), mirror_dir=lab.folder / "m").fetch_blocking().revision.signature == ""


def test_SG_22_an_unsigned_commit_is_not_taken(lab: Lab) -> None:
    lab.commit()
    assert "not signed" in lab.refusal()


def test_SG_22_nor_one_of_an_unknown_key(lab: Lab) -> None:
    lab.key_of("anna@lab.example")
    lab.commit(lab.key_of("mallory@elsewhere.example", trusted=False))
    assert "nobody we trust" in lab.refusal()


def test_SG_22_nor_one_of_a_key_that_had_expired(lab: Lab) -> None:
    lab.commit(lab.key_of("anna@lab.example", options='valid-before="20200101" '))
    assert "is not taken" in lab.refusal()


def test_SG_22_nor_one_with_the_signature_of_another_commit(lab: Lab) -> None:
    key = lab.key_of("anna@lab.example")
    lab.commit(key, message="Good")
    signed = lab.git("cat-file", "commit", "HEAD")
    forged = signed.replace("Good", "Evil")
    done = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"],
        cwd=lab.repo,
        input=forged.encode(),
        capture_output=True,
    )
    lab.git("update-ref", "refs/heads/main", done.stdout.decode().strip())
    assert "is not taken" in lab.refusal()


def test_SG_22_nor_one_of_which_only_a_tag_is_signed(lab: Lab) -> None:
    key = lab.key_of("anna@lab.example")
    lab.commit()
    lab.git("-c", "gpg.format=ssh", "-c", f"user.signingKey={key}", "tag", "-s", "-m", "v1", "v1")
    with pytest.raises(SourceUnusable, match="not signed"):
        GitSource(str(lab.repo), ref="v1", mirror_dir=lab.folder / "m", trust=Trust(lab.signers)).fetch_blocking()


def test_SG_22_what_was_taken_before_is_not_taken_again_after_a_bad_commit(lab: Lab) -> None:
    lab.commit(lab.key_of("anna@lab.example"))
    source = lab.source()
    source.fetch_blocking()
    lab.commit(message="Unsigned")
    with pytest.raises(SourceUnusable):
        source.fetch_blocking()


def test_SG_23_the_repository_cannot_name_its_own_signers(lab: Lab) -> None:
    key = lab.key_of("mallory@elsewhere.example", trusted=False)
    public = key.with_suffix(".pub").read_text()
    (lab.repo / "allowed_signers").write_text(f"mallory@elsewhere.example {public}")
    lab.commit(key)
    lab.git("config", "gpg.ssh.allowedSignersFile", str(lab.repo / "allowed_signers"))
    lab.git("config", "gpg.ssh.program", "true")
    lab.git("config", "gpg.program", "true")
    assert "is not taken" in lab.refusal()


@pytest.mark.skipif(shutil.which("gpg") is None, reason="needs gpg (gnupg)")
def test_gpg_signatures_are_those_of_the_folder(lab: Lab, gnupg: Path) -> None:
    key = gpg_key(gnupg, "Anna <anna@lab.example>")
    lab.git("config", "user.signingKey", key)
    lab.git("commit", "-q", "-S", "--allow-empty", "-m", "first", GNUPGHOME=str(gnupg))
    (lab.repo / "cluster.yaml").write_text(FILES["cluster.yaml"])
    lab.git("add", "-A")
    lab.git("commit", "-q", "-S", "-m", "signed", GNUPGHOME=str(gnupg))
    signature = lab.source(gnupg_home=gnupg).fetch_blocking().revision.signature
    assert signature == f"Anna <anna@lab.example> ({key})"
    assert "nobody we trust" in lab.refusal(gnupg_home=lab.folder / "empty")


def test_uncommitted_files_are_signed_by_nobody(lab: Lab) -> None:
    with pytest.raises(SourceUnusable, match="signed by nobody"):
        GitSource(str(lab.repo), mirror_dir=lab.folder / "m", worktree=True, trust=Trust(lab.signers))


def test_a_commit_that_cannot_be_read_is_no_unsigned_one(lab: Lab) -> None:
    """So that a spoiled mirror is made anew, with `--allowed-signers` too."""
    lab.commit(lab.key_of("anna@lab.example"))
    with pytest.raises(NotReadable, match="commit 1111111 cannot be read"):
        verify(Git(cwd=lab.repo), "1" * 40, Trust(allowed_signers=lab.signers))
