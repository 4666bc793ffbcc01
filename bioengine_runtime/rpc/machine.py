"""What the service asks of the process itself and of the folders around it: five methods, put together from parts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from bioengine_runtime.code_runs import run_code
from bioengine_runtime.worker import log_file as worker_log
from bioengine_runtime.worker.folders import AppFolders


class Machine:
    """The `machine` of WorkerService.

    `running`: ids of the apps that run; `leave`: ends the worker; `require_ray`: raises when there is no Ray; `grows`:
    nodes may come when there is work for them.
    """

    def __init__(
        self,
        *,
        apps_dir: Path,
        log_file: Path | None,
        running: Callable[[], Awaitable[Collection[str]]],
        leave: Callable[[bool], Awaitable[None]],
        require_ray: Callable[[], None],
        grows: bool,
    ) -> None:
        self._folders = AppFolders(str(apps_dir), running)
        self._log_file = log_file
        self._leave = leave
        self._require_ray = require_ray
        self._grows = grows

    async def run_code(self, **call: Any) -> dict[str, Any]:
        """In a process of its own on the cluster, never in ours."""
        self._require_ray()
        return await run_code.run_code(**call, grows=self._grows)

    async def logs(self, tail: int) -> list[str]:
        """Last lines of the worker's log. Raises when it has none."""
        return await asyncio.to_thread(worker_log.tail, self._log_file, tail)

    async def app_directories(self) -> list[dict[str, Any]]:
        """What lies in the folder of the apps."""
        return await self._folders.list()

    async def clear_app_directory(self, app_id: str) -> None:
        """Remove what an app has left behind."""
        await self._folders.clear(app_id)

    async def stop_worker(self, blocking: bool) -> None:
        """End the worker. Blocking: answers when everything is withdrawn."""
        await self._leave(blocking)
