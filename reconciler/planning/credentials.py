"""Tokens that end: those that say so themselves (JWT), told before it is too late.

A token is only read for its date, which is public; whether it is good is for those to say who accept it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from reconciler.planning.desired import DesiredState
from reconciler.planning.diff import Fingerprints, not_compared
from reconciler.planning.live import LiveState
from reconciler.planning.steps import Credential

SOON_S = 5 * 86_400.0
"""So long before its end a token is reported."""

Ends = Mapping[str, Mapping[str, float]]
"""app id → Class/NAME → when the value that is read now ends, seconds since the epoch; none for what has no end."""


def end_of(value: str) -> float | None:
    """When a token ends, seconds since the epoch; None for what is no JWT, or one without an end."""
    parts = value.split(".")
    if len(parts) != 3:
        return None
    try:
        body = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    end = cast("dict[str, Any]", body).get("exp") if isinstance(body, dict) else None
    return float(end) if isinstance(end, int | float) and not isinstance(end, bool) else None


def credentials(desired: DesiredState, live: LiveState, known: Fingerprints, ends: Ends) -> Iterator[Credential]:
    """Those of running apps that end soon or have ended, and those that nobody can tell about."""
    for app_id in sorted(desired.apps.keys() & live.apps.keys()):
        for name, end in sorted(ends.get(app_id, {}).items()):
            if end - live.observed_at < SOON_S:
                yield Credential(app_id, name, end)
    for app_id, names in not_compared(desired, known, live):
        yield from (Credential(app_id, name) for name in names)
