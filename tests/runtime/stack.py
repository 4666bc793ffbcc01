"""A real Hypha, Ray and worker on loopback, each of which a test may end and start again."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from hypha_rpc import connect_to_server

from bioengine_runtime.local.home import Home, make_ray_temp, open_home
from bioengine_runtime.local.hypha_server import server_url, start_hypha
from bioengine_runtime.local.leftovers import stop_leftovers
from bioengine_runtime.local.ports import choose_ports
from bioengine_runtime.local.ray_head import ray_address, ray_environment, start_ray
from bioengine_runtime.local.running import Running
from bioengine_runtime.local.state import State, read_state
from bioengine_runtime.local.store import start_store
from bioengine_runtime.local.tokens import mint_user_token
from bioengine_runtime.local.worker_process import full_service_id, start_worker
from bioengine_runtime.local.workspace import ADMIN_EMAIL, ADMIN_ID, WORKSPACE, ensure_admin_token, ensure_workspace


class Stack:
    """What runs, and how to reach it as somebody."""

    def __init__(self, home: Home, running: Running, ports: dict[str, int]) -> None:
        self.home = home
        self.workspace = WORKSPACE
        self.url = server_url(ports["hypha"])
        self.worker_id = full_service_id()
        self.ray_address = ray_address(ports["ray"])
        self._running = running
        self._ports = ports

    async def start_hypha(self) -> None:
        await start_hypha(self.home, self._running, port=self._ports["hypha"], store_port=self._ports["store"])

    async def stop_hypha(self) -> None:
        await self._running.stop("hypha", grace_seconds=2)

    async def start_ray(self) -> None:
        await start_ray(self.home, self._running, port=self._ports["ray"], temp=make_ray_temp(self.home))

    async def stop_ray(self) -> None:
        await self._running.stop("ray", grace_seconds=5)

    async def start_worker(self, *options: str) -> None:
        """`options`: more of the worker's command line."""
        await start_worker(self.home, self._running, server_url=self.url, ray_address=self.ray_address, options=options)

    def worker_pid(self) -> int:
        (pid,) = (one.pid for one in read_state(self.home.state_file).processes if one.what == "worker")
        return pid

    async def kill_worker(self) -> None:
        psutil.Process(self.worker_pid()).kill()
        await self._running.stop("worker", grace_seconds=5)

    async def stop_worker(self) -> float:
        """Seconds until SIGTERM had ended it."""
        began = time.monotonic()
        await self._running.stop("worker", grace_seconds=20)
        return time.monotonic() - began

    async def run_beside(self, code: str) -> None:
        """Run this in a process of its own that may talk to the Ray, as a worker would."""
        environment = {**os.environ, **ray_environment(self.home), "PYTHONPATH": str(Path.cwd())}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "ignore", "-c", code, env=environment, stdout=asyncio.subprocess.PIPE, stderr=-2
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, output.decode()[-2000:]

    def pids_of(self, name: str) -> set[int]:
        """Serve replicas of this stack by a part of their process title."""
        (ray,) = (one.pid for one in read_state(self.home.state_file).processes if one.what == "ray")
        return {child.pid for child in psutil.Process(ray).children(recursive=True) if _is_replica(child, name)}

    async def settled_pids_of(self, name: str) -> set[int]:
        """The one replica of an app with one, when the ones before it have gone."""

        async def only_one() -> set[int] | None:
            return pids if len(pids := self.pids_of(name)) == 1 else None

        return await eventually(only_one, 90)

    def admin_token(self, lifetime_s: int) -> str:
        """A token with the rights of the worker's own, for so long."""
        return mint_user_token(
            jwt_secret=self.home.secrets.hypha_jwt_secret.read_text(),
            user_id=ADMIN_ID,
            email=ADMIN_EMAIL,
            grants={WORKSPACE: "a"},
            workspace=WORKSPACE,
            lifetime_seconds=lifetime_s,
        )

    def token(self, user: str) -> str:
        """A token of somebody with a workspace of their own and no rights in ours."""
        own = f"ws-user-{user}"
        secret = self.home.secrets.hypha_jwt_secret.read_text()
        return mint_user_token(
            jwt_secret=secret, user_id=user, email=f"{user}@lab.example", grants={own: "a"}, workspace=own
        )

    @asynccontextmanager
    async def connected(self, user: str | None = None) -> AsyncIterator[Any]:
        """As the worker's admin, or as `user`; "anonymous" without any token."""
        config: dict[str, Any] = {"server_url": self.url, "logger": None}
        if user is None:
            config |= {"token": self.home.secrets.admin_token.read_text(), "workspace": WORKSPACE}
        elif user != "anonymous":
            config |= {"token": self.token(user)}
        async with connect_to_server(config) as server:
            yield server

    async def post(self, service: str, method: str, arguments: dict[str, Any], user: str | None = None) -> Any:
        """Call by HTTP. Raises AssertionError with Hypha's answer when it is not a success."""
        headers = {"Authorization": f"Bearer {self.token(user)}"} if user else {}
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            path = f"{self.url}/{WORKSPACE}/services/{service}/{method}"
            response = await http.post(path, json=arguments, headers=headers)
        assert response.is_success, response.text
        return response.json()


@asynccontextmanager
async def a_stack(*, with_worker: bool = True) -> AsyncIterator[Stack]:
    """All of it (or Hypha alone), on a short path of its own; nothing is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="bgw", dir="/tmp", ignore_cleanup_errors=True) as folder:
        home = open_home(Path(folder))
        ensure_admin_token(home)
        ports = dict(choose_ports(("store", "hypha", "ray"), {}))
        running = Running(home, State(ports=ports, ray_temp=str(make_ray_temp(home))))
        stack = Stack(home, running, ports)
        try:
            await start_store(home, running, port=ports["store"])
            await stack.start_hypha()
            await ensure_workspace(stack.url, home)
            if with_worker:
                await stack.start_ray()
                await stack.start_worker()
            yield stack
        finally:
            for what in ("worker", "ray", "hypha", "store"):
                await running.stop(what, grace_seconds=10)
            await stop_leftovers(home)


async def eventually(what: Callable[[], Awaitable[Any]], within_s: float = 60.0) -> Any:
    """The first answer that is true; errors on the way are not yet answers."""
    deadline, last = time.monotonic() + within_s, "nothing"
    while time.monotonic() < deadline:
        try:
            if answer := await what():
                return answer
            last = "no"
        except Exception as error:
            last = f"{type(error).__name__}: {error}"
        await asyncio.sleep(0.3)
    raise AssertionError(f"not within {within_s} s; last: {last[-500:]}")


def _is_replica(process: psutil.Process, name: str) -> bool:
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "ServeReplica:" in title and name in title
