"""Which process is the gateway, when a new release starts beside the old: one client id bears one connection only.

Hypha refuses a second connection of a living client, and in refusing forgets the services of the first. So the new one
must not even try before the old one has let go: it says that it is there, and waits for the answer.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid

from bioengine_runtime.apps import store

HOLDER = "gateway-holder"
RELEASED = "gateway-released"
LOOK_EVERY_S = 0.25
WAIT_AT_MOST_S = 20.0


class Lease:
    """One process's part in it. Every replica of a gateway runs on the head node, so a pid says who is alive."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._me = f"{os.getpid()} {uuid.uuid4().hex}".encode()

    async def take(self) -> None:
        """Returns when nobody else has the connection any more."""
        before = await asyncio.to_thread(store.get, HOLDER, self._name)
        await asyncio.to_thread(store.put, HOLDER, self._name, self._me)
        deadline = time.monotonic() + WAIT_AT_MOST_S
        while before and before != self._me and time.monotonic() < deadline:
            if not _lives(before) or await asyncio.to_thread(store.get, RELEASED, self._name) == before:
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def until_lost(self) -> None:
        """Returns when a newer process has come."""
        while await asyncio.to_thread(store.get, HOLDER, self._name) in (self._me, None):  # noqa: ASYNC110 - Ray's store tells nobody
            await asyncio.sleep(LOOK_EVERY_S)

    async def let_go(self) -> None:
        """Tell the newer one that the connection is closed."""
        await asyncio.to_thread(store.put, RELEASED, self._name, self._me)


def _lives(holder: bytes) -> bool:
    try:
        os.kill(int(holder.split()[0]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
