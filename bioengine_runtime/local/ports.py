"""Loopback ports that stay the same from one start to the next, so that links and clients keep working."""

import random
import socket
from collections.abc import Iterable, Mapping
from contextlib import ExitStack

LOOPBACK = "127.0.0.1"
# Below the range from which kernels take ports for outgoing connections: what is free today is free tomorrow.
CANDIDATES = range(20000, 30000)


def choose_ports(names: Iterable[str], kept: Mapping[str, int]) -> dict[str, int]:
    """A free port for each name: the kept one if nobody took it meanwhile, else a new one."""
    with ExitStack() as bound:
        return {name: _choose(kept.get(name), bound) for name in names}


def _choose(kept: int | None, bound: ExitStack) -> int:
    candidates = random.sample(CANDIDATES, 200)
    for port in candidates if kept is None else [kept, *candidates]:
        listener = socket.socket()
        # A port whose last connections still linger is free for a listener; one that is listened on is not.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            listener.close()
            continue
        bound.enter_context(listener)  # held until all are chosen, so that no two names get the same
        return port
    raise OSError(f"no free port on {LOOPBACK} between {CANDIDATES.start} and {CANDIDATES.stop}")
