"""Our own shelf in Ray's key-value store: small things that must outlive every process but the cluster's head.

Ray's packages (`py_modules`, `working_dir`) are counted by reference and vanish between two replicas; these stay until
we take them away. Calls block for about a millisecond: from an event loop, use them in a thread.
"""

from __future__ import annotations

import time
from typing import Any

from ray.experimental import internal_kv

NAMESPACE = b"bioengine-apps"

CODE = "code"
DESCRIBED = "described"
BLUEPRINT = "blueprint"
REPLICA = "replica"
GOOD = "good"
REJECTED = "rejected"
GATE = "gate"
TRIES = "tries"
FAULT = "fault"
KINDS = (CODE, DESCRIBED, BLUEPRINT, REPLICA, GOOD, REJECTED, GATE, TRIES, FAULT)

_touched: dict[tuple[str, str], float] = {}


def put(kind: str, name: str, value: bytes) -> None:
    """Store under kind/name, over what is there."""
    _touched[kind, name] = time.monotonic()
    internal_kv._internal_kv_put(f"{kind}/{name}".encode(), value, overwrite=True, namespace=NAMESPACE)


def get(kind: str, name: str) -> bytes | None:
    """What is stored, None when there is nothing."""
    return internal_kv._internal_kv_get(f"{kind}/{name}".encode(), namespace=NAMESPACE)


def delete(kind: str, name: str) -> None:
    """Take away; nothing there is fine."""
    _touched.pop((kind, name), None)
    internal_kv._internal_kv_del(f"{kind}/{name}".encode(), namespace=NAMESPACE)


def names(kind: str, prefix: str = "") -> list[str]:
    """Names stored under a kind."""
    start = f"{kind}/"
    keys: Any = internal_kv._internal_kv_list(f"{start}{prefix}".encode(), namespace=NAMESPACE)
    return [key.decode().removeprefix(start) for key in keys]


def last_put(kind: str, name: str) -> float:
    """When this process stored it last, on the monotonic clock; long ago if it never did."""
    return _touched.get((kind, name), float("-inf"))


def replica_name(app_id: str, deployment: str, replica_id: str) -> str:
    """Under which name there is something of one replica."""
    return f"{app_id}/{deployment}/{replica_id}"
