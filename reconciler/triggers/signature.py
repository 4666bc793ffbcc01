"""Whether a webhook came from who knows the secret: GitHub, Gitea, Forgejo, GitLab, or anybody with HMAC-SHA-256.

Sources: GitHub "Validating webhook deliveries" (X-Hub-Signature-256), Gitea and Forgejo "Webhooks" (X-Gitea-Signature,
X-Forgejo-Signature), GitLab "Webhooks" (X-Gitlab-Token, the secret itself). The generic form is GitHub's, under
X-Signature-256.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from reconciler.errors import ReconcilerError, Remedy

PREFIXED = ("x-hub-signature-256", "x-signature-256")
BARE = ("x-gitea-signature", "x-forgejo-signature")
TOKEN = "x-gitlab-token"
SHORTEST_SECRET = 16
"""Characters; shorter ones can be guessed."""

_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)


class NoWebhookSecret(ReconcilerError):
    """Without a secret anybody could wake us, so the receiver does not start."""

    remedy = Remedy.OPERATOR


class NotAuthentic(Exception):
    """The request does not prove that its sender knows the secret."""


def read_secrets(file: Path) -> tuple[bytes, ...]:
    """One secret per line; all of them count, so that one can follow another. Raises NoWebhookSecret."""
    try:
        lines = [line.strip() for line in file.read_bytes().splitlines()]
    except OSError as error:
        hint = "Make one: openssl rand -hex 32 > webhook.secret; chmod 600 webhook.secret"
        raise NoWebhookSecret(f"the webhook's secret cannot be read: {error}", hint=hint) from None
    secrets = tuple(line for line in lines if line)
    if not secrets or any(len(secret) < SHORTEST_SECRET for secret in secrets):
        hint = f"Write one secret per line, of at least {SHORTEST_SECRET} characters each: openssl rand -hex 32"
        raise NoWebhookSecret(f"{file}: no secret, or one that is too short", hint=hint)
    return secrets


def check(headers: Mapping[str, str], body: bytes, secrets: Sequence[bytes]) -> None:
    """Raises NotAuthentic unless there is a signature, and every one there is holds. Header names in lower case.

    Several are usual (Gitea sends GitHub's beside its own), and SHA-1 alone (X-Hub-Signature) is none."""
    proofs = [(name, headers[name]) for name in (*PREFIXED, *BARE, TOKEN) if name in headers]
    if not proofs:
        raise NotAuthentic("no signature")
    for name, proof in proofs:
        if not any(_holds(name, proof, body, secret) for secret in secrets):
            raise NotAuthentic(f"{name} does not hold")


def _holds(name: str, proof: str, body: bytes, secret: bytes) -> bool:
    if name == TOKEN:
        return hmac.compare_digest(proof.encode(errors="surrogateescape"), secret)
    digits = proof.removeprefix("sha256=") if name in PREFIXED and proof.startswith("sha256=") else proof
    if (name in PREFIXED) != proof.startswith("sha256=") or not _HEX.fullmatch(digits):
        return False
    return hmac.compare_digest(digits.encode(), hmac.new(secret, body, hashlib.sha256).hexdigest().encode())
