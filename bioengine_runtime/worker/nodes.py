"""The Ray cluster as it is now: nodes, what they have and what is free, and the summary shown to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray._private.state import available_resources_per_node

from bioengine_runtime.contract.status import NodeState
from bioengine_runtime.worker import pending

SHOWN = ("CPU", "GPU", "memory", "object_store_memory")
ACCELERATOR = "accelerator_type:"
SLURM_JOB = "slurm_job_id:"
MARKS = (ACCELERATOR, SLURM_JOB)
"""Resources whose name says something; how much there is of them says nothing."""
HEAD = "node:__internal_head__"
UNKNOWN = "NA"
"""What the contract says for GPU memory that nobody measured: Ray's dashboard would, and need not run."""


def nodes() -> list[NodeState]:
    """Every node that is alive. Two questions to the GCS, so call it in a thread."""
    free = available_resources_per_node()
    return [_node(node, free.get(node["NodeID"], {})) for node in ray.nodes() if node["Alive"]]


def _node(node: Mapping[str, Any], free: Mapping[str, float]) -> NodeState:
    total = node["Resources"]
    shown = [name for name in total if name in SHOWN or name.startswith(MARKS)]
    return NodeState(
        node_id=node["NodeID"],
        address=node["NodeManagerAddress"],
        head=HEAD in total,
        total={name: float(total[name]) for name in shown},
        free={name: float(free.get(name, 0.0)) for name in shown},
    )


def cluster_summary(found: Sequence[NodeState], waiting: pending.Pending, *, insider: bool) -> dict[str, Any]:
    """`ray_cluster.cluster` and `.nodes` of `get_status`; node addresses and who waits for admins only."""
    return {
        "cluster": {
            "total_cpu": _sum(found, "CPU"),
            "used_cpu": _used(found, "CPU"),
            "total_gpu": _sum(found, "GPU"),
            "used_gpu": _used(found, "GPU"),
            "pending_resources": pending.summary(waiting, names=insider),
        },
        "nodes": {node.node_id: _summary(node, addresses=insider) for node in found},
    }


def _summary(node: NodeState, *, addresses: bool) -> dict[str, Any]:
    # A node without a GPU has none of its memory, which is known; older clients can count with nothing but numbers.
    gpu_memory = UNKNOWN if node.total.get("GPU") else 0
    return {
        "node_ip": node.address if addresses else None,
        "head": node.head,
        "total_cpu": _sum([node], "CPU"),
        "used_cpu": _used([node], "CPU"),
        "total_gpu": _sum([node], "GPU"),
        "used_gpu": _used([node], "GPU"),
        "total_gpu_memory": gpu_memory,
        "used_gpu_memory": gpu_memory,
        "total_memory": _sum([node], "memory"),
        "used_memory": _used([node], "memory"),
        "total_object_store_memory": _sum([node], "object_store_memory"),
        "used_object_store_memory": _used([node], "object_store_memory"),
        "accelerator_type": _mark(node, ACCELERATOR),
        "slurm_job_id": _mark(node, SLURM_JOB),
    }


def _mark(node: NodeState, prefix: str) -> str | None:
    """What a resource says by its name, such as `accelerator_type:A100`."""
    return next((name.removeprefix(prefix) for name in node.total if name.startswith(prefix)), None)


def _sum(found: Sequence[NodeState], name: str) -> float:
    return sum(node.total.get(name, 0.0) for node in found)


def _used(found: Sequence[NodeState], name: str) -> float:
    return sum(node.total.get(name, 0.0) - node.free.get(name, 0.0) for node in found)
