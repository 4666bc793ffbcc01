"""A worker without a Ray head: it is there, says that it waits and for what, and goes on when a head answers."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NoReturn

from bioengine_runtime.worker.pending import Pending
from bioengine_runtime.worker.presence import NoApps, Presence
from bioengine_runtime.worker.ray_link import Head, RayAway, find_head
from bioengine_runtime.worker.settings import WorkerSettings

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0


async def wait_for_head(settings: WorkerSettings, stopping: asyncio.Event) -> Head | None:
    """The head, at once when it is there already; None when we are told to stop first."""
    head = await _look(settings.ray_address)
    if isinstance(head, Head):
        return head
    log.warning("event=waiting_for_ray address=%s reason=%s", settings.ray_address, head.reason)
    presence = Presence(settings, None)
    saying = asyncio.create_task(_say(presence, head.reason, stopping))
    try:
        while not stopping.is_set():
            if isinstance(head := await _look(settings.ray_address), Head):
                log.info("event=ray_is_there")
                return head
            await asyncio.sleep(LOOK_EVERY_S)
        return None
    finally:
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)
        await presence.withdraw()
        await presence.close()


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

    async def leave(blocking: bool) -> None:  # noqa: ARG001
        stopping.set()

    async def nothing() -> dict[str, Any]:
        return {}

    await presence.connect()
    await presence.register(
        apps=apps, nodes=list, pending=Pending, service_ids=nothing, running=apps.ask, leave=leave, require_ray=is_away
    )
