"""Unpacked code and package layers on the nodes: what no app needs any more is taken away.

Law: a folder is touched for as long as a record names it, and only what nobody has touched for KEPT_S is taken away. So
a replica that is still ending, a worker that starts anew and another cluster on the same disk lose nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from bioengine_runtime.apps.prepare import Places
from bioengine_runtime.apps.record import Running
from bioengine_runtime.on_node import alive_nodes, on_node

EVERY_S = 3600.0
KEPT_S = 24 * EVERY_S
SWEEP_TIMEOUT_S = 600.0
GONE = ".gone."

log = logging.getLogger(__name__)


class DiskSweeper:
    """Sweeps all nodes beside everything else, at most every EVERY_S."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._last = time.monotonic()
        self._sweeping: asyncio.Task[None] | None = None

    def sweep(self, apps: Mapping[str, Running]) -> None:
        """Begin, if it is time."""
        if time.monotonic() - self._last >= EVERY_S:
            self._last = time.monotonic()
            self._sweeping = asyncio.create_task(sweep_nodes(self._places, *named_by(apps)))

    async def stop(self) -> None:
        if self._sweeping:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)


def named_by(apps: Mapping[str, Running]) -> tuple[set[str], set[str] | None]:
    """Names of the code and of the layers that are needed; None for layers when a record does not tell."""
    current = [running.record for running in apps.values() if running.record]
    records = [*current, *(record.previous for record in current if record.previous)]
    untold = any(record.layers is None for record in records)
    layers = None if untold else {name for record in records for name in record.layers or ()}
    return {record.package for record in records}, layers


async def sweep_nodes(places: Places, code: Collection[str], layers: Collection[str] | None) -> None:
    """On every node that is alive. A node that does not answer is swept another time."""
    nodes = [node["NodeID"] for node in await alive_nodes()]
    folders = {places.code: sorted(code), places.layers: None if layers is None else sorted(layers)}
    each = (on_node(node, sweep_here, folders, within_s=SWEEP_TIMEOUT_S) for node in nodes)
    for node, gone in zip(nodes, await asyncio.gather(*each, return_exceptions=True), strict=True):
        if isinstance(gone, BaseException):
            log.warning("node=%s not swept: %s", node[:8], gone)
        elif gone:
            log.info("node=%s swept folders=%d", node[:8], len(gone))


def sweep_here(folders: Mapping[str, Collection[str] | None]) -> list[str]:
    """The part that runs on the node; what it took away."""
    return [name for folder, named in folders.items() for name in sweep_folder(Path(folder), named, time.time())]


def sweep_folder(folder: Path, named: Collection[str] | None, now: float) -> list[str]:
    """Touch what is named (None: all of it), take away what was not touched for long, drafts and locks included."""
    gone: list[str] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            if not path.name.startswith(".") and (named is None or path.name in named):
                os.utime(path)
            elif now - path.stat().st_mtime >= KEPT_S:
                _remove(path)
                gone.append(path.name)
        except (FileNotFoundError, PermissionError):  # another node's doing, or another user's own
            continue
    return gone


def _remove(path: Path) -> None:
    """Under its name it is there as a whole or not at all."""
    if not path.is_dir():
        path.unlink()
        return
    doomed = path if path.name.startswith(".") else path.rename(path.with_name(f"{GONE}{path.name}"))
    shutil.rmtree(doomed, ignore_errors=True)
