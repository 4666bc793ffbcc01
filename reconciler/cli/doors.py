"""What a reconciler that keeps running listens at: each door on an address of this machine, when it is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import ReconcilerError, Remedy
from reconciler.triggers.signature import NoWebhookSecret


class BadAddress(ReconcilerError):
    """An address to listen at that is none."""

    remedy = Remedy.OPERATOR


@dataclass(frozen=True, slots=True)
class At:
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def read(cls, address: str, option: str) -> At:
        """From HOST:PORT. Raises BadAddress."""
        host, _, port = address.rpartition(":")
        if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
            raise BadAddress(f'"{address}" is no HOST:PORT', hint=f"Such as {option} 127.0.0.1:8780.")
        return cls(host.strip("[]"), int(port))


@dataclass(frozen=True, slots=True)
class Doors:
    """Where; None: not at all."""

    webhook: At | None = None
    webhook_secret_file: Path | None = None
    page: At | None = None
    metrics: At | None = None

    @classmethod
    def read(cls, webhook: str | None, secret_file: Path | None, page: str | None, metrics: str | None) -> Doors:
        """From the options of these names. Raises BadAddress or NoWebhookSecret."""
        if webhook and secret_file is None:
            raise NoWebhookSecret("--webhook needs a secret", hint="Give --webhook-secret-file FILE.")
        said = (("--webhook", webhook), ("--page", page), ("--metrics", metrics))
        hook, shown, counted = (At.read(address, option) if address else None for option, address in said)
        return cls(hook, secret_file, shown, counted)
