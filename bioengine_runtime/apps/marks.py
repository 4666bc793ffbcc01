"""What is noted of an app beside its record: which release is good, what was rejected, how far one has come.

Each is one small value in Ray; reading and writing block for about a millisecond.
"""

from __future__ import annotations

from typing import NamedTuple

from bioengine_runtime.apps import store
from bioengine_runtime.apps.judging import Gate, one_line
from bioengine_runtime.apps.record import Replica
from bioengine_runtime.contract.status import Rejection

OF_APP = (store.GOOD, store.REJECTED, store.GATE, store.TRIES)
"""Kinds of which an app has one each, under its id."""


class Good(NamedTuple):
    """The release that was last known to be good, and how long that took from the request, when it is known."""

    release: str
    took_s: float | None = None


def read_good(app_id: str) -> Good | None:
    kept = store.get(store.GOOD, app_id)
    if kept is None:
        return None
    release, _, took_s = kept.decode().partition(" ")
    return Good(release, float(took_s) if took_s else None)


def keep_good(app_id: str, good: Good) -> None:
    text = good.release if good.took_s is None else f"{good.release} {good.took_s:.3f}"
    store.put(store.GOOD, app_id, text.encode())


def read_rejection(app_id: str) -> Rejection | None:
    """What was tried last and is not good."""
    kept = store.get(store.REJECTED, app_id)
    return Rejection.model_validate_json(kept) if kept else None


def keep_rejection(app_id: str, rejection: Rejection) -> None:
    store.put(store.REJECTED, app_id, rejection.model_dump_json().encode())


def read_gate(app_id: str) -> Gate | None:
    """The gate that was opened last, of whichever release."""
    kept = store.get(store.GATE, app_id)
    return Gate.model_validate_json(kept) if kept else None


def keep_gate(app_id: str, gate: Gate) -> None:
    store.put(store.GATE, app_id, gate.model_dump_json().encode())


def read_fault(app_id: str, replica: Replica) -> str:
    """What a replica itself says is wrong with it, in one line; empty when nothing is."""
    name = store.replica_name(app_id, replica.deployment, replica.replica_id)
    return one_line((store.get(store.FAULT, name) or b"").decode())


def forget(app_id: str, *kinds: str) -> None:
    for kind in kinds:
        store.delete(kind, app_id)
