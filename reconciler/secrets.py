"""Values of secrets: read where the reference points, hashed with a key of this installation, and kept out of sight.

Law: a value leaves this module only inside `SecretValues`, for the step that hands it to the runtime.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import assert_never

from bioengine_runtime.contract.app import fingerprint
from bioengine_runtime.contract.base import SecretFromAge, SecretFromEnv, SecretFromFile, SecretRef
from reconciler.errors import Remedy, Unreachable
from reconciler.mask import Mask
from reconciler.planning.memo import Memo
from reconciler.ports import SecretUnavailable, SecretValues

Table = Mapping[str, Mapping[str, SecretRef]]


IDENTITY_VARIABLE = "RECONCILE_AGE_IDENTITY"
IDENTITY_FILE = "age.key"
KEY_BYTES = 32
"""A key is not shorter: with one that can be guessed, values can be guessed from their fingerprints."""


def identity_file(folder: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the private keys of age lie: where the environment says, or in the folder of the home's own secrets."""
    said = environ.get(IDENTITY_VARIABLE)
    return Path(said).expanduser() if said else folder / IDENTITY_FILE


class CannotOpen(Exception):
    """Why a value cannot be had; never any of it."""


class KeyUnusable(Unreachable):
    """The key of this installation is there, and is none."""

    remedy = Remedy.OPERATOR

    def __init__(self, file: Path, why: str) -> None:
        hint = f"Give the key of the installation that keeps the cluster: {KEY_BYTES} characters or more."
        super().__init__(f"the key file {file} {why}", hint=hint)


class LocalSecrets:
    """Secrets of the environment, of files on this machine, and of texts encrypted for a key on this machine.

    The key of the fingerprints is of this installation: without it, they say "not known" rather than "changed".
    The private keys of age lie beside it.
    """

    def __init__(self, key_file: Path, *, environ: Mapping[str, str] = os.environ) -> None:
        self._key_file = key_file
        self._environ = environ
        self._identity_file = identity_file(key_file.parent, environ)
        self._opened: Memo[str] = Memo(limit=4096)
        self._key: bytes | None = None
        self.mask = Mask()

    def resolve(self, app_id: str, table: Table) -> SecretValues:
        values: dict[str, dict[str, str]] = {}
        fingerprints: dict[str, str] = {}
        missing: list[str] = []
        try:
            key = self.key() if table else None
        except KeyUnusable as error:
            raise SecretUnavailable(f"{app_id}: {error}") from None
        for class_name, name, ref in _each(table):
            try:
                value = self._value(ref)
            except CannotOpen as error:
                missing.append(f"{name} (from {ref.described()}: {error})")
                continue
            values.setdefault(class_name, {})[name] = value
            if key is not None:
                fingerprints[f"{class_name}/{name}"] = fingerprint(key, value)
        if missing:
            raise SecretUnavailable(f"{app_id}: cannot read {', '.join(missing)}")
        return SecretValues(values, fingerprints)

    def fingerprints(self, app_id: str, table: Table) -> Mapping[str, str | None]:  # noqa: ARG002 - part of the port
        values = {f"{class_name}/{name}": self.read(ref) for class_name, name, ref in _each(table)}
        try:
            key = self.key() if values else None
        except KeyUnusable:  # told by whoever checks with it what is remembered
            key = None
        if key is None:
            return dict.fromkeys(values)
        return {name: None if value is None else fingerprint(key, value) for name, value in values.items()}

    def masked(self, text: str) -> str:
        return self.mask(text)

    def read(self, ref: SecretRef) -> str | None:
        """The value a reference points at; None when it cannot be read here."""
        try:
            return self._value(ref)
        except CannotOpen:
            return None

    def _value(self, ref: SecretRef) -> str:
        """The value; from now on it is masked. Raises CannotOpen, saying why and never what."""
        match ref:
            case SecretFromEnv(env=name):
                value = self._environ.get(name)
                if value is None:
                    raise CannotOpen("it is not set")
            case SecretFromFile(file=path):
                value = _read_file(Path(path).expanduser())
            case SecretFromAge(age=text):
                value = self._opened.get(text, lambda: self._open(text))
            case _:
                assert_never(ref)
        if not value:
            raise CannotOpen("it is empty")
        self.mask.add(value)
        return value

    def _open(self, text: str) -> str:
        from reconciler.age import decrypt, read_identities  # a native library, for this only

        return decrypt(text, read_identities(self._identity_file))

    def key(self) -> bytes | None:
        """The key of this installation; None: there is none. Raises KeyUnusable."""
        if self._key is None:
            self._key = _read_key(self._key_file)
        return self._key

    def made_key(self) -> bytes:
        """The same, made if there is none, readable by us only. Raises KeyUnusable."""
        if (key := self.key()) is None:
            key = self._key = _make_key(self._key_file)
        return key


def masking_filter(masked: Callable[[str], str]) -> Callable[[logging.LogRecord], bool]:
    """A filter for log handlers: the message, its arguments and its traceback."""

    def mask_record(record: logging.LogRecord) -> bool:
        record.msg, record.args = masked(record.getMessage()), None
        if record.exc_info:
            record.exc_text, record.exc_info = masked(logging.Formatter().formatException(record.exc_info)), None
        return True

    return mask_record


def _each(table: Table) -> list[tuple[str, str, SecretRef]]:
    return [(class_name, name, ref) for class_name, refs in table.items() for name, ref in refs.items()]


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise CannotOpen((error.strerror or "it cannot be read").lower()) from None
    except UnicodeDecodeError:
        raise CannotOpen("it is not UTF-8") from None


def _read_key(path: Path) -> bytes | None:
    """None: there is no such file. Raises KeyUnusable."""
    try:
        key = path.read_bytes().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyUnusable(path, f"cannot be read: {error.strerror}") from None
    if len(key) < KEY_BYTES:
        raise KeyUnusable(path, f"has {len(key)} characters, too few for a key" if key else "is empty")
    return key


def _make_key(path: Path) -> bytes:
    """Two that start at once agree: whoever creates the file wins, the other reads it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(KEY_BYTES))
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)
        finally:
            Path(fresh).unlink()
    except OSError as error:
        raise KeyUnusable(path, f"cannot be made: {error.strerror}") from None
    if (key := _read_key(path)) is None:
        raise KeyUnusable(path, "was taken away while it was made")
    return key
