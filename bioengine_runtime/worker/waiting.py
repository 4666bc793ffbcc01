"""A worker without a Ray head: it is there, says that it waits and for what, and goes on when a head answers.

One that cannot say so ends, as it would with a head: who runs it must not take it for one that only waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from bioengine_runtime.worker.pending import Pending
from bioengine_runtime.worker.presence import NoApps, Presence
from bioengine_runtime.worker.ray_link import Head, RayAway, find_head
from bioengine_runtime.worker.settings import WorkerSettings

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0


async def wait_for_head(settings: WorkerSettings, stopping: asyncio.Event) -> Head | None:
    """The head, at once when it is there already; None when we are told to stop first. Raises what saying so raises."""
    head = await _look(settings.ray_address)
    if isinstance(head, Head):
        return head
    log.warning("event=waiting_for_ray address=%s reason=%s", settings.ray_address, head.reason)
    presence = Presence(settings, None)
    saying = asyncio.create_task(_say(presence, head.reason, stopping))
    try:
        return await until_there(lambda: _look(settings.ray_address), saying, stopping)
    finally:
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)
        await presence.withdraw()
        await presence.close()


async def until_there(
    look: Callable[[], Awaitable[Head | RayAway]], saying: asyncio.Task[None], stopping: asyncio.Event
) -> Head | None:
    """Look again and again, for as long as we can say that we do. None when we are told to stop first."""
    while not stopping.is_set():
        if saying.done():
            saying.result()
        if isinstance(head := await look(), Head):
            log.info("event=ray_is_there")
            return head
        await asyncio.sleep(LOOK_EVERY_S)
    return None


async def _look(address: str) -> Head | RayAway:
    try:
        return await asyncio.to_thread(find_head, address)
    except RayAway as away:
        return away


async def _say(presence: Presence, reason: str, stopping: asyncio.Event) -> None:
    address = presence.settings.ray_address
    apps = NoApps(address, reason)

    def is_away() -> NoReturn:
        raise RayAway(address, reason)

    async def leave(blocking: bool) -> None:  # noqa: ARG001 - as the worker's own
        stopping.set()

    async def nothing() -> dict[str, Any]:
        return {}

    await presence.connect()
    await presence.register(
        apps=apps, nodes=list, pending=Pending, service_ids=nothing, running=apps.ask, leave=leave, require_ray=is_away
    )
