"""The secrets of a home: made once, at first start, readable by their owner only, and the same ever after."""

import base64
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Secrets:
    """Where each secret lies; the values are read when they are handed to the one process that needs them."""

    folder: Path

    @property
    def hypha_root_token(self) -> Path:
        return self.folder / "hypha_root_token"

    @property
    def hypha_jwt_secret(self) -> Path:
        return self.folder / "hypha_jwt_secret"

    @property
    def store_access_key(self) -> Path:
        return self.folder / "store_access_key"

    @property
    def store_secret_key(self) -> Path:
        return self.folder / "store_secret_key"

    @property
    def ray_auth_token(self) -> Path:
        return self.folder / "ray_auth_token"

    @property
    def fingerprint_key(self) -> Path:
        return self.folder / "fingerprint.key"

    @property
    def admin_token(self) -> Path:
        return self.folder / "admin_token"


def make_secrets(folder: Path) -> Secrets:
    """The secrets in `folder`; those that are missing are made."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    made = Secrets(folder)
    # Hypha refuses short root tokens that contain words like "root" or "test"; 64 hexadecimal digits hold no words.
    keep_secret(made.hypha_root_token, lambda: secrets.token_hex(32))
    keep_secret(made.hypha_jwt_secret, lambda: secrets.token_hex(32))
    keep_secret(made.store_access_key, lambda: secrets.token_hex(10))
    keep_secret(made.store_secret_key, lambda: secrets.token_hex(20))
    keep_secret(made.ray_auth_token, lambda: secrets.token_hex(32))
    keep_secret(made.fingerprint_key, new_key)
    return made


def keep_secret(path: Path, make: Callable[[], str]) -> None:
    """Write the secret unless it is there. A crash leaves no half-written one: it appears whole, by a rename."""
    if path.exists():
        path.chmod(0o600)
        return
    write_private(path, make())


def write_private(path: Path, text: str) -> None:
    """Replace the file's content as a whole, readable by the owner only from its first byte. Two who write at once do
    not meet: the later one's is what stays."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def new_key() -> str:
    """32 random bytes, base64 as in links (the alphabet that the worker reads its key with)."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
