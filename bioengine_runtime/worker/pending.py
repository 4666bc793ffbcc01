"""What waits for resources on the Ray cluster: replicas and tasks for which no node has room at the moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray._private.state import state
from ray._private.worker import global_worker
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.core.generated import gcs_pb2

SEVERAL_NODES = "several bundles"
"""Stands where a class would, for a replica that asks for a placement group: Ray tells no name with it."""

Shape = frozenset[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Waiting:
    """So many of the same shape, in Ray's names, memory in bytes. `names`: who they may be."""

    needs: Mapping[str, float]
    count: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pending:
    """Everything that waits. No job server runs beside a worker, so no job ever waits."""

    actors: tuple[Waiting, ...] = ()
    tasks: tuple[Waiting, ...] = ()


NOTHING = Pending()


def pending() -> Pending:
    """Two questions to the GCS, so call it in a thread."""
    asked = get_cluster_resource_state(global_worker.gcs_client)  # pyright: ignore[reportAttributeAccessIssue]
    demand = Counter[Shape]()
    for one in asked.pending_resource_requests:
        demand[_shape(one.request.resources_bundle)] += one.count
    groups = [
        _sum(bundle.resources_bundle for bundle in group.requests) for group in asked.pending_gang_resource_requests
    ]
    table = state._connect_and_get_accessor().get_actor_table(None, "PENDING_CREATION")
    starting = [gcs_pb2.ActorTableData.FromString(raw) for raw in table]  # pyright: ignore[reportAttributeAccessIssue]
    return sort_out(demand, groups, [(one.class_name, _shape(one.required_resources)) for one in starting])


def sort_out(demand: Counter[Shape], groups: Sequence[Shape], starting: Iterable[tuple[str, Shape]]) -> Pending:
    """Ray says how many of which shape wait, and not who. Actors that are about to start and ask for that shape may be
    these, or have their resources already; what is left then are tasks."""
    names: dict[Shape, list[str]] = {}
    for name, shape in starting:
        names.setdefault(shape, []).append(name)
    actors, tasks = list[Waiting](), list[Waiting]()
    for shape, count in sorted(demand.items(), key=_order):
        known = names.get(shape, [])
        if number := min(count, len(known)):
            actors.append(Waiting(dict(shape), number, tuple(sorted(set(known)))))
        if count > number:
            tasks.append(Waiting(dict(shape), count - number))
    actors += [
        Waiting(dict(shape), count, (SEVERAL_NODES,)) for shape, count in sorted(Counter(groups).items(), key=_order)
    ]
    return Pending(tuple(actors), tuple(tasks))


def summary(found: Pending, *, names: bool) -> dict[str, Any]:
    """`pending_resources` of `get_status`; who it is, for admins only."""
    return {
        "actors": [_said(one, names=names) for one in found.actors],
        "jobs": [],
        "tasks": [_said(one, names=names) for one in found.tasks],
        "total": sum(one.count for one in (*found.actors, *found.tasks)),
    }


def _said(one: Waiting, *, names: bool) -> dict[str, Any]:
    said = {"required_resources": dict(one.needs), "count": one.count}
    return {**said, "names": list(one.names)} if names else said


def _shape(resources: Mapping[str, float]) -> Shape:
    return frozenset((name, float(amount)) for name, amount in resources.items())


def _sum(bundles: Iterable[Mapping[str, float]]) -> Shape:
    added = Counter[str]()
    for bundle in bundles:
        added.update(bundle)
    return _shape(added)


def _order(item: tuple[Shape, int]) -> list[tuple[str, float]]:
    return sorted(item[0])
