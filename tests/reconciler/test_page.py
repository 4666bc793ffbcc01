"""The page's answers that need no browser; with one it is tried in e2e."""

from __future__ import annotations

import httpx

from reconciler.board import NOTHING_YET, Board
from reconciler.page.application import application
from reconciler.ports import Said


async def asked(target: str, tag: str = "") -> httpx.Response:
    """status.json of a process that showed one report, about `target`."""
    board = Board()
    board.show(Said({**NOTHING_YET.report, "target": target}))
    transport = httpx.ASGITransport(application(board))
    async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
        return await client.get("/status.json", headers={"if-none-match": tag})


async def test_what_was_shown_before_a_restart_is_not_taken_for_what_is_shown_now() -> None:
    """Caught: both counted one report, so whoever kept the first got 304 and went on showing it."""
    before = await asked("lab")
    after = await asked("prod", before.headers["etag"])
    assert after.status_code == 200 and after.json()["status"]["target"] == "prod"
