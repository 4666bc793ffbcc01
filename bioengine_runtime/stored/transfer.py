"""Bytes to and from the artifact store through signed URLs, a few at a time; no URL ever leaves in an error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import httpx
import stamina

T = TypeVar("T")
AT_ONCE = 8
TIMEOUT_S = 60.0


class StoreTrouble(RuntimeError):
    """The store's own fault, which may be gone the next time (two first files of a folder at once trouble rclone)."""


_patiently = stamina.retry(on=(httpx.TransportError, StoreTrouble), attempts=5, wait_initial=0.2, wait_max=5.0)


async def download(urls: Mapping[str, str]) -> dict[str, bytes]:
    """Content by path. Raises RuntimeError when the store fails."""

    @_patiently
    async def get(client: httpx.AsyncClient, path: str) -> bytes:
        return _ok(await client.get(urls[path])).content

    return await _each(urls, get)


async def send(files: Mapping[str, bytes], urls: Mapping[str, str]) -> None:
    """Put every file at its URL. Raises RuntimeError when the store fails."""

    @_patiently
    async def put(client: httpx.AsyncClient, path: str) -> None:
        _ok(await client.put(urls[path], content=files[path]))

    await _each(files, put)


async def _each(paths: Mapping[str, object], do: Callable[[httpx.AsyncClient, str], Awaitable[T]]) -> dict[str, T]:
    """The first failure ends the rest."""
    free = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:

        async def one(path: str) -> T:
            async with free:
                return await do(client, path)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = {path: group.create_task(one(path)) for path in paths}
        except* (httpx.HTTPError, RuntimeError) as errors:
            raise RuntimeError(f"the artifact store failed: {_short(errors.exceptions[0])}") from None
    return {path: task.result() for path, task in tasks.items()}


def _ok(response: httpx.Response) -> httpx.Response:
    if response.is_server_error:
        raise StoreTrouble(f"HTTP {response.status_code}")
    if not response.is_success:  # not raise_for_status: its text holds the signed URL
        raise RuntimeError(f"HTTP {response.status_code}")
    return response


def _short(error: BaseException) -> str:
    return str(error) if isinstance(error, RuntimeError) else type(error).__name__
