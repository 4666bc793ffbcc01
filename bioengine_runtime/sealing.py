"""Secrets on their way through Ray: sealed in the worker, opened in the replica, ciphertext everywhere between.

Law: a text sealed for one place (its associated data) opens nowhere else, and never with another key.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12


class Unsealable(Exception):
    """The text was sealed with another key, for another place, or was changed since."""


def seal(key: bytes, plaintext: bytes, associated: bytes) -> str:
    """AES-256-GCM under a fresh nonce, as one line of text."""
    nonce = os.urandom(NONCE_BYTES)
    return base64.urlsafe_b64encode(nonce + AESGCM(key).encrypt(nonce, plaintext, associated)).decode()


def unseal(key: bytes, sealed: str, associated: bytes) -> bytes:
    """The plaintext; raises Unsealable when key, place or text is not the one it was sealed with."""
    try:
        raw = base64.urlsafe_b64decode(sealed)
        return AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], associated)
    except (InvalidTag, ValueError, binascii.Error) as error:
        raise Unsealable("the secrets of this app were sealed with another key; deploy it again") from error


def read_key(path: str | Path) -> bytes:
    """The key of this worker; a file that others can read is refused."""
    path = Path(path)
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise PermissionError(f"{path} can be read by others; chmod 600 it")
        text = file.read().strip()
    key = base64.urlsafe_b64decode(text)
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path} holds {len(key)} bytes of key, expected {KEY_BYTES}")
    return key


def ensure_key(path: str | Path) -> bytes:
    """The key, made at the first start. Created whole or not at all, so two workers starting at once agree on one."""
    path = Path(path)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(base64.urlsafe_b64encode(os.urandom(KEY_BYTES)))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return read_key(path)
