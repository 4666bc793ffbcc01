"""Secrets that stand in git: the key they are encrypted for, and cluster.yaml with them in it.

Law: a value is on no command line, in no message, and in no file but one that only we may read and that is gone after.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.age import (
    RECIPIENTS_FILE,
    decrypt,
    encrypt,
    new_identity,
    read_identities,
    read_recipients,
    recipient_of,
)
from reconciler.cli.place import keep_out_of_git
from reconciler.cli.secret_text import SecretText, Spot, may_hold_secrets, spot_of
from reconciler.errors import ReconcilerError, Remedy
from reconciler.secrets import IDENTITY_VARIABLE, CannotOpen, identity_file

_IN_MEMORY = Path("/dev/shm")


class SecretTrouble(ReconcilerError):
    """A secret in git cannot be read or written."""

    remedy = Remedy.OPERATOR


@dataclass(frozen=True, slots=True)
class Vault:
    """Where things are: the folder with cluster.yaml, the name of that file, the folder of what we keep, and in it, or
    elsewhere, that of our own secrets."""

    folder: Path
    cluster: str
    home: Path
    secrets: Path

    @property
    def file(self) -> Path:
        return self.folder / self.cluster

    @property
    def identity(self) -> Path:
        return identity_file(self.secrets)


@dataclass(frozen=True, slots=True)
class For:
    """Whom a value is encrypted for, as said on the command line."""

    recipients: Sequence[str] = ()
    file: Path | None = None


def keygen(vault: Vault, *, more: bool) -> str:
    """Make a private key and return its recipient. `more` adds one to those there are; it is used from then on."""
    file = vault.identity
    if file.resolve().is_relative_to(vault.folder.resolve()):
        raise SecretTrouble(f"{file} lies among the files of the repository", hint="Name another place with --home.")
    if file.resolve().is_relative_to(vault.home):
        keep_out_of_git(vault.home)
    if (repository := _taken_along(file)) is not None:
        hint = f"Name another place with --home, or with {IDENTITY_VARIABLE}."
        raise SecretTrouble(f"{file} lies among the files of the repository {repository}", hint=hint)
    if file.exists() and not more:
        raise SecretTrouble(f"{file} is there already", hint="Add a second key with --more, then: secrets rotate.")
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    private, recipient = new_identity()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(file, f"{before}# public key: {recipient}\n{private}\n", mode=0o600)
    return recipient


def _taken_along(file: Path) -> Path | None:
    """The repository whose next `git add` takes the file along; None: it is in none, or in a folder that git ignores
    as a whole, as it does what we keep."""
    for folder in file.resolve().parents:
        ignored = folder / ".gitignore"
        if ignored.is_file() and "*" in ignored.read_text(encoding="utf-8", errors="replace").split():
            return None
        if (folder / ".git").exists():
            return folder
    return None


def encrypted(vault: Vault, value: str, said: For) -> str:
    """The value as a text for git."""
    if not value:
        raise SecretTrouble("the value is empty", hint="Give it on stdin, or at the prompt.")
    try:
        return encrypt(value, _recipients(vault, said))
    except CannotOpen as error:
        raise SecretTrouble(str(error), hint=_HOW_FOR) from None


def put(vault: Vault, target: str, value: str, said: For) -> Spot:
    """Write the value into cluster.yaml, encrypted."""
    spot, text = spot_of(target), SecretText.read(vault.file)
    changed = text.having(spot, encrypted(vault, value, said))
    _write(vault.file, changed)
    return spot


def edit(vault: Vault, target: str, said: For, editor: Callable[[Path], int]) -> bool:
    """Let a person edit the value; False when it stayed as it was."""
    spot, text = spot_of(target), SecretText.read(vault.file)
    before = _opened(vault, text, spot)
    after = _edited(vault, before, editor)
    if after == before:
        return False
    _write(vault.file, text.having(spot, encrypted(vault, after, said)))
    return True


def rotate(vault: Vault, said: For) -> list[tuple[Path, int]]:
    """Encrypt all values of all YAML files of the folder anew: (file, how many). Nothing is written unless all can."""
    if not vault.folder.is_dir():
        hint = "Name the repository with --repo, and a folder of it with --path."
        raise SecretTrouble(f"{vault.folder} is no folder", hint=hint)
    changed: list[tuple[Path, int, str]] = []
    for file in filter(may_hold_secrets, sorted(vault.folder.glob("*.yaml"))):
        text = SecretText.read(file)
        spots = text.spots()
        values = [(spot, _opened(vault, text, spot)) for spot in spots]
        for spot, value in values:
            text = SecretText(file, text.having(spot, encrypted(vault, value, said)))
        if spots:
            changed.append((file, len(spots), text.text))
    for file, _, text in changed:
        _write(file, text)
    return [(file, count) for file, count, _ in changed]


def with_editor(file: Path) -> int:
    """The person's own editor; its exit code. Raises SecretTrouble."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise SecretTrouble(f"EDITOR is no command: {error}", hint="Set EDITOR, for example to vi.") from None
    try:
        return subprocess.run([*words, str(file)], check=False).returncode
    except OSError as error:
        raise SecretTrouble(f"{words[0]} cannot be started: {error.strerror}", hint="Set EDITOR.") from None


_HOW_FOR = "Make a key with: reconcile secrets keygen. Or give --recipient age1…, or a file of them."


def _recipients(vault: Vault, said: For) -> list[str]:
    """Those given; else those of the repository's file; else we ourselves, by our newest key. Raises CannotOpen."""
    if said.recipients:
        return list(said.recipients)
    file = said.file or vault.folder / RECIPIENTS_FILE
    if said.file or file.exists():
        return read_recipients(file)
    return [recipient_of(read_identities(vault.identity)[-1])]


def _opened(vault: Vault, text: SecretText, spot: Spot) -> str:
    try:
        return decrypt(text.ciphertext(spot), read_identities(vault.identity))
    except CannotOpen as error:
        hint = f"Give the right key with {IDENTITY_VARIABLE}, or set the value anew: secrets encrypt --set."
        raise SecretTrouble(f"{text.where(spot)}: {spot} cannot be opened: {error}", hint=hint) from None


def _edited(vault: Vault, value: str, editor: Callable[[Path], int]) -> str:
    """The value after the editor; its file lies in memory where that is possible, and is gone afterwards."""
    in_memory = _IN_MEMORY.is_dir() and os.access(_IN_MEMORY, os.W_OK)
    if not in_memory:
        vault.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="reconcile-", dir=_IN_MEMORY if in_memory else vault.secrets))  # 0700
    try:
        file = folder / "value"
        _write(file, value, mode=0o600)
        if editor(file) != 0:
            raise SecretTrouble("the editor failed; nothing was changed")
        after = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SecretTrouble("the value is not UTF-8; nothing was changed") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    # Editors end the last line; that newline is part of the value only if it was so before.
    return after if value.endswith("\n") else after.removesuffix("\n").removesuffix("\r")


def _write(file: Path, text: str, *, mode: int | None = None) -> None:
    """All of it or nothing, with the access rights it had."""
    rights = mode if mode is not None else file.stat().st_mode & 0o777
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as opened:
            opened.write(text)
        fresh.chmod(rights)
        fresh.replace(file)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise SecretTrouble(f"{file} cannot be written: {error.strerror}") from None
