"""The worker that the contract is tested on: any one by its service id, or one of our own.

    pytest tests/worker_contract --worker-service-id WORKSPACE/CLIENT:SERVICE --server-url URL --token-file FILE

The token is one of an admin of that worker. Tests that need tokens of several people, or end the worker, run on our own
only. What the tests upload and deploy has names of its own, and is removed again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypha_rpc import connect_to_server

from tests.runtime.stack import Stack, a_stack, eventually
from tests.worker_contract.an_app import files

OPTIONS = {
    "--worker-service-id": "full service id of the worker to test; left out: one of our own",
    "--server-url": "the Hypha server of that worker",
    "--token-file": "file with a token of an admin of that worker",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, text in OPTIONS.items():
        parser.addoption(name, help=text)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a worker that is not ours only what needs no tokens of other people."""
    if config.getoption("--worker-service-id"):
        of_ours = [item for item in items if "stack" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=of_ours)
        items[:] = [item for item in items if item not in of_ours]


@dataclass(frozen=True)
class Target:
    """A worker, connected as its admin. `stack` is None when it is not ours."""

    server: Any
    worker: Any
    worker_id: str
    stack: Stack | None

    @property
    def workspace(self) -> str:
        return self.worker_id.split("/")[0]

    async def manager(self) -> Any:
        return await self.server.get_service("public/artifact-manager")

    async def app(self, app_id: str) -> Any:
        status = (await self.worker.get_app_status(application_ids=[app_id], logs_tail=0))[app_id]
        return await self.server.get_service(status["service_ids"][0]["websocket_service_id"])


@dataclass(frozen=True)
class AnApp:
    """An artifact of a name of its own, and apps made of it."""

    target: Target
    alias: str

    @property
    def artifact_id(self) -> str:
        return f"{self.target.workspace}/{self.alias}"

    async def upload(self, version: str, **options: str) -> None:
        artifact = await self.target.worker.upload_app(files=files(self.alias, version, **options))
        assert artifact == self.artifact_id

    async def status(self, app_id: str | None = None, **options: Any) -> dict[str, Any]:
        app_id = app_id or self.alias
        return (await self.target.worker.get_app_status(application_ids=[app_id], **options))[app_id]

    async def look(self, *names: str) -> dict[str, Any]:
        return await (await self.target.app(self.alias)).look(list(names))

    async def deploy(self, says: str, **options: Any) -> dict[str, Any]:
        """Deploy, wait until this version answers, and say what it saw."""
        options = {"artifact_id": self.artifact_id, "application_id": self.alias, **options}
        assert await self.target.worker.deploy_app(**options) == self.alias

        async def answers() -> dict[str, Any] | None:
            seen = await self.look()
            return seen if seen["version"] == says and (await self.status())["status"] == "RUNNING" else None

        return await eventually(answers, 120)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def target(request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    worker_id, url, file = (request.config.getoption(name, default=None) for name in OPTIONS)
    async with AsyncExitStack() as held:
        stack = None
        if worker_id:
            if not (url and file):
                raise pytest.UsageError("--worker-service-id needs --server-url and --token-file")
            token = await asyncio.to_thread(Path(file).read_text)
            config = {"server_url": url, "token": token.strip(), "workspace": worker_id.split("/")[0], "logger": None}
            server = await held.enter_async_context(connect_to_server(config))
        else:
            stack = await held.enter_async_context(a_stack())
            worker_id = stack.worker_id
            server = await held.enter_async_context(stack.connected())
        yield Target(server, await server.get_service(worker_id), worker_id, stack)


@asynccontextmanager
async def removed_afterwards(target: Target, *app_ids: str, artifacts: tuple[str, ...]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for app_id in app_ids:
            with suppress(Exception):
                await target.worker.stop_app(application_id=app_id)
        for artifact in artifacts:
            with suppress(Exception):
                await (await target.manager()).delete(artifact, delete_files=True)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def app(target: Target) -> AsyncIterator[AnApp]:
    """Deployed once, with everything that an update must not lose."""
    one = AnApp(target, f"contract-{os.urandom(4).hex()}")
    async with removed_afterwards(target, one.alias, artifacts=(one.artifact_id,)):
        await one.upload("1.0.0", notes="first")
        await one.deploy(
            "1.0.0",
            application_kwargs={"ContractApp": {"greeting": "good day"}},
            application_env_vars={"*": {"PLAIN": "everywhere", "_HIDDEN": "s3cret"}},
            hypha_token="t0ken",
            authorized_users={"*": ["ann@lab.example"]},
            ice_servers=[{"urls": "stun:127.0.0.1:3478"}],
            max_ongoing_requests=7,
            auto_redeploy=True,
            debug=True,
        )
        yield one
