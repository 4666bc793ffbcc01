"""Commits of a local repository, noticed when they are made."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

log = logging.getLogger(__name__)


async def wake_on_commits(git_dir: Path, wake: asyncio.Event, stop: asyncio.Event) -> None:
    """Sets `wake` when a branch of a local repository moves; a look-out, not a promise: the interval sees it anyway."""
    from watchfiles import awatch  # pyright: ignore[reportUnknownVariableType]: anyio's optional types

    watched = [path for path in (git_dir / "refs", git_dir / "HEAD", git_dir / "packed-refs") if path.exists()]
    try:
        async for _ in awatch(*watched, watch_filter=None, stop_event=stop, debounce=200):
            wake.set()
    except (OSError, RuntimeError) as error:
        log.warning("event=not_watching path=%s why=%s", git_dir, error)
