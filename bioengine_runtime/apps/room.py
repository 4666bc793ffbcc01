"""The cluster as `fitting` sees it: its nodes with every resource, custom ones too, and what an app takes of them."""

from __future__ import annotations

import ray
from ray._private.state import available_resources_per_node

from bioengine_runtime.apps.fitting import Node, Present
from bioengine_runtime.apps.record import Running


def nodes_now() -> list[Node]:
    """Those that are alive. Two questions to the GCS, so call it in a thread."""
    free = available_resources_per_node()
    return [
        Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"], free.get(node["NodeID"], {}))
        for node in ray.nodes()
        if node["Alive"]
    ]


def present_of(running: Running) -> list[Present]:
    """Its replicas that hold something, where they really are."""
    return [
        Present(deployment.name, replica.node_id, deployment.takes)
        for deployment in running.deployments
        for replica in deployment.replicas
        if replica.node_id
    ]
