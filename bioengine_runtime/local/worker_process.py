"""The runtime worker: a process of its own, ready when Hypha lists its service."""

import sys
from collections.abc import Sequence

import httpx

from bioengine_runtime.local.home import Home
from bioengine_runtime.local.hypha_server import MESSAGE_LIMIT
from bioengine_runtime.local.process import wait_ready
from bioengine_runtime.local.ray_head import ray_environment
from bioengine_runtime.local.running import Running
from bioengine_runtime.local.workspace import WORKSPACE

CLIENT_ID = "bioengine-local-worker"
SERVICE_ID = "bioengine-worker"


def full_service_id() -> str:
    return f"{WORKSPACE}/{CLIENT_ID}:{SERVICE_ID}"


async def start_worker(
    home: Home, running: Running, *, server_url: str, ray_address: str, options: Sequence[str] = ()
) -> None:
    """The worker, with its service registered. `options`: more of its command line, where the last one counts."""
    child = await running.start(
        "worker",
        [
            *(sys.executable, "-m", "bioengine_runtime.worker"),
            *("--server-url", server_url, "--workspace", WORKSPACE),
            *("--token-file", str(home.secrets.admin_token)),
            *("--client-id", CLIENT_ID, "--service-id", SERVICE_ID),
            *("--ray-address", ray_address, "--mode", "single-machine"),
            # Whoever ends the embedded default ends its Ray; the worker alone is only ever replaced.
            *("--apps-at-exit", "keep"),
            *("--message-rate", str(0.9 * MESSAGE_LIMIT)),
            *("--home", str(home.worker_folder)),
            *("--log-file", str(home.log_file("worker-service"))),
            *options,
        ],
        environment=ray_environment(home),
    )
    headers = {"Authorization": f"Bearer {home.secrets.admin_token.read_text()}"}
    async with httpx.AsyncClient(base_url=server_url, headers=headers, trust_env=False, timeout=5) as http:
        await wait_ready(child, lambda: _is_registered(http), timeout=90)


async def _is_registered(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get(f"/{WORKSPACE}/services/{CLIENT_ID}:{SERVICE_ID}")).status_code == 200
    except httpx.TransportError:
        return False
