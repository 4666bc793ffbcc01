"""One ASGI application on one address, for as long as it is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp

from reconciler.errors import ReconcilerError, Remedy

CONNECTIONS = 64


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
    )  # fmt: skip
    try:
        socket = config.bind_socket()
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


class _Server(uvicorn.Server):
    """Leaves the signals to us."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
