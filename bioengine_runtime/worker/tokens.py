"""The worker's Hypha token: one file that worker, gateway and the next start read, renewed before it expires.

What was given (a file, or the environment) stays as it is; `hypha.token` in the worker's home is a copy of it until it
is renewed. A new one given takes its place at once. A token that does not expire is left alone, and so is one that may
not be renewed: then the log says what to do. The file is replaced as a whole and readable by its owner only.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from bioengine_runtime.claims import Claims, claims_of
from bioengine_runtime.local.secrets import write_private

log = logging.getLogger(__name__)

RENEW_WITHIN_S = 10.0
LOOK_AT_MOST_EVERY_S = 1.0
LOOK_AT_LEAST_EVERY_S = 60.0


def kept_token(home: Path) -> Path:
    """The copy, in the worker's home."""
    return home.absolute() / "hypha.token"


class NoToken(RuntimeError):
    """The worker was started without a Hypha token."""


class TokenFile:
    """`hypha.token` in the worker's home. `given` answers the token the worker was started with, None when gone."""

    def __init__(self, home: Path, given: Callable[[], str | None]) -> None:
        self.path = kept_token(home)
        self._origin = home.absolute() / "hypha.token.origin"
        self._given = given

    def settle(self) -> Claims:
        """Have the right token in the file: the one renewed from what is given, else what is given. Raises NoToken."""
        given, kept = self._given(), _read(self.path)
        if given is None:
            if kept is None:
                raise NoToken("no Hypha token: give --token-file FILE, or set HYPHA_TOKEN in the environment")
            return claims_of(kept)
        if kept is not None and _read(self._origin) == _digest(given) and _outlives(kept, given):
            return claims_of(kept)
        # The token first: killed in between, we do this again.
        write_private(self.path, given)
        write_private(self._origin, _digest(given))
        return claims_of(given)

    def renew(self, token: str) -> None:
        """Replace it by a newer one of the same origin."""
        write_private(self.path, token)


class Session(Protocol):
    """As far as we need it."""

    @property
    def workspace(self) -> str: ...
    async def connected(self) -> Any: ...


class TokenKeeper:
    """Keeps the file fresh while it runs; nothing that goes wrong ends it."""

    def __init__(self, file: TokenFile, session: Session, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._session = session
        self._clock = clock
        self._claims = file.settle()

    @property
    def expires_at(self) -> float | None:
        """When what is in the file ends; None: never, as far as it says."""
        return self._claims.expires_at

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """For ever."""
        while True:
            try:
                await self.look()
            except Exception as error:  # the server is away, or says no: the token is good until it expires
                left = (self._claims.expires_at or 0.0) - self._clock()
                log.warning(
                    "event=token_not_renewed error=%s seconds_left=%.0f fix=%s",
                    type(error).__name__,
                    left,
                    '"if this goes on, put a new token into the file given with --token-file"',
                )
            await sleep(min(max(self._claims.lifetime_s / 20, LOOK_AT_MOST_EVERY_S), LOOK_AT_LEAST_EVERY_S))

    async def look(self) -> None:
        """Take over what is newly given, and renew what is in its second half. Raises what the server raises."""
        self._claims = await asyncio.to_thread(self._file.settle)
        if not self._claims.is_due(self._clock()):
            return
        server = await asyncio.wait_for(self._session.connected(), RENEW_WITHIN_S)
        workspace = self._session.workspace
        like_it = {
            "workspace": workspace,
            "permission": self._claims.permission(workspace),
            "expires_in": int(self._claims.lifetime_s),
        }
        token = await asyncio.wait_for(server.generate_token(like_it), RENEW_WITHIN_S)
        newer = claims_of(token)
        if (newer.expires_at or 0.0) <= (self._claims.expires_at or 0.0):
            raise RuntimeError("the new token does not live longer")
        await asyncio.to_thread(self._file.renew, token)
        self._claims = newer
        log.info("event=token_renewed seconds_left=%.0f", (newer.expires_at or 0.0) - self._clock())


def _outlives(kept: str, given: str) -> bool:
    ours, theirs = claims_of(kept).expires_at, claims_of(given).expires_at
    return kept == given or (ours is not None and theirs is not None and ours > theirs)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
