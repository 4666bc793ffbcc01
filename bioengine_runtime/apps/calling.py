"""How the author's code is called: what is `async` on the one event loop, everything else in a thread beside it.

So a method that blocks holds up neither the loop nor what Serve asks of the replica. Serve allows as many threads as
`max_ongoing_requests`; what it calls itself (health, start, test) has threads of its own and never waits for those.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from anyio import CapacityLimiter, to_thread
from grpc.aio import AioRpcError
from ray.exceptions import RayError, RayTaskError, UnserializableException

log = logging.getLogger("ray.serve")
Stream = AsyncGenerator[Any, None]
_END = object()
FOR_GATEWAY = "gateway."
"""Before the name of a method: then it takes `(args, kwargs)` and raises AsRaised, whatever it is that it raises."""


class AsRaised(Exception):
    """What a method has raised, by name and text: its class may be one that nobody outside of the replica can open."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.name = name
        self.text = text


async def call(method: Callable[..., Any], *args: Any) -> Any:
    """A method of the lifecycle."""
    if inspect.iscoroutinefunction(method):
        return await method(*args)
    # Whoever stops waiting stops now; the thread cannot be stopped and ends with its work or its process.
    result = await to_thread.run_sync(method, *args, limiter=CapacityLimiter(1), abandon_on_cancel=True)
    return await result if inspect.isawaitable(result) else result


def as_serve_calls_it(method: Callable[..., Any], *, debug: bool) -> Callable[..., Any]:
    """A method for callers, as a coroutine function or an async generator; Serve goes by that kind.

    hypha-rpc's schema decorator hides that a method is a generator, so we look under it."""
    written = inspect.unwrap(method)
    if inspect.isasyncgenfunction(written):
        streaming, offered = True, method
    elif inspect.isgeneratorfunction(written):
        streaming, offered = True, _iterated_in_thread(method)
    elif inspect.iscoroutinefunction(method) or inspect.iscoroutinefunction(written):
        streaming, offered = False, method
    else:
        streaming, offered = False, _run_in_thread(method)
    if streaming:
        return _logged_stream(offered, debug=debug)
    return _logged(offered) if debug else offered


def as_gateway_calls_it(method: Callable[..., Any]) -> Callable[..., Any]:
    """What `as_serve_calls_it` has made, for calls that do not go through Ray's store of objects.

    Of what comes in nothing is a name, so nothing can clash with the names of Serve's own parameters."""
    if inspect.isasyncgenfunction(method):
        return method  # called as if it were no generator it is not run, and Serve says what it is

    @functools.wraps(method)
    async def answer(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return await method(*args, **kwargs)
        except Exception as error:
            raised = under_ray(error)
            raise AsRaised(type(raised).__name__, _text(raised)) from error

    return answer


def _text(raised: Exception) -> str:
    """Its own words; Ray's of a deployment that was lost name the addresses of nodes, and callers get to read this."""
    return "another deployment of the app, or the way to it, was lost" if is_lost(raised) else str(raised)


def is_lost(error: Exception) -> bool:
    """Whether Ray says so of a replica or of the way to it, and it is not what the app has raised itself; of a class
    that only the app has, Ray tells with an error of its own."""
    return isinstance(error, RayError | AioRpcError) and not isinstance(error, UnserializableException)


def under_ray(error: Exception) -> Exception:
    """The exception under Ray's wrappers, of which there is one per deployment the call went through."""
    while isinstance(error, RayTaskError):
        cause = getattr(error, "cause", None)
        if not isinstance(cause, Exception) or cause is error:
            return RuntimeError(last_line(str(error)))
        error = cause
    return error


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _run_in_thread(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def run(*args: Any, **kwargs: Any) -> Any:
        result = await to_thread.run_sync(functools.partial(method, *args, **kwargs))
        return await result if inspect.isawaitable(result) else result

    return run


def _iterated_in_thread(method: Callable[..., Any]) -> Callable[..., Stream]:
    @functools.wraps(method)
    async def iterate(*args: Any, **kwargs: Any) -> Stream:
        items = method(*args, **kwargs)
        try:
            while (item := await to_thread.run_sync(next, items, _END)) is not _END:
                yield item
        finally:
            items.close()

    return iterate


def _logged(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def logged(*args: Any, **kwargs: Any) -> Any:
        started = time.monotonic()
        try:
            result = await method(*args, **kwargs)
        except BaseException as error:
            _say(method, started, type(error).__name__)
            raise
        _say(method, started, "ok")
        return result

    return logged


def _logged_stream(method: Callable[..., Stream], *, debug: bool) -> Callable[..., Stream]:
    @functools.wraps(method)
    async def stream(*args: Any, **kwargs: Any) -> Stream:
        started, outcome = time.monotonic(), "ok"
        try:
            async with contextlib.aclosing(method(*args, **kwargs)) as items:
                async for item in items:
                    yield item
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            if debug:
                _say(method, started, outcome)

    return stream


def _say(method: Callable[..., Any], started: float, outcome: str) -> None:
    """What was called, never with what."""
    log.info("call method=%s seconds=%.3f outcome=%s", method.__name__, time.monotonic() - started, outcome)
