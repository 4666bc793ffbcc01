"""The folders that apps write into, on all nodes of the cluster: listed as one, and cleared everywhere or not at all.

Law: nothing is deleted while its app runs. A folder is moved out of the way first; then we look again whether the app
has been started meanwhile, and put it back if so; only what lies aside is deleted.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from bioengine_runtime.apps.errors import Refused
from bioengine_runtime.contract.base import AppId
from bioengine_runtime.on_node import alive_nodes, on_node
from bioengine_runtime.rpc.door import Invalid
from bioengine_runtime.worker.app_disks import (
    delete_here,
    disk_here,
    kind_here,
    move_away_here,
    put_back_here,
    sizes_here,
)

log = logging.getLogger(__name__)

ANSWER_WITHIN_S = 60.0
DELETE_WITHIN_S = 600.0

_app_id = TypeAdapter[str](AppId)


class Nodes(Protocol):
    """Where the folders are."""

    async def alive(self) -> list[str]:
        """Ids of the nodes that can be asked."""
        ...

    async def run(self, node: str, work: Callable[..., Any], *given: Any, within_s: float) -> Any:
        """Call it there. Raises RuntimeError when nothing comes back in time."""
        ...


class RayNodes:
    """Every node of the cluster."""

    async def alive(self) -> list[str]:
        return [node["NodeID"] for node in await alive_nodes()]

    async def run(self, node: str, work: Callable[..., Any], *given: Any, within_s: float) -> Any:
        return await on_node(node, work, *given, within_s=within_s)


class AppFolders:
    """`apps_dir` is a path on every node; `running` answers the ids of all apps that run, whoever's they are."""

    def __init__(
        self, apps_dir: str, running: Callable[[], Awaitable[Collection[str]]], nodes: Nodes | None = None
    ) -> None:
        self._apps_dir = apps_dir
        self._running = running
        self._nodes = nodes or RayNodes()

    async def list(self) -> list[dict[str, Any]]:
        """{name, path, is_running, size_bytes} by name; sizes over all disks. Raises RuntimeError for a silent node."""
        each: list[dict[str, int]] = await self._everywhere(await self._disks(), sizes_here)
        sizes = sum((Counter(one) for one in each), Counter[str]())
        names = {name for one in each for name in one}  # adding counters loses those that are empty
        running = await self._running()
        return [
            {
                "name": name,
                "path": f"{self._apps_dir}/{name}",
                "is_running": name in running,
                "size_bytes": sizes[name],
            }
            for name in sorted(names)
        ]

    async def clear(self, app_id: str) -> None:
        """Delete the folder of an app that does not run.

        Raises Invalid for what is no app's folder, Refused when the app runs, RuntimeError when a node does not answer
        or a file cannot be deleted."""
        _check(app_id)
        nodes = await self._disks()
        kinds = set(await self._everywhere(nodes, kind_here, app_id)) - {"nothing"}
        if kinds != {"folder"}:
            what = "there is none on any node" if not kinds else f"it is no folder but a {'/'.join(sorted(kinds))}"
            raise Invalid(f"application_id: no folder of {app_id} to clear: {what}")
        await self._refuse_running(app_id)
        token = uuid.uuid4().hex
        try:
            await self._everywhere(nodes, move_away_here, app_id, token)
            await self._refuse_running(app_id)
        except Exception:
            await self._everywhere(nodes, put_back_here, app_id, token)
            raise
        problems = await self._everywhere(nodes, delete_here, app_id, token, within_s=DELETE_WITHIN_S)
        if found := [problem for problem in problems if problem]:
            raise RuntimeError(f"the folder of {app_id} is out of its way, but not all of it is deleted: {found[0]}")
        log.info("event=app_folder_cleared app=%s disks=%d", app_id, len(nodes))

    async def _refuse_running(self, app_id: str) -> None:
        if app_id in await self._running():
            raise Refused(f"{app_id} runs, and lives in its folder; stop it first")

    async def _disks(self) -> list[str]:
        """One node of each disk."""
        alive = await self._nodes.alive()
        disks = await self._everywhere(alive, disk_here)
        return list({disk: node for disk, node in zip(disks, alive, strict=True) if disk is not None}.values())

    async def _everywhere(
        self, nodes: Collection[str], work: Callable[..., Any], *given: Any, within_s: float = ANSWER_WITHIN_S
    ) -> list[Any]:
        """On all of these, even if one fails; then the first failure is raised."""
        each = (self._nodes.run(node, work, self._apps_dir, *given, within_s=within_s) for node in nodes)
        answers = await asyncio.gather(*each, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers


def _check(app_id: str) -> None:
    try:
        _app_id.validate_python(app_id)
    except ValidationError as error:
        raise Invalid(f"application_id: not the name of an app's folder: {error.errors()[0]['msg']}") from None
