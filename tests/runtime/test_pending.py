"""Who waits for resources, told from what Ray tells: how many of which shape, and which actors are about to start."""

from __future__ import annotations

from collections import Counter

from bioengine_runtime.worker.pending import SEVERAL_NODES, Pending, Waiting, sort_out

CPU = frozenset({("CPU", 1.0)})
GPU = frozenset({("CPU", 1.0), ("GPU", 1.0)})


def test_nothing_waits() -> None:
    assert sort_out(Counter(), [], [("ServeReplica:up:Main", CPU)]) == Pending()


def test_actors_that_may_be_meant_are_named_and_the_rest_are_tasks() -> None:
    starting = [("ServeReplica:b:Main", GPU), ("ServeReplica:a:Main", GPU), ("ServeReplica:b:Main", GPU)]
    found = sort_out(Counter({GPU: 2, CPU: 7}), [], [*starting, ("Other", frozenset())])
    waiting = Waiting({"CPU": 1.0, "GPU": 1.0}, 2, ("ServeReplica:a:Main", "ServeReplica:b:Main"))
    assert found == Pending((waiting,), (Waiting({"CPU": 1.0}, 7),))


def test_more_than_there_are_actors_are_both() -> None:
    found = sort_out(Counter({CPU: 5}), [], [("Main", CPU)])
    assert found == Pending((Waiting({"CPU": 1.0}, 1, ("Main",)),), (Waiting({"CPU": 1.0}, 4),))


def test_a_replica_of_several_bundles_waits_as_one() -> None:
    assert sort_out(Counter(), [GPU, GPU], []).actors == (Waiting({"CPU": 1.0, "GPU": 1.0}, 2, (SEVERAL_NODES,)),)
