"""Values encrypted with age (X25519), by the library of its reference implementation in Rust.

Law: no error of this module carries any of a value, of a key, or of the text that was to be opened.
"""

from __future__ import annotations

import base64
import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from reconciler.secrets import CannotOpen

RECIPIENTS_FILE = ".age-recipients"

_pyrage: Any = importlib.import_module("pyrage")  # it has no types


def read_identities(file: Path) -> Sequence[Any]:
    """The private keys of a file, one per line, as `age-keygen` writes them. Raises CannotOpen."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a text"
        raise CannotOpen(f"the key file {file} cannot be read: {why}") from None
    identities: list[Any] = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line and not line.startswith("#"):
            try:
                identities.append(_pyrage.x25519.Identity.from_str(line))
            except _pyrage.IdentityError:
                raise CannotOpen(f"{file}:{number} is no age key") from None
    if not identities:
        raise CannotOpen(f"the key file {file} holds no key")
    return identities


def new_identity() -> tuple[str, str]:
    """(private key, recipient)"""
    identity = _pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def recipient_of(identity: Any) -> str:
    return str(identity.to_public())


def read_recipients(file: Path) -> list[str]:
    """One per line; `#` begins a comment. Raises CannotOpen."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise CannotOpen(f"the recipients file {file} cannot be read") from None
    return [line for line in map(str.strip, lines) if line and not line.startswith("#")]


def encrypt(value: str, recipients: Iterable[str]) -> str:
    """The value as armored text, for each of the recipients (`age1…`). Raises CannotOpen."""
    known: list[Any] = []
    for recipient in recipients:
        try:
            known.append(_pyrage.x25519.Recipient.from_str(recipient))
        except _pyrage.RecipientError:
            raise CannotOpen("a recipient is no public key of age (age1…)") from None
    if not known:
        raise CannotOpen("there is no recipient to encrypt for")
    return _pyrage.encrypt(value.encode(), known, armored=True).decode("ascii")


def decrypt(text: str, identities: Sequence[Any]) -> str:
    """The value of an armored (or base64) text. Raises CannotOpen, saying whether the key or the text is wrong."""
    armored = text.lstrip().startswith("-----BEGIN")
    try:
        data = text.strip().encode() if armored else base64.b64decode("".join(text.split()), validate=True)
        return _pyrage.decrypt(data, identities).decode()
    except _pyrage.DecryptError as error:
        if "No matching keys" in str(error):
            raise CannotOpen("it is encrypted for another key") from None
    except ValueError:
        pass
    raise CannotOpen("it is damaged")
