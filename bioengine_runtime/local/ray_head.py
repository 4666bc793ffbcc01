"""The Ray head: one node, on loopback only, closed by a token, and never ended by `ray stop`."""

import sys
from pathlib import Path

from bioengine_runtime.local.errors import LocalError
from bioengine_runtime.local.home import Home
from bioengine_runtime.local.ports import LOOPBACK
from bioengine_runtime.local.process import wait_ready
from bioengine_runtime.local.running import Running

HOOK = "bioengine_runtime.local.ray_hook.without_client_server"
READY_SECONDS = 90
STOP_SECONDS = 10


def ray_environment(home: Home) -> dict[str, str]:
    """What every process needs that talks to this Ray, set before `ray` is imported."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home.secrets.ray_auth_token),
        # Ray turns 127.0.0.1 into the machine's outward address and listens everywhere, except where it runs as on
        # a Mac: there it stays on loopback.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def ray_program(python: str = sys.executable) -> Path:
    """The `ray` command beside `python`. Raises LocalError where Ray would never get a worker process to run."""
    found = Path(python).parent / "ray"
    if any(letter.isspace() for letter in str(found)):
        hint = "Ray takes the commands of its processes apart at spaces: install this into a folder without any."
        raise LocalError(f"{found.parent}: a path with a space in it", hint)
    return found


async def start_ray(home: Home, running: Running, *, port: int, temp: Path) -> None:
    """The head, with its GCS on `port` and its session under `temp`. Raises LocalError when it does not start."""
    try:
        await _start_once(home, running, port=port, temp=temp)
    except LocalError:
        # Ray gives a node 30 seconds to register and has no setting for it; on a busy machine that can be too short.
        await running.stop("ray", grace_seconds=STOP_SECONDS)
        _said_so(temp).unlink(missing_ok=True)  # it may have died right after saying that it had started
        await _start_once(home, running, port=port, temp=temp)


async def _start_once(home: Home, running: Running, *, port: int, temp: Path) -> None:
    child = await running.start(
        "ray",
        [
            str(ray_program()),
            *("start", "--head", "--block", "--port", str(port)),
            *("--temp-dir", str(temp)),
            # Ports left to the kernel do not clash with another Ray on this machine.
            *("--min-worker-port", "0", "--max-worker-port", "0", "--dashboard-agent-listen-port", "0"),
            *("--include-dashboard", "false", "--include-log-monitor", "false", "--no-monitor"),
            "--disable-usage-stats",
        ],
        environment={
            **ray_environment(home),
            "RAY_START_HOOK": HOOK,
            # On SIGTERM Ray waits up to 30 s for replicas to move to another node; there is none.
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        },
    )
    await wait_ready(child, lambda: _has_started(temp), timeout=READY_SECONDS)


def ray_address(port: int) -> str:
    return f"{LOOPBACK}:{port}"


async def _has_started(temp: Path) -> bool:
    return _said_so(temp).exists()


def _said_so(temp: Path) -> Path:
    """`ray start` writes this file as its last act, when every process of the node is up."""
    return temp / "ray_current_cluster"
