"""Lines that replicas wrote, read from the files of the node they ran on; works for replicas that are gone, too."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from bioengine_runtime.apps.record import DeploymentState, Replica, Running
from bioengine_runtime.on_node import NodeFailed, on_node

READ_TIMEOUT_S = 20.0
MOST_BYTES = 1 << 20
ALL = -1

Lines = dict[str, list[str]]


async def logs_of(apps: Collection[Running], tail: int, previous: int = 0) -> dict[str, dict[str, dict[str, Lines]]]:
    """app → deployment → replica id → {stdout, stderr}, with one task per node however many apps there are.

    tail ALL is everything, previous ALL every replica before."""
    wanted = {
        (app.app_id, one.name): [*one.replicas, *_before(one, previous)] for app in apps for one in app.deployments
    }
    found = await read_logs([replica for several in wanted.values() for replica in several], tail)
    read: dict[str, dict[str, dict[str, Lines]]] = {app.app_id: {} for app in apps}
    for (app_id, name), several in wanted.items():
        read[app_id][name] = {one.replica_id: found[one.replica_id] for one in several if one.replica_id in found}
    return read


def _before(deployment: DeploymentState, previous: int) -> Sequence[Replica]:
    gone = sorted(deployment.dead, key=lambda replica: replica.started_at or 0.0, reverse=True)
    return gone if previous == ALL else gone[:previous]


async def read_logs(replicas: Iterable[Replica], tail: int) -> dict[str, Lines]:
    """replica id → {stdout, stderr}; tail ALL reads everything up to 1 MB. A node that is gone has no lines."""
    by_node: dict[str, dict[str, str]] = defaultdict(dict)
    for replica in replicas:
        if replica.node_id and replica.worker_id:
            by_node[replica.node_id][replica.replica_id] = replica.worker_id
    found = await asyncio.gather(*(_on_node(node, workers, tail) for node, workers in by_node.items()))
    return {replica: lines for one in found for replica, lines in one.items()}


async def _on_node(node_id: str, workers: dict[str, str], tail: int) -> dict[str, Lines]:
    try:
        return await on_node(node_id, read_here, workers, tail, within_s=READ_TIMEOUT_S)
    except NodeFailed:
        return {}


def read_here(workers: dict[str, str], tail: int) -> dict[str, Lines]:
    """The part that runs on the node."""
    from ray._private.worker import _global_node

    folder = Path(_global_node.get_logs_dir_path()) if _global_node else None
    return {
        replica: {
            "stdout": _tail(folder, f"worker-{worker_id}-*.out", tail),
            "stderr": _tail(folder, f"worker-{worker_id}-*.err", tail),
        }
        for replica, worker_id in workers.items()
    }


def _tail(folder: Path | None, pattern: str, tail: int) -> list[str]:
    lines: list[str] = []
    for path in sorted(folder.glob(pattern)) if folder else ():
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - MOST_BYTES))
            lines += file.read().decode(errors="replace").splitlines()
    lines = [line for line in lines if not line.startswith(":")]  # Ray's own marks: ":actor_name:…", ":job_id:…"
    return lines if tail == ALL else lines[-tail:] if tail else []
