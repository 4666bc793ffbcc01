"""`bioengine cluster`: the worker and what its cluster has."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import typer

from bioengine_runtime.command.place import DEFAULT_SERVER, Json, Place, ServerUrl, Token, Worker, place_of
from bioengine_runtime.command.show import cells, clean, table_of
from bioengine_runtime.command.words import age, memory, number

app = typer.Typer(help="The cluster of a worker.", no_args_is_help=True)


@app.callback()
def _cluster() -> None:
    """The cluster of a worker."""


@app.command()
def status(
    ctx: typer.Context,
    as_json: Json = False,
    worker: Worker = None,
    token: Token = None,
    server_url: ServerUrl = DEFAULT_SERVER,
) -> None:
    """Show the worker, and what each node has and uses.

    \b
    Examples:
      bioengine cluster status
      bioengine cluster status --json | jq .ray_cluster.cluster
    """
    place = place_of(ctx, server_url, token, worker, json=as_json)

    async def work() -> None:
        async with await place.the_worker() as service:
            answer = await service.ask("get_status")
        if as_json:
            place.screen.document(answer)
        else:
            _show(place, answer)

    place.run(work)


def _show(place: Place, answer: Mapping[str, Any]) -> None:
    ray = answer.get("ray_cluster") or {}
    total, nodes = ray.get("cluster") or {}, ray.get("nodes") or {}
    started = answer.get("service_start_time")
    ready = "ready" if answer.get("is_ready") else "not ready yet"
    facts = [
        ("Worker", f"{place.worker} ({ready}, up {age(started)})"),
        ("Version", f"BioEngine {answer.get('bioengine_version')}, Ray {answer.get('ray_version')}"),
        ("Mode", answer.get("worker_mode")),
        ("Workspace", answer.get("workspace")),
        ("Ray head", _head(ray)),
        ("CPU", _share(total, "cpu")),
        ("GPU", _share(total, "gpu")),
        ("Waiting", _pending(total.get("pending_resources"))),
        ("Token", _token(answer.get("token_expires_at"))),
        ("Admins", ", ".join(str(one) for one in answer.get("admin_users") or [] if one)),
    ]
    for name, value in facts:
        if value:
            place.screen.result(f"{name + ':':11}{clean(str(value))}")
    if nodes:
        place.screen.result("")
        place.screen.result(_nodes_table(nodes))
    place.screen.next(place.command("apps", "status"))


def _nodes_table(nodes: Mapping[str, Mapping[str, Any]]) -> Any:
    table = table_of("NODE", "ADDRESS", "CPU", "GPU", "GPU MEMORY", "MEMORY", "ACCELERATOR", "SLURM JOB")
    for node_id, node in sorted(nodes.items(), key=lambda item: (not item[1].get("head"), item[0])):
        name = f"{node_id[:12]} (head)" if node.get("head") else node_id[:12]
        table.add_row(
            *cells(
                name,
                node.get("node_ip"),
                _share(node, "cpu"),
                _share(node, "gpu"),
                _share(node, "gpu_memory", lambda size: memory(size) if size else "-"),
                _share(node, "memory", memory),
                node.get("accelerator_type"),
                node.get("slurm_job_id"),
            )
        )
    return table


def _share(holder: Mapping[str, Any], name: str, shown: Any = number) -> str:
    """`1.5 of 8`; a dash when the total is unknown ("NA", None) or not told."""
    total = shown(holder.get(f"total_{name}"))
    return f"{shown(holder.get(f'used_{name}'))} of {total}" if total != "-" else "-"


def _head(ray: Mapping[str, Any]) -> str:
    reachable = "" if ray.get("reachable", True) else " (not reachable)"
    return f"{ray.get('head_address')}{reachable}" if ray.get("head_address") else reachable.strip()


def _pending(pending: Mapping[str, Any] | None) -> str:
    return f"{pending.get('total')} actors, jobs and tasks" if pending and pending.get("total") else ""


def _token(expires_at: float | None) -> str:
    if expires_at is None:
        return ""
    left = expires_at - time.time()
    return f"expires in {age(time.time() - left)}" if left > 0 else "expired"
