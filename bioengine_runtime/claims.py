"""What a Hypha token says of itself: when it was made, when it ends, what it may. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

PERMISSIONS = {"r": "read", "rw": "read_write", "a": "admin"}


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says of itself, seconds since the epoch; None when it does not expire or does not say."""

    issued_at: float | None = None
    expires_at: float | None = None
    grants: tuple[tuple[str, str], ...] = ()
    """Workspace and r, rw or a."""

    @property
    def lifetime_s(self) -> float:
        """How long it was made for; 0 when it does not expire."""
        return (self.expires_at or 0.0) - (self.issued_at or 0.0) if self.issued_at and self.expires_at else 0.0

    def is_due(self, now: float) -> bool:
        """In its second half: whatever is down now has the other half to come back."""
        return bool(self.lifetime_s and self.expires_at and self.expires_at - now < self.lifetime_s / 2)

    def permission(self, workspace: str) -> str:
        """In Hypha's words, for asking for another one like it."""
        return PERMISSIONS.get(dict(self.grants).get(workspace, "a"), "admin")


def claims_of(token: str) -> Claims:
    """Read without checking: the server does that. A token that is no JWT says nothing."""
    parts = token.split(".")
    if len(parts) != 3:
        return Claims()
    try:
        said = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        return Claims()
    if not isinstance(said, dict):
        return Claims()
    grants = [part.removeprefix("ws:") for part in str(said.get("scope") or "").split() if part.startswith("ws:")]
    return Claims(
        issued_at=_seconds(said.get("iat")),
        expires_at=_seconds(said.get("exp")),
        grants=tuple((workspace, level) for workspace, _, level in (grant.rpartition("#") for grant in grants)),
    )


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
