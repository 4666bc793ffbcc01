"""Takes away what no app needs any more: code, blueprints, notes of replicas that are gone.

Law: nothing is taken that a record names, nor anything that has been nameless for less than GRACE_S: it may belong to a
deployment that is just being made, here or in another worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping

from bioengine_runtime.apps import store
from bioengine_runtime.apps.marks import OF_APP
from bioengine_runtime.apps.record import Running

GRACE_S = 900.0
EVERY_S = 60.0


class Sweeper:
    """Remembers since when each thing is not needed."""

    def __init__(self) -> None:
        self._nameless: dict[tuple[str, str], float] = {}
        self._last = 0.0

    async def sweep(self, apps: Mapping[str, Running]) -> None:
        """Look at most every EVERY_S."""
        now = time.monotonic()
        if now - self._last < EVERY_S:
            return
        self._last = now
        await asyncio.to_thread(self._sweep, needed(apps), now)

    def _sweep(self, named: set[tuple[str, str]], now: float) -> None:
        there = {(kind, name) for kind in store.KINDS for name in store.names(kind)}
        nameless = {key for key in there if (key[0], _owner(*key)) not in named}
        self._nameless = {key: self._nameless.get(key, now) for key in nameless}
        for key, since in self._nameless.items():
            if now - max(since, store.last_put(*key)) >= GRACE_S:
                store.delete(*key)


def needed(apps: Mapping[str, Running]) -> set[tuple[str, str]]:
    """Everything that a running app, or the version it may have to go back to, is made of."""
    return {key for app_id, running in apps.items() for key in _needs(app_id, running)}


def _needs(app_id: str, running: Running) -> Iterator[tuple[str, str]]:
    yield from ((kind, app_id) for kind in OF_APP)
    for record in (running.record, running.record.previous if running.record else None):
        if record:
            yield store.BLUEPRINT, record.blueprint
            yield store.CODE, record.package
            yield store.DESCRIBED, record.package
    for deployment in running.deployments:
        for replica in deployment.replicas:
            yield store.REPLICA, store.replica_name(app_id, deployment.name, replica.replica_id)
        for replica in (*deployment.replicas, *deployment.dead):
            yield store.FAULT, store.replica_name(app_id, deployment.name, replica.replica_id)


def _owner(kind: str, name: str) -> str:
    """What a thing is known by in a record: descriptions belong to their package."""
    return name.split("/")[0] if kind == store.DESCRIBED else name
