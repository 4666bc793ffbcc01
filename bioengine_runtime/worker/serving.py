"""From start to end: start, serve until told to stop, leave.

Law: apps are taken along only by a worker that was ready and was told to stop. One that cannot start (Hypha is slow, a
file is not readable) was told nothing, and what it found running is not its to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Serves(Protocol):
    """The worker, as far as we need it."""

    async def start(self) -> None:
        """Returns when it is ready."""
        ...

    async def stop(self, *, told: bool) -> None:
        """Leave. Not `told` to stop, it touches no app."""
        ...


async def serve_until_told(worker: Serves, stopping: asyncio.Event, leaving: Callable[[], None]) -> None:
    """Returns when it was told and has left; `leaving` is called before. Raises what the start has raised."""
    starting = asyncio.create_task(worker.start())
    told = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({starting, told}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.is_set():
            starting.result()
            await told
    finally:
        leaving()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        ready = not starting.cancelled() and starting.exception() is None
        await worker.stop(told=ready and stopping.is_set())
        told.cancel()
