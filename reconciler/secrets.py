"""Values of secrets: read where the reference points, hashed with a key of this installation, and kept out of sight.

Law: a value leaves this module only inside `SecretValues`, for the step that hands it to the runtime.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from bioengine_runtime.contract.app import fingerprint
from bioengine_runtime.contract.base import SecretFromEnv, SecretRef
from reconciler.ports import SecretUnavailable, SecretValues

MASK = "(secret)"
SHORTEST_MASKED = 4
"""Shorter values are not searched for in texts: they would blot out words that are no secret."""

Table = Mapping[str, Mapping[str, SecretRef]]


class LocalSecrets:
    """Secrets of the environment and of files on this machine.

    The key is of this installation: without it, fingerprints say "not known" rather than "changed". `make_key` makes it
    on first use, readable by us only.
    """

    def __init__(self, key_file: Path, *, make_key: bool, environ: Mapping[str, str] = os.environ) -> None:
        self._key_file = key_file
        self._make_key = make_key
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
        if self._key is None and not self._make_key and not self._key_file.exists():
            return dict.fromkeys(values)
        return {key: None if value is None else self._fingerprint(value) for key, value in values.items()}

    def masked(self, text: str) -> str:
        return self.mask(text)

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
            self._key = _read_or_make_key(self._key_file) if self._make_key else self._key_file.read_bytes()
        return fingerprint(self._key, value)


class Mask:
    """Second defence: blots out every value we ever read from texts on their way out. The first is not to put it in."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    def add(self, value: str) -> None:
        if len(value) >= SHORTEST_MASKED:
            self._values.add(value)

    def __call__(self, text: str) -> str:
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, MASK)
        return text


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


def _in_words(ref: SecretRef) -> str:
    return f"environment variable {ref.env}" if isinstance(ref, SecretFromEnv) else f"file {ref.file}"


def _read_or_make_key(path: Path) -> bytes:
    """Two that start at once agree: whoever creates the file wins, the other reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    try:
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink()
    return path.read_bytes()
