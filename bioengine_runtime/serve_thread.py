"""The one thread of this process that uses Ray Serve's library.

Serve registers a class for pickling by value while it makes a deployment of it; two threads at it at once fail with
"not registered for pickle by value" (Ray 2.60). So apps and gateway share this thread, and the event loop never waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_THREAD = ThreadPoolExecutor(1, thread_name_prefix="serve")


async def in_serve_thread(call: Callable[[], T]) -> T:
    """Run `call` there, after what was asked before it."""
    return await asyncio.get_running_loop().run_in_executor(_THREAD, call)
