"""One ASGI application on one address, for as long as it is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from reconciler.errors import ReconcilerError, Remedy

CONNECTIONS = 64
ASKS_WITHIN_S = 10.0
"""So long may a request take until it is there whole, but for a body that somebody reads (who limits it himself)."""


class CannotListen(ReconcilerError):
    """The address is taken, or not ours, or not one to serve this on."""

    remedy = Remedy.OPERATOR


@asynccontextmanager
async def serving(application: ASGIApp, host: str, port: int, *, option: str) -> AsyncGenerator[int, None]:
    """Yields the port it listens on (0 asks for any). `option` is where another address is given. Raises
    CannotListen."""
    config = uvicorn.Config(
        application, host=host, port=port, log_config=None, access_log=False, server_header=False,
        limit_concurrency=CONNECTIONS, timeout_keep_alive=5, lifespan="off", timeout_graceful_shutdown=1,
        http=_Connection, ws="none",
    )  # fmt: skip
    try:
        socket = config.bind_socket()
        socket.listen(config.backlog)  # whoever is told the port may connect to it
    except (OSError, SystemExit):
        hint = f"Choose another with {option} HOST:PORT."
        raise CannotListen(f"cannot listen on {host}:{port}", hint=hint) from None
    server = _Server(config)
    running = asyncio.create_task(server.serve([socket]))
    try:
        yield socket.getsockname()[1]
    finally:
        server.should_exit = True
        with suppress(asyncio.CancelledError):
            await running
        socket.close()


class _Connection(H11Protocol):
    """Hangs up on who does not ask: the places are few, and half a header is no reason to keep one."""

    _alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._rest()

    def _watch(self) -> None:
        """From the first moment, or the last answer, until somebody works on the next one."""
        if self.cycle and not self.cycle.response_complete:
            self._rest()
        elif self._alarm is None:
            self._alarm = self.loop.call_later(ASKS_WITHIN_S, self.transport.close)

    def _rest(self) -> None:
        if self._alarm:
            self._alarm.cancel()
            self._alarm = None


class _Server(uvicorn.Server):
    """Leaves the signals to us."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
