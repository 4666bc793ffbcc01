"""Start everything the embedded default is made of, lend it, and leave nothing running."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bioengine_runtime.local.home import Home, make_ray_temp, open_home, own_folder
from bioengine_runtime.local.hypha_env import hypha_python
from bioengine_runtime.local.hypha_server import server_url, start_hypha
from bioengine_runtime.local.leftovers import stop_leftovers
from bioengine_runtime.local.lock import held
from bioengine_runtime.local.ports import choose_ports
from bioengine_runtime.local.progress import Progress, announced
from bioengine_runtime.local.ray_head import ray_address, ray_environment, ray_program, start_ray
from bioengine_runtime.local.running import Running
from bioengine_runtime.local.state import State, read_state, write_state
from bioengine_runtime.local.store import start_store
from bioengine_runtime.local.tokens import Permission, mint_user_token
from bioengine_runtime.local.watch import uninterrupted, watched
from bioengine_runtime.local.worker_process import full_service_id, start_worker
from bioengine_runtime.local.workspace import WORKSPACE, ensure_admin_token, ensure_workspace

WORKER_GRACE_SECONDS = 20.0
RAY_GRACE_SECONDS = 20.0
HYPHA_GRACE_SECONDS = 10.0
STORE_GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Embedded:
    """What runs, and where its secrets lie."""

    home: Path
    server_url: str
    workspace: str
    token_file: Path
    worker_service_id: str
    ray_address: str
    ray_auth_token_file: Path
    # To be set before `ray` is imported by whoever connects to `ray_address`.
    ray_environment: Mapping[str, str]
    jwt_secret_file: Path
    seal_key_file: Path
    fingerprint_key_file: Path

    def mint_token(
        self, *, user_id: str, email: str, grants: Mapping[str, Permission], workspace: str = WORKSPACE
    ) -> str:
        """A token of another user of the embedded Hypha."""
        secret = self.jwt_secret_file.read_text()
        return mint_user_token(jwt_secret=secret, user_id=user_id, email=email, grants=grants, workspace=workspace)


@asynccontextmanager
async def embedded(home: Path, *, progress: Progress, with_worker: bool = True) -> AsyncIterator[Embedded]:
    """Start Hypha with its store, Ray and the worker on `home`; stop them all at the end, however it ends.

    Raises HomeBusy when another process holds the home, and LocalError when something does not start. A worker that
    dies later is started again; if anything else dies, the body is cancelled and LocalError raised.
    """
    # An environment that is missing, or of no use, is said before anything is started.
    hypha_python()
    ray_program()
    folder = own_folder(home)
    with held(folder):  # before anything is made in it: of two first starts one alone makes the secrets
        place = open_home(folder)
        ensure_admin_token(place)
        await stop_leftovers(place)
        ports = choose_ports(("store", "hypha", "ray"), read_state(place.state_file).ports)
        ray_temp = make_ray_temp(place)
        running = Running(place, State(ports=ports, ray_temp=str(ray_temp)))
        offer = _offer(place, ports)
        start_runtime = partial(_start_worker, place, running, offer, progress)
        try:
            await _start_servers(place, running, ports, ray_temp, progress)
            if with_worker:
                await start_runtime()
            async with watched(running, start_runtime, progress):
                yield offer
        finally:
            await uninterrupted(_stop(place, running, ports))


def _offer(home: Home, ports: Mapping[str, int]) -> Embedded:
    return Embedded(
        home=home.path,
        server_url=server_url(ports["hypha"]),
        workspace=WORKSPACE,
        token_file=home.secrets.admin_token,
        worker_service_id=full_service_id(),
        ray_address=ray_address(ports["ray"]),
        ray_auth_token_file=home.secrets.ray_auth_token,
        ray_environment=ray_environment(home),
        jwt_secret_file=home.secrets.hypha_jwt_secret,
        seal_key_file=home.seal_key,
        fingerprint_key_file=home.secrets.fingerprint_key,
    )


async def _start_servers(
    home: Home, running: Running, ports: Mapping[str, int], ray_temp: Path, progress: Progress
) -> None:
    """Hypha's side and Ray's side at the same time: they do not know each other."""

    async def hypha_side() -> None:
        async with announced("store", home, progress):
            await start_store(home, running, port=ports["store"])
        async with announced("hypha", home, progress):
            await start_hypha(home, running, port=ports["hypha"], store_port=ports["store"])
            await ensure_workspace(server_url(ports["hypha"]), home)

    async def ray_side() -> None:
        async with announced("ray", home, progress):
            await start_ray(home, running, port=ports["ray"], temp=ray_temp)

    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(hypha_side())
            both.create_task(ray_side())
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _start_worker(home: Home, running: Running, offer: Embedded, progress: Progress) -> None:
    async with announced("worker", home, progress):
        await start_worker(home, running, server_url=offer.server_url, ray_address=offer.ray_address)


async def _stop(home: Home, running: Running, ports: Mapping[str, int]) -> None:
    """In reverse; each within its grace. What escaped from its parent's care is found by the home's marker."""
    try:
        await running.stop("worker", grace_seconds=WORKER_GRACE_SECONDS)
        await asyncio.gather(
            running.stop("ray", grace_seconds=RAY_GRACE_SECONDS),
            running.stop("hypha", grace_seconds=HYPHA_GRACE_SECONDS),
        )
        await running.stop("store", grace_seconds=STORE_GRACE_SECONDS)
    finally:
        await stop_leftovers(home)
        with suppress(OSError):  # what is written there instead names nothing that runs
            write_state(home.state_file, State(ports=ports))
