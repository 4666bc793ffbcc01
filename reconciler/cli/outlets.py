"""From options to whoever is told of news: webhooks, and the mark beside a commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reconciler.cli.options import FORGE_TOKEN
from reconciler.errors import ReconcilerError, Remedy
from reconciler.telling.forges import Commits, Forge
from reconciler.telling.notify import Arrived, CommitStatus, Notifier, Webhook, token_from
from reconciler.telling.outgoing import Outlet


class NoNotifySecret(ReconcilerError):
    """What is sent could not be signed."""

    remedy = Remedy.OPERATOR


@dataclass(frozen=True, slots=True)
class Outlets:
    """As said on the command line."""

    urls: tuple[str, ...] = ()
    secret_file: Path | None = None
    forge: Forge | None = None
    forge_api: str = ""
    status_url: str = ""
    forge_token_file: Path | None = None
    private_hosts: tuple[str, ...] = ()
    repository: str = ""

    def notifier(self, masked: Callable[[str], str], arrived: Arrived) -> Notifier:
        """Raises ReconcilerError for what cannot work, before anything is told."""
        status = None
        if self.forge:
            commits = Commits.of(self.forge, self.repository, self.forge_api)
            token = token_from(self.forge_token_file, FORGE_TOKEN)
            status = CommitStatus(commits, token, self.status_url, private=self.private_hosts)
        secret = self._secret() if self.urls else b""
        webhooks = tuple(Webhook(Outlet(url, self.private_hosts), secret) for url in self.urls)
        return Notifier(webhooks=webhooks, status=status, masked=masked, arrived=arrived)

    def _secret(self) -> bytes:
        if self.secret_file is None:
            raise NoNotifySecret("--notify needs a secret to sign with", hint="Give --notify-secret-file FILE.")
        try:
            secret = self.secret_file.read_bytes().strip()
        except OSError as error:
            raise NoNotifySecret(
                f"{self.secret_file}: {error.strerror}", hint="Name a file that can be read."
            ) from None
        if not secret:
            raise NoNotifySecret(f"{self.secret_file} is empty", hint="Put a long random text into it.")
        return secret
