"""Values of secrets: read where the reference points, hashed with a key of this installation, and kept out of sight.

Law: a value leaves this module only inside `SecretValues`, for the step that hands it to the runtime.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from bioengine_runtime.contract.app import fingerprint
from bioengine_runtime.contract.base import SecretFromEnv, SecretRef
from reconciler.ports import SecretUnavailable, SecretValues

MASK = "(secret)"
SHORTEST_MASKED = 4
"""Shorter values are not searched for in texts: they would blot out words that are no secret."""

Table = Mapping[str, Mapping[str, SecretRef]]


class LocalSecrets:
    """Secrets of the environment and of files on this machine. `key_file` is made on first use, readable by us only."""

    def __init__(self, key_file: Path, environ: Mapping[str, str] = os.environ) -> None:
        self._key_file = key_file
        self._environ = environ
        self._key: bytes | None = None
        self.mask = Mask()

    def resolve(self, app_id: str, table: Table) -> SecretValues:
        values: dict[str, dict[str, str]] = {}
        fingerprints: dict[str, str] = {}
        missing: list[str] = []
        for class_name, name, ref in _each(table):
            value = self.read(ref)
            if value is None:
                missing.append(f"{name} (from {_in_words(ref)})")
                continue
            values.setdefault(class_name, {})[name] = value
            fingerprints[f"{class_name}/{name}"] = self._fingerprint(value)
        if missing:
            raise SecretUnavailable(f"{app_id}: cannot read {', '.join(missing)}")
        return SecretValues(values, fingerprints)

    def fingerprints(self, app_id: str, table: Table) -> Mapping[str, str | None]:  # noqa: ARG002 - part of the port
        values = {f"{class_name}/{name}": self.read(ref) for class_name, name, ref in _each(table)}
        return {key: None if value is None else self._fingerprint(value) for key, value in values.items()}

    def read(self, ref: SecretRef) -> str | None:
        """The value a reference points at; None when it cannot be read here."""
        if isinstance(ref, SecretFromEnv):
            value = self._environ.get(ref.env)
        else:
            try:
                value = Path(ref.file).expanduser().read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
            except (OSError, UnicodeDecodeError):
                value = None
        if value:
            self.mask.add(value)
        return value

    def _fingerprint(self, value: str) -> str:
        if self._key is None:
            self._key = _read_or_make_key(self._key_file)
        return fingerprint(self._key, value)


class Mask(logging.Filter):
    """Second defence: blots out every value we ever read from texts on their way out. The first is not to put it in."""

    def __init__(self) -> None:
        super().__init__()
        self._values: set[str] = set()

    def add(self, value: str) -> None:
        if len(value) >= SHORTEST_MASKED:
            self._values.add(value)

    def __call__(self, text: str) -> str:
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, MASK)
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        """A log record, its arguments and its traceback."""
        record.msg = self(record.getMessage())
        record.args = None
        if record.exc_info:
            record.exc_text = self(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        return True


def _each(table: Table) -> list[tuple[str, str, SecretRef]]:
    return [(class_name, name, ref) for class_name, refs in table.items() for name, ref in refs.items()]


def _in_words(ref: SecretRef) -> str:
    return f"environment variable {ref.env}" if isinstance(ref, SecretFromEnv) else f"file {ref.file}"


def _read_or_make_key(path: Path) -> bytes:
    """Two that start at once agree: whoever creates the file wins, the other reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, secrets.token_hex(32).encode())
        os.close(fd)
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return path.read_bytes()
