"""Run a function on a node of the cluster and wait for what it answers.

Its task takes none of the node's CPUs, so that a full node answers too. Law: what nobody waits for any more is ended
there.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

T = TypeVar("T")


class NodeFailed(RuntimeError):
    """There is no answer; says of which node, and why."""


async def alive_nodes() -> list[dict[str, Any]]:
    """Every node that can be asked, as Ray describes it."""
    return [node for node in await asyncio.to_thread(ray.nodes) if node["Alive"]]


async def on_node(
    node_id: str | None, work: Callable[..., T], *given: Any, within_s: float | None, retries: int = 0
) -> T:
    """What `work(*given)` answers there; None: on any node. Raises NodeFailed, also when it takes longer than that."""
    where = NodeAffinitySchedulingStrategy(node_id, soft=False) if node_id else "DEFAULT"
    reference = _task(work).options(scheduling_strategy=where, max_retries=retries).remote(*given)
    try:
        async with asyncio.timeout(within_s):
            return await reference
    except BaseException as error:
        ray.cancel(reference, force=True)
        if isinstance(error, Exception):
            raise NodeFailed(_said(node_id, error)) from error
        raise


def _said(node_id: str | None, error: Exception) -> str:
    node = f"node {node_id[:8]}" if node_id else "a node"
    if isinstance(error, RayTaskError):  # it is what the function raised as well, so it comes first
        return f"{node}: {type(error.cause).__name__}: {error.cause}"
    return f"{node} did not answer: {type(error).__name__}"


@functools.cache
def _task(work: Callable[..., Any]) -> Any:
    return ray.remote(num_cpus=0)(work)
