"""Talks to Serve's controller; what is asked for while it talks goes out together.

The controller writes a checkpoint per call, not per app, so twenty apps in one call cost little more than one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve.config import ProxyLocation
from ray.serve.generated import serve_pb2

from bioengine_runtime.apps.record import Running
from bioengine_runtime.serve_thread import in_serve_thread

WINDOW_S = 0.05
CALL_TIMEOUT_S = 120.0
SEEN_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class _Request:
    """One app to deploy, known by the blueprint that its record will name, and who waits for it."""

    blueprint: str
    deployments: Sequence[bytes]
    accepted: asyncio.Future[None]


class Deployer:
    """What waits to be sent. At most one request per app may wait; the supervisor sees to that.

    `look` reads everything that runs."""

    def __init__(self, look: Callable[[], Awaitable[dict[str, Running]]]) -> None:
        self._look = look
        self._waiting: dict[str, _Request] = {}
        self._sending: asyncio.Task[None] | None = None

    async def start_serve(self) -> None:
        """Serve without an HTTP proxy, unless it runs already."""
        await in_serve_thread(lambda: serve.start(proxy_location=ProxyLocation.Disabled))

    async def deploy(self, app_id: str, blueprint: str, deployments: Sequence[bytes]) -> None:
        """Returns once the controller has taken it over and shows it."""
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[app_id] = _Request(blueprint, deployments, accepted)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all())
        await accepted

    async def delete(self, app_id: str) -> None:
        """Returns once the controller has begun to stop it."""
        await in_serve_thread(lambda: ray.get(_controller().delete_apps.remote([app_id]), timeout=CALL_TIMEOUT_S))

    async def _send_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(WINDOW_S)
            batch, self._waiting = self._waiting, {}
            failure: Exception | None = None
            try:
                await in_serve_thread(lambda batch=batch: _deploy(batch))
                await self._until_seen(batch)
            except Exception as error:  # all who wait for this batch get it; the next one is sent all the same
                failure = error
            for request in batch.values():
                if request.accepted.done():
                    continue
                if failure:
                    request.accepted.set_exception(failure)
                else:
                    request.accepted.set_result(None)

    async def _until_seen(self, batch: Mapping[str, _Request]) -> None:
        """The controller answers before its next round; whoever looks in between would still see the old record."""
        deadline = time.monotonic() + SEEN_TIMEOUT_S
        missing = dict(batch)
        while missing and time.monotonic() < deadline:
            apps = await self._look()
            for app_id, request in batch.items():
                record = apps[app_id].record if app_id in apps else None
                if record and record.blueprint == request.blueprint:
                    missing.pop(app_id, None)
            if missing:
                await asyncio.sleep(0.1)


def _deploy(batch: Mapping[str, _Request]) -> None:
    deployments = {app_id: list(request.deployments) for app_id, request in batch.items()}
    nothing_more = serve_pb2.ApplicationArgs().SerializeToString()  # pyright: ignore[reportAttributeAccessIssue]
    call = _controller().deploy_applications.remote(deployments, dict.fromkeys(batch, nothing_more))
    ray.get(call, timeout=CALL_TIMEOUT_S)


def _controller() -> Any:
    return ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
