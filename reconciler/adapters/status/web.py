"""A web application offered through Hypha: each of its messages is a call, so they are few and bounded.

Below `<server>/<workspace>/apps/<service id>/`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message

from reconciler.adapters.hypha import unwrapped

AT_ONCE = 16
WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Web:
    """One application; its service is named `<status service>-<name>`. Public: whoever asks needs no token, so it
    has to know them by itself."""

    name: str
    application: ASGIApp
    public: bool = False


def registration(web: Web, service_id: str) -> dict[str, Any]:
    """What is handed to Hypha's `register_service`."""
    return {
        "id": f"{service_id}-{web.name}",
        "name": f"Reconciler: {web.name}",
        "type": "asgi",
        "description": "A web page of the reconciler, for browsers" if not web.public else "Heard by the reconciler",
        "config": {"visibility": "public" if web.public else "protected"},
        "serve": _serve(web.application),
    }


def _serve(application: ASGIApp) -> Callable[[Mapping[str, Any]], Awaitable[None]]:
    free = asyncio.Semaphore(AT_ONCE)

    async def serve(args: Mapping[str, Any]) -> None:
        """One request of HTTP."""
        scope, heard, said = unwrapped(args["scope"]), args["receive"], args["send"]

        async def receive() -> Message:
            return unwrapped(await heard())

        async def send(message: Message) -> None:
            await said(dict(message))

        if free.locked():
            await send({"type": "http.response.start", "status": 503, "headers": [(b"retry-after", b"5")]})
            await send({"type": "http.response.body", "body": b"too many at once"})
            return
        async with free, asyncio.timeout(WITHIN_S):
            await application(scope, receive, send)

    return serve
