"""Whether what an app asks for can be had: ever, on the nodes there are, and now, beside what runs. Pure.

Law: what has a place is never called impossible; so only what can be proven is, and a doubt is at most a warning.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bioengine_runtime.apps.requirements import Wanted, amount, lacks, resources

Resources = Mapping[str, float]
SHOWN_NODES = 5
TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Asked:
    """One class: `parts` of one replica, each of which needs one node, and how many replicas there are at least."""

    name: str
    parts: tuple[Resources, ...]
    number: int
    most_per_node: int | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """What it has, and what of it is free, in Ray's names; memory in bytes."""

    node_id: str
    address: str
    total: Resources
    free: Resources


@dataclass(frozen=True, slots=True)
class Present:
    """One replica of the app that runs now."""

    deployment: str
    node_id: str
    takes: Resources


def asked_by(one: Wanted) -> Asked:
    """What Serve will ask Ray for."""
    options = one.options
    bundles = options.get("placement_group_bundles")
    if not bundles:
        parts = (resources(one.actor_options),)
    elif options.get("placement_group_strategy") == "STRICT_PACK":
        parts = (_sum(bundles),)
    else:
        parts = tuple(_sum([bundle]) for bundle in bundles)
    scaling = options.get("autoscaling_config") or {}
    number = scaling.get("min_replicas", 1) if scaling else options.get("num_replicas") or 1
    return Asked(one.name, parts, int(number), options.get("max_replicas_per_node"))


def impossible(asked: Sequence[Asked], nodes: Sequence[Node]) -> str:
    """Why these nodes could not hold it even if nothing else ran; empty when nothing speaks against it."""
    for one in asked:
        for part in one.parts:
            if not any(_fits(part, node.total) for node in nodes):
                return f"{one.name} fits on no node: {_shown([_short(node, part, node.total) for node in nodes])}"
    for one in asked:
        room = {node.node_id: _times(one, node) for node in nodes}
        if sum(room.values()) < one.number:
            said = _shown([f"{_name(node)} {room[node.node_id]:g}" for node in nodes])
            return f"{one.number} replicas of {one.name} do not fit, at {_parts(one)} each; room for them: {said}"
    needed = _sum([part for one in asked for part in one.parts * one.number])
    if short := lacks(needed, _sum([node.total for node in nodes])):
        return f"{', '.join(f'{one.number} × {one.name}' for one in asked)}: all nodes together need {short}"
    return ""


def crowded(
    asked: Sequence[Asked], nodes: Sequence[Node], present: Sequence[Present], *, keeps: bool, surge: bool
) -> str:
    """What finds no room at the moment; empty when all of it does.

    keeps: replicas that run stay, only further ones are new. surge: the new ones come beside the old ones; without,
    each takes the place of an old one, on the node where that runs."""
    running = Counter(one.deployment for one in present)
    if keeps:
        new = {one.name: max(one.number - running[one.name], 0) for one in asked}
    else:
        new = {one.name: one.number for one in asked}
    free = {node.node_id: dict(node.free) for node in nodes}
    beside = _unplaced(asked, new, nodes, free)
    if not beside:
        return ""
    if keeps or not present:
        return f"no room at the moment for {beside}"
    for one in present:
        room = free.get(one.node_id, {})
        for name, taken in one.takes.items():
            room[name] = room.get(name, 0.0) + taken
    instead = _unplaced(asked, new, nodes, free)
    if not surge:
        return instead and f"no room at the moment for {instead}"
    way_out = "" if instead else "; `rollout: {surge: false}` replaces the old version instead"
    return f"no room at the moment to bring up {beside} beside the version that runs{way_out}"


def _unplaced(
    asked: Sequence[Asked], new: Mapping[str, int], nodes: Sequence[Node], free: Mapping[str, Mapping[str, float]]
) -> str:
    """Put the largest first, each where least stays free; say what is left over."""
    room = {node_id: dict(left) for node_id, left in free.items()}
    waiting = [(one.name, part) for one in asked for part in one.parts * new[one.name]]
    left_over: Counter[str] = Counter()
    why: dict[str, str] = {}
    for name, part in sorted(waiting, key=lambda one: -_share(one[1], nodes)):
        places = [node_id for node_id, left in room.items() if _fits(part, left)]
        if not places:
            left_over[name] += 1
            why.setdefault(name, _shown([_short(node, part, room[node.node_id]) for node in nodes]))
            continue
        best = min(places, key=lambda node_id: sum(room[node_id].get(key, 0.0) for key in ("CPU", "GPU")))
        for key, needed in part.items():
            room[best][key] -= needed
    return "; ".join(f"{count} of {new[name]} {name} ({why[name]})" for name, count in left_over.items())


def _times(one: Asked, node: Node) -> float:
    """Replicas of this class that the node could hold; the parts of one that needs several nodes are not counted."""
    part = one.parts[0] if len(one.parts) == 1 else {}
    room = [math.floor(node.total.get(name, 0.0) / needed * (1 + TINY) + TINY) for name, needed in part.items()]
    return min([*room, math.inf if one.most_per_node is None else one.most_per_node])


def _fits(part: Resources, room: Resources) -> bool:
    return not lacks(part, room)


def _share(part: Resources, nodes: Sequence[Node]) -> float:
    """The largest share of the largest node that it takes."""
    largest = {name: max((node.total.get(name, 0.0) for node in nodes), default=0.0) for name in part}
    return max((needed / largest[name] if largest[name] else math.inf for name, needed in part.items()), default=0.0)


def _sum(several: Sequence[Resources]) -> dict[str, float]:
    added: dict[str, float] = {}
    for one in several:
        for name, value in one.items():
            added[name] = added.get(name, 0.0) + value
    return {name: value for name, value in added.items() if value}


def _short(node: Node, part: Resources, room: Resources) -> str:
    short = lacks(part, room)
    return f"{_name(node)}: needs {short}" if short else _name(node)


def _name(node: Node) -> str:
    return f"node {node.node_id[:8]} ({node.address})"


def _parts(one: Asked) -> str:
    return " and ".join(amount(name, needed) for part in one.parts for name, needed in part.items()) or "nothing"


def _shown(said: Sequence[str]) -> str:
    more = len(said) - SHOWN_NODES
    return "; ".join([*said[:SHOWN_NODES], *([f"and {more} more"] if more > 0 else [])]) or "there is no node"
