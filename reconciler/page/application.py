"""The page's server side: three static files and what the board says, as JSON.

Law: it changes nothing, and nothing that it answers is ever run: text travels as JSON, and the page's own policy allows
scripts of this origin alone, and no way to make markup of text.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reconciler import views
from reconciler.board import Board, NotFound
from reconciler.errors import ReconcilerError
from reconciler.planning.memory import Entry
from reconciler.serving import CannotListen, serving

History = Callable[[int, str], Awaitable[Sequence[Entry]]]
"""The newest entries, so many, of one app or ("") of all. Raises ReconcilerError."""

LOOPBACK = ("127.0.0.1", "localhost")
STATIC = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "style.css": ("style.css", "text/css; charset=utf-8"),
}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
HISTORY_SHOWN = 50
HISTORY_KEPT_S = 5.0
SIGN_OF_LIFE_S = 15.0
FOLLOWERS = 32


def application(board: Board, history: History | None = None, *, live: bool = True) -> ASGIApp:
    """The page below any path. Without `live` it tells the page to ask every few seconds: where each event would
    cost a call of its own."""
    page = _Page(board, history, live=live)
    return Starlette(
        routes=[
            *(Route(f"/{path}", _static(name, kind)) for path, (name, kind) in STATIC.items()),
            Route("/status.json", page.status),
            Route("/explain.json", page.explain),
            Route("/history.json", page.history),
            Route("/events", page.events),
        ],
        middleware=[Middleware(_Headed), Middleware(GZipMiddleware, minimum_size=2000)],
    )


@asynccontextmanager
async def shown(board: Board, history: History | None, host: str, port: int) -> AsyncGenerator[int, None]:
    """The page on this machine alone; yields the port. It asks nobody who they are, so it is for loopback. Raises
    CannotListen."""
    if host not in LOOPBACK:
        hint = "Give 127.0.0.1:PORT; for others it is on Hypha, which knows who they are."
        raise CannotListen(f"the page is not shown on {host}: it asks nobody who they are", hint=hint)
    # A page elsewhere could point its own name at this machine.
    here = TrustedHostMiddleware(application(board, history), allowed_hosts=list(LOOPBACK))
    async with serving(here, host, port, option="--page") as bound:
        yield bound


class _Page:
    def __init__(self, board: Board, history: History | None, *, live: bool) -> None:
        self._board = board
        self._history = history
        self._live = live
        self._name = secrets.token_hex(4)
        """Another one after a restart, when versions are counted anew."""
        self._followers = 0
        self._remembered: tuple[float, list[Any]] | None = None
        self._asking = asyncio.Lock()

    async def status(self, request: Request) -> Response:
        """Everything the page shows at once. 304 when nothing changed but the time, which the headers say."""
        board = self._board
        version = f'W/"{self._name}.{board.version}"'
        times = {"etag": version, "x-age-s": "" if board.age_s is None else str(board.age_s)}
        if request.headers.get("if-none-match") == version:
            return Response(status_code=304, headers=times)
        return JSONResponse({"status": board.status(), "drift": board.drift(), "plan": board.plan()}, headers=times)

    async def explain(self, request: Request) -> Response:
        try:
            return JSONResponse(self._board.story(request.query_params.get("app", "")))
        except NotFound as error:
            return _refused(error, 404)

    async def history(self, request: Request) -> Response:  # noqa: ARG002 - starlette's
        """The newest entries, asked for at most every few seconds, however many people look."""
        if self._history is None:
            return JSONResponse({"entries": [], "kept": False})
        async with self._asking:
            if self._remembered is None or time.monotonic() - self._remembered[0] > HISTORY_KEPT_S:
                try:
                    told = await self._history(HISTORY_SHOWN, "")
                except ReconcilerError as error:
                    return _refused(error, 503)
                self._remembered = time.monotonic(), self._board.public([views.entry(one) for one in told])
        return JSONResponse({"entries": self._remembered[1], "kept": True})

    async def events(self, request: Request) -> Response:
        """A word whenever something changed; 204 says: come back and ask instead."""
        if not self._live or self._followers >= FOLLOWERS:
            return Response(status_code=204)
        return StreamingResponse(self._changes(request), media_type="text/event-stream")

    async def _changes(self, request: Request) -> AsyncIterator[str]:
        self._followers += 1
        try:
            version = -1
            while not await request.is_disconnected():
                turned = await self._board.turned(version, SIGN_OF_LIFE_S)
                version = self._board.version
                yield f"data: {version}\n\n" if turned else ": still here\n\n"
        finally:
            self._followers -= 1


def _static(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = files("reconciler.page").joinpath(name).read_bytes()

    async def answer(request: Request) -> Response:  # noqa: ARG001 - starlette's
        return Response(content, media_type=kind)

    return answer


def _refused(error: ReconcilerError, status: int) -> JSONResponse:
    return JSONResponse({"error": str(error), "hint": error.hint}, status)


class _Headed:
    """Puts the page's headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await self._app(scope, receive, headed)
