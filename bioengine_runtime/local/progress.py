"""What is being started and how long it takes, for whoever shows it."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bioengine_runtime.local.home import Home


@dataclass(frozen=True, slots=True)
class StartEvent:
    """One part of the embedded default is starting, is ready after `seconds`, or has failed."""

    what: str
    state: Literal["starting", "ready", "failed"]
    seconds: float
    log_file: Path


Progress = Callable[[StartEvent], None]


@asynccontextmanager
async def announced(what: str, home: Home, progress: Progress) -> AsyncIterator[None]:
    """Tell `progress` that `what` starts, and how that ended."""
    began = time.monotonic()
    log_file = home.log_file(what)
    progress(StartEvent(what, "starting", 0.0, log_file))
    try:
        yield
    except BaseException:
        progress(StartEvent(what, "failed", time.monotonic() - began, log_file))
        raise
    progress(StartEvent(what, "ready", time.monotonic() - began, log_file))
