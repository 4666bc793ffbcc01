"""Whether an app fits: what has a place is never refused, and what has none is told with the node that lacks it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioengine_runtime.apps.errors import BadApp
from bioengine_runtime.apps.fitting import Asked, Node, Present, asked_by, crowded, impossible
from bioengine_runtime.apps.requirements import wanted
from tests.runtime.apps_world import a_spec

GB = 1024**3


def node(name: str = "a1b2c3d4e5", *, cpu: float = 2, gpu: float = 0, memory: float = 8 * GB, **free: float) -> Node:
    total = {"CPU": cpu, "GPU": gpu, "memory": memory, "node:__internal_head__": 1.0}
    return Node(name, "10.0.0.3", total, {**total, **free})


def asked(name: str = "Main", number: int = 1, most: int | None = None, **part: float) -> Asked:
    return Asked(name, (part,), number, most)


def of(decorator: dict[str, Any], **spec: Any) -> Asked:
    return asked_by(wanted(a_spec(**spec), "Main", decorator, fingerprints={}, entry=True))


# ── What is asked for ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_class_asks_for_each_of_its_replicas():
    assert of({"ray_actor_options": {"num_cpus": 2, "num_gpus": 1}}, replicas={"*": 3}) == asked(number=3, CPU=2, GPU=1)
    assert of({}) == asked(CPU=1)


@pytest.mark.parametrize(("least", "number"), [(0, 0), (2, 2)])
def test_with_autoscaling_the_least_number_of_replicas_counts(least: int, number: int):
    assert of({}, autoscaling={"*": {"min_replicas": least, "max_replicas": 9}}).number == number
    assert of({"autoscaling_config": {"min_replicas": least, "max_replicas": 9}}).number == number


def test_a_replica_in_a_placement_group_asks_for_its_bundles():
    bundles = [{"CPU": 1}, {"CPU": 2, "GPU": 1}]
    assert of({"placement_group_bundles": bundles}).parts == ({"CPU": 1}, {"CPU": 2, "GPU": 1})
    strict = of({"placement_group_bundles": bundles, "placement_group_strategy": "STRICT_PACK"})
    assert strict.parts == ({"CPU": 3, "GPU": 1},)


@pytest.mark.parametrize("gpus", [0.5, 1.5])
def test_a_part_of_a_gpu_is_refused(gpus: float):
    with pytest.raises(BadApp, match=f"Main asks for {gpus} GPU, .* set num_gpus to 1 or 0"):
        of({"ray_actor_options": {"num_gpus": gpus}})
    assert of({"ray_actor_options": {"num_gpus": gpus}}, disable_gpu=True) == asked(CPU=1)


# ── What can never be ────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_fits_on_no_node_says_which_node_lacks_what():
    """RO-09."""
    nodes = [node("a1b2c3d4e5", cpu=2), node("ffffffffff", cpu=8, memory=4 * GB)]
    assert impossible([asked(CPU=4, memory=8 * GB)], nodes) == (
        "Main fits on no node: node a1b2c3d4 (10.0.0.3): needs 4 CPU, has 2; "
        "node ffffffff (10.0.0.3): needs 8 GB of memory, has 4 GB"
    )
    assert "needs 1 licence, has 0" in impossible([asked(licence=1)], nodes)


def test_6_1_18_every_replica_is_counted_and_not_all_on_one_node():
    """RO-10."""
    nodes = [node("aaaaaaaa", cpu=4), node("bbbbbbbb", cpu=4)]
    assert impossible([asked(number=2, CPU=3)], nodes) == ""
    assert impossible([asked(number=3, CPU=3)], nodes) == (
        "3 replicas of Main do not fit, at 3 CPU each; "
        "room for them: node aaaaaaaa (10.0.0.3) 1; node bbbbbbbb (10.0.0.3) 1"
    )
    assert "2 replicas of Main do not fit" in impossible([asked(number=2, most=1, CPU=1)], nodes[:1])


def test_all_classes_together_must_fit():
    said = impossible([asked("Entry", CPU=1), asked("Model", CPU=2)], [node(cpu=2)])
    assert said == "1 × Entry, 1 × Model: all nodes together need 3 CPU, has 2"


def test_without_a_node_nothing_fits():
    assert impossible([asked(CPU=1)], []) == "Main fits on no node: there is no node"


def test_many_nodes_are_not_all_listed():
    assert "and 15 more" in impossible([asked(CPU=4)], [node(f"{number:08}") for number in range(20)])


AMOUNTS = st.fixed_dictionaries({"CPU": st.sampled_from([0.1, 0.5, 1, 2, 3.7])}, optional={"GPU": st.integers(1, 2)})
SPARE = st.sampled_from([0, 0.3])


@given(st.lists(st.lists(st.sampled_from("ABC"), max_size=6), min_size=1, max_size=4), st.data())
def test_a_plan_that_has_a_place_is_never_refused(placed: list[list[str]], data: st.DataObject):
    """Put replicas on nodes first, give each node at least what lies on it: one node is the special case."""
    sizes = {name: data.draw(AMOUNTS) for name in "ABC"}
    nodes: list[Node] = []
    for index, on_it in enumerate(placed):
        total = {key: sum(sizes[name].get(key, 0) for name in on_it) + data.draw(SPARE) for key in ("CPU", "GPU")}
        nodes.append(Node(f"{index:08}", "10.0.0.3", total, {}))
    count = {name: sum(on_it.count(name) for on_it in placed) for name in "ABC"}
    plan = [Asked(name, (sizes[name],), number) for name, number in count.items() if number]
    assert impossible(plan, nodes) == ""


# ── What finds no room now ───────────────────────────────────────────────────────────────────────────────────────────


def test_what_finds_room_is_not_spoken_of():
    assert crowded([asked(CPU=1)], [node(cpu=2)], [], keeps=False, surge=True) == ""


def test_what_waits_beside_others_is_told():
    said = crowded([asked(number=2, CPU=1)], [node(cpu=4, CPU=1)], [], keeps=False, surge=True)
    assert said == "no room at the moment for 1 of 2 Main (node a1b2c3d4 (10.0.0.3): needs 1 CPU, has 0)"


def test_a_surge_needs_room_beside_what_runs():
    busy = node(cpu=2, CPU=0)
    present = [Present("Main", busy.node_id, {"CPU": 2.0})]
    said = crowded([asked(CPU=2)], [busy], present, keeps=False, surge=True)
    assert said.startswith("no room at the moment to bring up 1 of 1 Main")
    assert said.endswith("`rollout: {surge: false}` replaces the old version instead")
    assert crowded([asked(CPU=2)], [busy], present, keeps=False, surge=False) == ""
    assert crowded([asked(CPU=2)], [busy], present, keeps=True, surge=True) == ""


def test_6_1_18_what_an_app_uses_counts_only_on_the_node_where_it_runs():
    here, there = node("aaaaaaaa", cpu=4, CPU=1), node("bbbbbbbb", cpu=4, CPU=1)
    present = [Present("Main", "aaaaaaaa", {"CPU": 1.0})]
    assert crowded([asked(CPU=2)], [here, there], present, keeps=False, surge=False) == ""
    assert crowded([asked(number=2, CPU=2)], [here, there], present, keeps=False, surge=False) != ""


def test_more_replicas_of_what_runs_need_room_for_the_further_ones_alone():
    busy = node(cpu=2, CPU=1)
    present = [Present("Main", busy.node_id, {"CPU": 1.0})]
    assert crowded([asked(number=2, CPU=1)], [busy], present, keeps=True, surge=True) == ""
    assert crowded([asked(number=3, CPU=1)], [busy], present, keeps=True, surge=True) != ""
