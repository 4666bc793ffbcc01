"""Making the workspace of the embedded Hypha, asked of a server that answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bioengine_runtime.local.errors import LocalError
from bioengine_runtime.local.home import open_home
from bioengine_runtime.local.workspace import ensure_workspace

SILENT: Mapping[str, int] = {}


@asynccontextmanager
async def a_hypha(answers: Mapping[str, int]) -> AsyncIterator[tuple[str, list[str]]]:
    """Its address, and what it was asked. `answers`: status by method; what is not named is never answered."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            method, path, _ = line.decode().split(" ", 2)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r")[0] or 0))
            asked.append(f"{method} {path}")
            if method in answers:
                writer.write(f"HTTP/1.1 {answers[method]} Said\r\ncontent-length: 4\r\n\r\nwhy?".encode())

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()


INFO, MAKE = "GET /bioengine/info", "POST /public/services/~/create_workspace"


@pytest.mark.parametrize(("answers", "asked"), [({"GET": 200}, [INFO]), ({"GET": 500, "POST": 200}, [INFO, MAKE])])
async def test_a_workspace_is_made_where_it_is_missing(
    answers: Mapping[str, int], asked: list[str], tmp_path: Path
) -> None:
    async with a_hypha(answers) as (url, heard):
        await ensure_workspace(url, open_home(tmp_path / "home"))
    assert heard == asked


@pytest.mark.parametrize(
    ("answers", "why", "asked"),
    [
        (SILENT, r"no answer \(ReadTimeout\)", [INFO]),
        ({"GET": 401}, r"HTTP 401 why\?", [INFO]),
        ({"GET": 404, "POST": 500}, r"HTTP 500 why\?", [INFO, MAKE]),
    ],
)
async def test_a_hypha_that_does_not_make_it_is_said_with_its_log(
    answers: Mapping[str, int], why: str, asked: list[str], tmp_path: Path
) -> None:
    home = open_home(tmp_path / "home")
    async with a_hypha(answers) as (url, heard):
        with pytest.raises(LocalError, match=f"does not make the workspace bioengine: {why}") as refused:
            await ensure_workspace(url, home, timeout_s=0.2 if answers is SILENT else 30)
    assert refused.value.log_file == home.log_file("hypha") and heard == asked
