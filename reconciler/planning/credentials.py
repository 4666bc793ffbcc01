"""Tokens that end soon, told before it is too late, and secrets that nobody can tell about.

Nothing is restarted for a token: what git refers to is the one that ends, so somebody has to give a new value.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, cast

from bioengine_runtime.contract.app import HYPHA_TOKEN
from bioengine_runtime.contract.base import ENTIRE
from reconciler.planning.desired import DesiredState
from reconciler.planning.diff import Fingerprints, not_compared
from reconciler.planning.live import LiveState
from reconciler.planning.steps import Credential

SOON_S = 5 * 86_400.0
"""So long before its end a token is reported."""
WORKER = "(worker)"
"""Stands where an app id stands, for the worker's own token; no app can have this id."""


def credentials(desired: DesiredState, live: LiveState, known: Fingerprints) -> Iterator[Credential]:
    """Those of our running apps and of the worker that end soon or have ended, and those that were not compared."""
    soon = live.observed_at + SOON_S
    if live.worker and live.worker.token_expires_at is not None and live.worker.token_expires_at < soon:
        yield Credential(WORKER, HYPHA_TOKEN, live.worker.token_expires_at)
    for app_id in sorted(desired.apps.keys() & live.apps.keys()):
        ends = live.apps[app_id].token_expires_at
        if ends is not None and ends < soon:
            yield Credential(app_id, f"{ENTIRE}/{HYPHA_TOKEN}", ends)
    for app_id, names in not_compared(desired, known, live):
        yield from (Credential(app_id, name) for name in names)


def end_of(token: str) -> float | None:
    """When a token ends, seconds since the epoch; None for what is no JWT, or one without an end. The date in it is no
    secret; whether the token is good is for those to say who accept it."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        body = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    end = cast("dict[str, Any]", body).get("exp") if isinstance(body, dict) else None
    return float(end) if isinstance(end, int | float) and not isinstance(end, bool) else None
