"""What callers of an app will notice of a step: a prediction in their terms, made from what is known and no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.base import ENTIRE
from bioengine_runtime.contract.cluster import Compute, Slurm
from bioengine_runtime.contract.code import LARGEST, ClassFacts, requirements, resources, runtime_env
from bioengine_runtime.contract.status import NodeState
from reconciler.planning.desired import DesiredApp
from reconciler.planning.diff import Difference, Kind
from reconciler.planning.live import LiveState
from reconciler.planning.shown import count, listed
from reconciler.planning.steps import Effect, Impact

GIB = 2**30
SERVING = frozenset({"RUNNING", "UNHEALTHY", "DEPLOYING"})
NEW_CODE = frozenset({"artifact_id", "version"})
ENVIRONMENT_FIELDS = NEW_CODE | {"disable_gpu"}
"""Fields of AppSpec that decide which environment is built, and on which nodes."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one replica of one class asks for, and how many replicas there are to be at least."""

    class_name: str
    each: Mapping[str, float]
    replicas: int


@dataclass(frozen=True, slots=True)
class Room:
    """What is free, less what earlier steps of the same plan take. `nodes` None: not known, or made when needed; then
    `slurm` says what one of them has at most, and `workers` how many there are now."""

    nodes: tuple[NodeState, ...] | None
    taken: Mapping[str, float]
    slurm: Slurm | None = None
    workers: tuple[NodeState, ...] = ()

    @property
    def grows(self) -> bool:
        """Whether a SLURM worker may still start; that takes a while."""
        return self.slurm is not None and len(self.workers) < self.slurm.workers.max

    def without(self, needs: tuple[Need, ...] | None) -> Room:
        return replace(self, taken=_sum(self.taken, *(_times(need) for need in needs))) if needs else self


def room_in(live: LiveState, compute: Compute) -> Room:
    """SLURM brings nodes when they are needed, so there only what no node could ever hold does not fit."""
    worker = live.worker
    if worker is None or not worker.nodes:
        return Room(None, {}, compute if isinstance(compute, Slurm) else None)
    nodes = tuple(sorted(worker.nodes, key=_node_name))
    if worker.mode != "slurm":
        return Room(nodes, {})
    return Room(None, {}, compute if isinstance(compute, Slurm) else None, tuple(n for n in nodes if not n.head))


def _node_name(node: NodeState) -> str:
    return node.address or node.node_id


def needs_of(app: DesiredApp) -> tuple[Need, ...] | None:
    """None when the code is not in this repository, or computes its options, or asks for what cannot be: then only
    running it would tell."""
    if app.code is None:
        return None
    needs = tuple(_need(facts, app.spec) for facts in app.code.classes)
    return None if None in needs else tuple(need for need in needs if need)


def _need(facts: ClassFacts, spec: AppSpec) -> Need | None:
    asked = resources(facts)
    gpus, replicas = 0.0 if spec.disable_gpu else asked.num_gpus, _replicas(facts, spec)
    if asked.num_cpus is None or gpus is None or asked.memory is None or not 0 <= replicas <= LARGEST:
        return None
    each = {"CPU": asked.num_cpus, "GPU": gpus, "memory": asked.memory}
    return Need(facts.name, {name: amount for name, amount in each.items() if amount}, replicas)


def _replicas(facts: ClassFacts, spec: AppSpec) -> int:
    for table in (spec.autoscaling, spec.replicas):
        for key in (facts.name, ENTIRE):
            if key in table:
                found = table[key]
                return found if isinstance(found, int) else found.min_replicas
    said = facts.options.get("num_replicas")
    return said if isinstance(said, int) else 1


def lacking(room: Room, needs: tuple[Need, ...] | None) -> str:
    """Why these replicas certainly cannot all be placed; "" when they may. Never a guess: a replica that fits on no
    node at all, or more in sum than the whole cluster has free."""
    if needs is None:
        return ""
    if room.nodes is None:
        return next((said for need in needs if room.slurm and (said := _too_big(need, room.slurm, room))), "")
    for need in needs:
        if need.replicas and not any(_fits(need.each, node.free) for node in room.nodes):
            return f"{need.class_name} needs {_amounts(need.each)}: " + listed(list(_short(need, room.nodes)))
    total = _sum(*(_times(need) for need in needs))
    free = _sum(*(node.free for node in room.nodes))
    left = {name: free.get(name, 0.0) - room.taken.get(name, 0.0) for name in total}
    if _fits(total, left):
        return ""
    others = ", counting what this plan starts before" if room.taken else ""
    return f"all its replicas together need {_amounts(total)}; free is {_amounts(left, total)}{others}"


def _too_big(need: Need, slurm: Slurm, room: Room) -> str:
    """Memory is left out: how much of a job's memory Ray gives away is known on the node only."""
    each = {name: amount for name, amount in need.each.items() if name != "memory"}
    shape = _shape(slurm)
    if not need.replicas or _fits(each, shape) or any(_fits(each, node.total) for node in room.workers):
        return ""
    return f"{need.class_name} needs {_amounts(each)}; a SLURM worker has {_amounts(shape)}"


def _shape(slurm: Slurm) -> dict[str, float]:
    return {"CPU": float(slurm.cpus), "GPU": float(slurm.gpus)}


def where(room: Room, needs: tuple[Need, ...] | None) -> str:
    """What each replica needs, and a node that has it: `Main 1 CPU, 1 GPU: gn07 (8 CPU, 1 GPU free)`."""
    if not needs:
        return ""
    if room.nodes is not None:
        return "; ".join(_place(need, room.nodes) for need in needs if need.replicas)
    if room.slurm is None:
        return ""
    number, most = len(room.workers), room.slurm.workers.max
    headroom = f"{max(most - number, 0)} of {count(most, 'SLURM worker')} may still start"
    return "; ".join([*(_asked(need) for need in needs if need.replicas), headroom])


def _place(need: Need, nodes: tuple[NodeState, ...]) -> str:
    fitting = [node for node in nodes if _fits(need.each, node.free)]
    if not fitting:
        return f"{_asked(need)}: no node has it free"
    others = f" and {len(fitting) - 1} more" if len(fitting) > 1 else ""
    free = {name: fitting[0].free.get(name, 0.0) for name in need.each}
    return f"{_asked(need)}: {_node_name(fitting[0])} ({_amounts(free)} free){others}" if free else _asked(need)


def _asked(need: Need) -> str:
    times = f" {need.replicas} ×" if need.replicas > 1 else ""
    return f"{need.class_name}{times} {_amounts(need.each) or 'nothing'}"


def _short(need: Need, nodes: tuple[NodeState, ...]) -> Iterator[str]:
    for node in nodes:
        missing = {name: amount - node.free.get(name, 0.0) for name, amount in need.each.items()}
        yield f"node {_node_name(node)} lacks {_amounts({n: m for n, m in missing.items() if m > 0})}"


def _fits(wanted: Mapping[str, float], free: Mapping[str, float]) -> bool:
    return all(amount <= free.get(name, 0.0) + 1e-9 for name, amount in wanted.items())


def _times(need: Need) -> dict[str, float]:
    return {name: amount * need.replicas for name, amount in need.each.items()}


def _sum(*tables: Mapping[str, float]) -> dict[str, float]:
    total: dict[str, float] = {}
    for table in tables:
        for name, amount in table.items():
            total[name] = total.get(name, 0.0) + amount
    return total


def _amounts(table: Mapping[str, float], names: Mapping[str, float] | None = None) -> str:
    """`1 GPU, 4 GiB memory`."""
    return ", ".join(
        f"{table[name] / GIB:.3g} GiB memory" if name == "memory" else f"{max(table[name], 0.0):g} {name}"
        for name in (names or table)
    )


def effect_of(
    difference: Difference, room: Room, needs: tuple[Need, ...] | None, *, built: bool, usual_s: float | None = None
) -> Effect:
    """`built`: the same code already runs as another app, so its environment is there. `usual_s`: how long the app
    usually takes to come up."""
    if difference.kind is Kind.REMOVE:
        return Effect(Impact.DELETE)
    if difference.wanted is None:
        return Effect(Impact.NONE)
    if difference.kind is Kind.CREATE:
        rebuilds = False if built else _has_environment(difference.wanted)
        return Effect(Impact.CREATE, rebuilds, takes_s=usual_s, room=where(room, needs))
    if difference.in_place:
        return Effect(Impact.IN_PLACE, rebuilds_env=False)
    rebuilds = _rebuilds(difference, difference.wanted, built)
    found = _restart(difference, difference.wanted, room, needs, rebuilds)
    if found.impact is Impact.INTERRUPTION:
        # The old replica is gone before the new one starts, so callers wait as long as an app takes to come up.
        return replace(found, interruption_s=usual_s, takes_s=usual_s)
    return replace(found, takes_s=usual_s, room=where(room, _one_more(needs)))


def _rebuilds(difference: Difference, wanted: DesiredApp, built: bool) -> bool | None:
    """The requirements of what runs are not known, so new code may or may not need a new environment."""
    new_code = difference.fields & NEW_CODE
    if built or not new_code or _has_environment(wanted) is False:
        return False
    return None


def _has_environment(app: DesiredApp) -> bool | None:
    """Whether any class asks for an environment of its own; None when only running the code would tell."""
    if app.code is None:
        return None
    answers = {_asks_for_environment(facts) for facts in app.code.classes}
    return True if True in answers else None if None in answers else False


def _asks_for_environment(facts: ClassFacts) -> bool | None:
    environment = runtime_env(facts)
    if environment is None:
        return True if requirements(facts) else None
    return any(environment.get(key) for key in ("pip", "uv", "conda", "image_uri"))


def _restart(
    difference: Difference, wanted: DesiredApp, room: Room, needs: tuple[Need, ...] | None, rebuilds: bool | None
) -> Effect:
    rolling = Effect(Impact.ROLLING_RESTART, rebuilds_env=rebuilds)
    if difference.running is not None and difference.running.status not in SERVING:
        return replace(rolling, note=f"it does not serve now ({difference.running.status})")
    if wanted.spec.rollout.surge:
        short = lacking(replace(room, taken={}), _one_more(needs))
        if not short:
            return rolling
        return Effect(Impact.INTERRUPTION, rebuilds, None, f"no room for one more replica: {short}")
    alone = [need.class_name for need in needs or () if need.replicas < 2]
    if needs is None or alone:
        names = f" of {listed(alone)}" if alone else ""
        note = f"rollout.surge is off: the only replica{names} stops before the new one starts"
        return Effect(Impact.INTERRUPTION, rebuilds, None, note)
    return rolling


def _one_more(needs: tuple[Need, ...] | None) -> tuple[Need, ...] | None:
    return None if needs is None else tuple(replace(need, replicas=min(need.replicas, 1)) for need in needs)
