"""An app on a real Hypha, Ray and worker: it stays offered whatever it does, and finds its secrets and no others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bioengine_runtime.local.state import read_state
from tests.runtime.stack import Stack, a_stack, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

HOLD_S = 10.0
CANARIES = {"_API_KEY": "canary-of-the-instance", "hypha_token": "canary-of-the-apps-hypha"}

MANIFEST = """
id: slow
name: Slow
id_emoji: "🐌"
description: Takes its time.
type: ray-serve
format_version: 0.5.0
version: 1.0.0
authorized_users: ["*"]
deployments: ["slow:Slow", "helper:Helper"]
"""
SLOW = '''
import os
import time
from hypha_rpc.utils.schema import schema_method
from ray import serve
from ray.serve.handle import DeploymentHandle


@serve.deployment(ray_actor_options={"num_cpus": 0}, health_check_period_s=0.5, health_check_timeout_s=2)
class Slow:
    def __init__(self, helper: DeploymentHandle):
        self.helper, self.checked = helper, 0

    def check_health(self):
        self.checked += 1

    @schema_method
    def hold(self, seconds: float) -> list:
        """Block a thread; how often our health was asked for meanwhile, and the process."""
        before = self.checked
        time.sleep(seconds)
        return [self.checked - before, os.getpid()]

    @schema_method
    async def surroundings(self) -> dict:
        """The environment of both deployments."""
        return {"mine": dict(os.environ), "helpers": await self.helper.environment.remote()}

    @schema_method
    async def shim(self) -> str:
        """Version of the package that the guides import."""
        import bioengine

        return bioengine.__version__
'''
HELPER = """
import os
from ray import serve


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Helper:
    def environment(self):
        return dict(os.environ)
"""
DUMP = """
import json, sys
import ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list
ray.init(address="{address}", namespace="bioengine", log_to_driver=False, logging_level="ERROR")
controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
found = json.dumps(ray.get(controller.get_serve_instance_details.remote()), default=str).encode()
for namespace in (b"bioengine-apps", b"serve", None):
    for key in _internal_kv_list(b"", namespace=namespace):
        found += _internal_kv_get(key, namespace=namespace) or b""
open("{file}", "wb").write(found)
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack() -> AsyncIterator[Stack]:
    async with a_stack() as running:
        async with running.connected() as server:
            worker = await server.get_service(running.worker_id)
            files = {"manifest.yaml": MANIFEST, "slow.py": SLOW, "helper.py": HELPER}
            await worker.upload_app(
                files=[{"name": name, "content": content, "type": "text"} for name, content in files.items()]
            )
            await worker.deploy_app(
                artifact_id="slow",
                application_id="slow",
                max_ongoing_requests=1,
                application_env_vars={"*": {"PLAIN": "seen", "_API_KEY": CANARIES["_API_KEY"]}},
                hypha_token=CANARIES["hypha_token"],
            )

            async def answers() -> bool:
                app = await server.get_service(f"{running.workspace}/slow")
                return (await app.hold(seconds=0))[1] > 0

            await eventually(answers, 120)
        yield running


async def test_6_1_8_a_long_request_never_makes_an_app_vanish(stack: Stack) -> None:
    async with stack.connected() as server, stack.connected() as other:
        worker = await server.get_service(stack.worker_id)
        app = await other.get_service(f"{stack.workspace}/slow")
        began = time.monotonic()
        long = asyncio.ensure_future(app.hold(seconds=HOLD_S))
        looks = 0
        while time.monotonic() - began < HOLD_S:
            status = (await worker.get_app_status(application_ids=["slow"], logs_tail=0))["slow"]
            assert (status["status"], status["deployments"]["Slow"]["status"]) == ("RUNNING", "HEALTHY")
            again = await server.get_service(f"{stack.workspace}/slow")
            assert again.id == app.id
            load = await asyncio.wait_for(again.get_load(), 10)
            if long.done():
                break
            assert load == 1.0
            looks += 1
            await asyncio.sleep(0.5)
        checked, pid = await long
        assert looks > 3
        assert checked > 5  # Serve asked for our health while the only request it allows was under way
        assert (await app.hold(seconds=0))[1] == pid


async def test_an_app_finds_its_own_secrets_and_nothing_of_the_workers(stack: Stack) -> None:
    async with stack.connected() as server:
        found = await (await server.get_service(f"{stack.workspace}/slow")).surroundings()
    for environment in (found["mine"], found["helpers"]):
        assert environment["API_KEY"] == CANARIES["_API_KEY"]
        assert environment["HYPHA_TOKEN"] == CANARIES["hypha_token"]
        assert environment["PLAIN"] == "seen"
        assert environment["HYPHA_ARTIFACT_ID"] == f"{stack.workspace}/slow"
        assert "_API_KEY" not in environment
        assert [name for name in environment if name.startswith("RAY_AUTH")] == []
        tokens = [path.read_text().strip() for path in secret_files(stack)]
        assert tokens
        assert [name for name, value in environment.items() if value in tokens] == []


async def test_an_app_can_import_bioengine(stack: Stack) -> None:
    async with stack.connected() as server:
        assert await (await server.get_service(f"{stack.workspace}/slow")).shim()


async def test_no_secret_is_in_rays_state_its_logs_or_the_status(stack: Stack, tmp_path: Path) -> None:
    await stack.run_beside(DUMP.format(address=stack.ray_address, file=tmp_path / "dump"))
    state = (tmp_path / "dump").read_bytes()
    assert b"seen" in state
    logs = written_by(stack)
    assert len(logs) > 10
    async with stack.connected() as server:
        worker = await server.get_service(stack.worker_id)
        status: Any = await worker.get_app_status(application_ids=["slow"], logs_tail=-1)
        observed = await worker.observe()
    for canary in CANARIES.values():
        assert canary.encode() not in state
        assert [path for path, content in logs.items() if canary.encode() in content] == []
        assert canary not in repr(status)
        assert canary not in repr(observed)


def written_by(stack: Stack) -> dict[Path, bytes]:
    """Everything in Ray's folder, and the logs of Hypha and the worker."""
    ray_temp = read_state(stack.home.state_file).ray_temp
    assert ray_temp
    files = [*Path(ray_temp).rglob("*"), *stack.home.state_file.parent.rglob("*.log")]
    return {path: path.read_bytes() for path in files if path.is_file()}


def secret_files(stack: Stack) -> list[Path]:
    secrets = stack.home.secrets
    return [secrets.admin_token, secrets.ray_auth_token]
