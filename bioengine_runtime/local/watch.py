"""Notice when something of the embedded default dies, and see to it that stopping is not cut short."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

from bioengine_runtime.local.errors import LocalError
from bioengine_runtime.local.process import last_lines
from bioengine_runtime.local.progress import Progress, StartEvent
from bioengine_runtime.local.running import Running

RESTART_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
WELL_SECONDS = 60.0
"""A worker that ran for longer is not one that cannot run: it is started again at once."""


@asynccontextmanager
async def watched(
    running: Running, restart_worker: Callable[[], Awaitable[None]], progress: Progress
) -> AsyncIterator[None]:
    """Cancel the body and raise LocalError when a child dies that cannot simply be started again."""
    body = asyncio.current_task()
    assert body is not None
    failures: list[LocalError] = []

    async def watch() -> None:
        try:
            failures.append(await _first_failure(running, restart_worker, progress))
        except Exception as error:  # a full disk, say: if nobody watches any more, nobody is to believe so
            failures.append(_no_longer_watched(error))
        body.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        # Somebody else's wish to stop us outranks our own.
        if not failures or body.uncancel() > 0:
            raise
        raise failures[0] from None
    finally:
        watching.cancel()


async def _first_failure(
    running: Running, restart_worker: Callable[[], Awaitable[None]], progress: Progress
) -> LocalError:
    """Keep the worker running: it holds no state. Hypha, store and Ray do, so the death of one ends the start."""
    pause = RESTART_SECONDS
    while True:
        began = time.monotonic()
        ended = await running.first_to_end()
        what, log_file = ended.record.what, ended.log_file
        progress(StartEvent(what, "failed", 0.0, log_file))
        if what != "worker":
            message = f"{what} ended by itself with exit code {ended.process.returncode}"
            return LocalError(message, f"its last lines:\n{last_lines(log_file)}", log_file)
        if time.monotonic() - began > WELL_SECONDS:
            pause = RESTART_SECONDS
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        await running.stop(what, grace_seconds=0)
        try:
            await restart_worker()
        except LocalError as error:
            return error


def _no_longer_watched(error: Exception) -> LocalError:
    # Of what we did not expect the type alone: its text may hold anything.
    why = f": {error}" if isinstance(error, OSError) else ""
    message = f"the worker ended and cannot be started again: {type(error).__name__}{why}"
    return LocalError(message, "mend that (is the disk full?), then start again")


async def uninterrupted(work: Coroutine[None, None, None]) -> None:
    """Do all of `work`, which bounds its own time, even if we are cancelled meanwhile; then be cancelled."""
    task = asyncio.create_task(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError
