"""The Ray head as the worker needs it: whether one answers, whether it is still the same, and what to say meanwhile.

Ray's own library ends a process that has lost its head (after 60 s, at whatever call), and until then every call may
block; and with the head went all that our caches speak of. So a worker does not try to mend its connection: it starts
itself anew, as the same process, and a worker that finds no head waits for one and says so (waiting.py).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import grpc
import ray
from ray._private import auto_init_hook
from ray._private.gcs_utils import create_gcs_channel
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

messages: Any = gcs_service_pb2  # made while it is imported, so nothing about it is known before
log = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 5.0
LOOK_EVERY_S = 2.0
LOST_AFTER_S = 15.0
"""A head may be restarted, or busy; well below the 60 s after which Ray ends the process."""


class RayAway(RuntimeError):
    """No Ray head answers at the worker's address, so its apps can neither be seen nor changed."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            f"no Ray head answers at {address} ({reason}), so apps can neither be seen nor changed; start it there: "
            "the worker waits and connects by itself"
        )
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Head:
    """One life of a Ray head. `started_at`: seconds since the epoch, None when it does not say."""

    cluster_id: str
    started_at: float | None


def find_head(address: str) -> Head:
    """The head at `host:port`. Raises RayAway. Needs no Ray in this process, and cannot hang."""
    try:
        with closing(create_gcs_channel(address)) as channel:
            gcs = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
            identity = gcs.GetClusterId(messages.GetClusterIdRequest(), timeout=PROBE_TIMEOUT_S)
            known = gcs.GetAllNodeInfo(messages.GetAllNodeInfoRequest(), timeout=PROBE_TIMEOUT_S)
    except grpc.RpcError as error:
        code = error.code() if isinstance(error, grpc.Call) else None
        raise RayAway(address, code.name if code else type(error).__name__) from None
    starts = [node.start_time_ms / 1000 for node in known.node_info_list if node.is_head_node]
    return Head(identity.cluster_id.hex(), max(starts, default=None))


def never_start_ray(address: str) -> None:
    """Else Ray would start a cluster of its own for the first call that it gets while it is not connected."""
    auto_init_hook.enable_auto_connect = False
    os.environ["RAY_ADDRESS"] = address


def join_ray(address: str) -> None:
    """Become a driver of the cluster, which somebody else started and will stop. Raises when it does not take us."""
    ray.init(
        address=address,
        namespace="bioengine",
        log_to_driver=False,
        logging_level=logging.WARNING,
        configure_logging=False,
    )


class HeadWatch:
    """Looks from a thread of its own, because the event loop may be stuck in a question to the dead head."""

    def __init__(
        self,
        address: str,
        known: Head,
        lost: Callable[[str], None],
        *,
        find: Callable[[str], Head] = find_head,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._address = address
        self._known = known
        self._lost = lost
        self._find = find
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="ray-head-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """From now on no loss is told, not even one that is just being found out."""
        self._over.set()

    def _look(self) -> None:
        silent_since: float | None = None
        while not self._over.wait(self._every_s):
            lost = ""
            try:
                another = self._find(self._address).cluster_id != self._known.cluster_id
            except RayAway as away:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > LOST_AFTER_S:
                    lost = away.reason
            except Exception as error:  # a fault in looking is no news of the head
                log.warning("event=ray_look_failed error=%s", type(error).__name__)
            else:
                silent_since = None
                lost = "another head is there" if another else ""
            if lost and not self._over.is_set():
                self._lost(lost)
                return


def start_anew() -> NoReturn:
    """This very process from its beginning: same id, same arguments, nothing left of the lost head."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    for descriptor in [int(entry.name) for entry in Path("/dev/fd").iterdir()]:
        if descriptor > 2:
            with suppress(OSError):  # closed meanwhile, as the one is that listed them
                os.set_inheritable(descriptor, False)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
