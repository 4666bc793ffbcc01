"""The life of a real worker: tokens that expire, a Ray head that is lost, two of them side by side, and their ends."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
import pytest_asyncio

from bioengine_runtime.claims import claims_of
from bioengine_runtime.local.ray_head import ray_environment
from tests.runtime.demo_app import demo_files
from tests.runtime.stack import Stack, a_stack, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

TOKEN_LIVES_S = 40


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
    first = claims_of((stack.home.path / "short-lived").read_text()).expires_at
    assert first

    async def renewed() -> bool:
        return (await status_of(stack))["token_expires_at"] > first

    await eventually(renewed, TOKEN_LIVES_S)
    await asyncio.sleep(max(0.0, first + 1 - time.time()))
    await stack.stop_hypha()  # whoever comes back now shows a token
    await stack.start_hypha()
    await eventually(lambda: answers(stack), 60)


async def test_a_new_token_in_the_file_is_taken_over_at_once(stack: Stack) -> None:
    (stack.home.path / "short-lived").write_text(token := stack.admin_token(3600))

    async def taken_over() -> bool:
        return (stack.home.worker_folder / "hypha.token").read_text() == token

    await eventually(taken_over, 10)


async def test_identical_startup_applications_change_nothing_at_a_restart(stack: Stack) -> None:
    before = await stack.settled_pids_of("ServeReplica:demo")
    await stack.kill_worker()
    await stack.start_worker(
        "--token-file", str(stack.home.path / "short-lived"), *with_startup({"artifact_id": "demo"})
    )

    async def deployed() -> bool:
        log = stack.home.log_file("worker-service").read_text().rsplit("event=starting", 1)[-1]
        return "event=startup_application_deployed app=demo" in log

    await eventually(deployed, 30)
    assert stack.pids_of("ServeReplica:demo") == before


async def test_a_worker_that_has_lost_its_ray_head_says_so_waits_and_connects_to_the_next(stack: Stack) -> None:
    pid = stack.worker_pid()
    await stack.stop_ray()

    async def says_that_it_waits() -> bool:
        async with stack.connected() as server:
            worker = await server.get_service(stack.worker_id)
            with pytest.raises(Exception, match="no Ray head answers at"):
                await asyncio.wait_for(worker.observe(), 5)
            return (await worker.get_status())["is_ready"] is False

    await eventually(says_that_it_waits, 60)
    async with stack.connected() as server:
        worker = await server.get_service(stack.worker_id)
        with pytest.raises(Exception, match="no Ray head answers at"):
            await worker.deploy_app(artifact_id="demo")
        with pytest.raises(Exception, match="no Ray head answers at"):
            await worker.get_app_status()
    await stack.start_ray()
    await eventually(lambda: answers(stack), 90)
    async with stack.connected() as server:
        (app,) = (await (await server.get_service(stack.worker_id)).observe())["apps"]
    assert (app["app_id"], app["status"]) == ("demo", "RUNNING")
    assert stack.worker_pid() == pid and psutil.Process(pid).is_running()


async def test_two_workers_on_one_ray_leave_each_others_apps_alone_and_stop_only_their_own(stack: Stack) -> None:
    """Fault of the reference: a worker adopted the apps of others, and stopped them when it was stopped."""
    another = await start_another(stack, *with_startup({"artifact_id": "demo", "application_id": "other"}))
    try:
        async with stack.connected() as server:
            other_id = f"{stack.workspace}/another-worker:bioengine-worker"

            async def other_app() -> bool:
                return (await (await server.get_service(f"{stack.workspace}/other")).version())["version"] == "1.0.0"

            await eventually(other_app, 90)
            theirs, ours = await server.get_service(other_id), await server.get_service(stack.worker_id)
            assert set(await ours.get_app_status()) == {"demo"} and set(await theirs.get_app_status()) == {"other"}
            before = await stack.settled_pids_of("ServeReplica:demo")
            with pytest.raises(Exception, match="not currently deployed"):
                await theirs.stop_app(application_id="demo")
            await theirs.stop_worker(blocking=True)
            # Blocking: what was withdrawn is gone when it answers.
            with pytest.raises(Exception, match="not found"):
                await server.get_service(other_id)
            assert stack.pids_of("ServeReplica:other") == set()
        assert await asyncio.wait_for(another.wait(), 20) == 0
        assert stack.pids_of("ServeReplica:demo") == before and await answers(stack)
    finally:
        if another.returncode is None:
            another.kill()
            await another.wait()


async def start_another(stack: Stack, *options: str) -> asyncio.subprocess.Process:
    """A second worker on the same Ray and Hypha, in the way of single-machine mode: its token from the environment, and
    Ray's from a file."""
    words = (
        *("-W", "ignore", "-m", "bioengine_runtime.worker", "--server-url", stack.url, "--workspace", stack.workspace),
        *("--client-id", "another-worker", "--ray-address", stack.ray_address, "--workspace-dir"),
        *(str(stack.home.path / "another"), "--log-file", str(stack.home.log_file("another"))),
        *("--ray-auth-token-file", str(stack.home.secrets.ray_auth_token)),
    )
    of_ray = {name: said for name, said in ray_environment(stack.home).items() if not name.startswith("RAY_AUTH")}
    environment = {**os.environ, **of_ray, "HYPHA_TOKEN": stack.admin_token(3600)}
    return await asyncio.create_subprocess_exec(sys.executable, *words, *options, env=environment)
