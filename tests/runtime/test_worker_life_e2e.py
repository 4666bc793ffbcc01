"""The life of a real worker: tokens that expire, a Ray head that is lost, two of them side by side, and their ends."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.runtime.demo_app import demo_files
from tests.runtime.stack import Stack, a_stack, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

TOKEN_LIVES_S = 24


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack() -> AsyncIterator[Stack]:
    """A worker with a token that soon expires, and an app that it deployed itself."""
    async with a_stack() as running:
        async with running.connected() as server:
            await (await server.get_service(running.worker_id)).upload_app(files=demo_files("1.0.0"))
        await running.stop_worker()
        token = running.home.path / "short-lived"
        token.write_text(running.admin_token(TOKEN_LIVES_S))
        await running.start_worker(
            "--token-file", str(token), *with_startup({"artifact_id": "demo"}, {"artifact_id": "none"})
        )
        yield running


def with_startup(*wishes: dict[str, Any]) -> list[str]:
    return ["--startup-applications", *map(json.dumps, wishes)]


async def status_of(stack: Stack) -> dict[str, Any]:
    async with stack.connected() as server:
        return await (await server.get_service(stack.worker_id)).get_status()


async def answers(stack: Stack) -> bool:
    async with stack.connected() as server:
        worker = await server.get_service(stack.worker_id)
        app = await server.get_service(f"{stack.workspace}/demo")
        return (await app.version())["version"] == "1.0.0" and await worker.check_access()


async def test_startup_applications_run_and_one_that_fails_stops_nothing(stack: Stack) -> None:
    await eventually(lambda: answers(stack), 60)
    log = stack.home.log_file("worker-service").read_text()
    assert "event=startup_application_deployed app=demo" in log
    assert "event=startup_application_failed app=none" in log


async def test_after_its_token_has_expired_everything_still_answers(stack: Stack) -> None:
    first = (await status_of(stack))["token_expires_at"]
    assert first

    async def renewed() -> bool:
        return (await status_of(stack))["token_expires_at"] > first

    await eventually(renewed, TOKEN_LIVES_S)
    await asyncio.sleep(max(0.0, first + 1 - time.time()))
    await stack.stop_hypha()  # whoever comes back now shows a token
    await stack.start_hypha()
    await eventually(lambda: answers(stack), 60)


async def test_identical_startup_applications_change_nothing_at_a_restart(stack: Stack) -> None:
    before = await stack.settled_pids_of("ServeReplica:demo")
    await stack.kill_worker()
    # Its own token file has one that expired long ago; the worker's has a renewed one.
    await stack.start_worker(
        "--token-file", str(stack.home.path / "short-lived"), *with_startup({"artifact_id": "demo"})
    )

    async def deployed() -> bool:
        log = stack.home.log_file("worker-service").read_text().rsplit("event=starting", 1)[-1]
        return "event=startup_application_deployed app=demo" in log

    await eventually(deployed, 30)
    assert stack.pids_of("ServeReplica:demo") == before
