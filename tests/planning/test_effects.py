"""What callers notice, predicted."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.planning.planner import plan
from reconciler.planning.steps import Effect, Impact, PlanOptions
from tests.builders import a_class, a_desired, a_live, a_node, a_status, an_app, an_artifact, some_code


def effect(before: Any, after: Any, **live: Any) -> Effect:
    known = a_live(a_status(before, **live.pop("status", {})), artifacts=[an_artifact(before)], **live)
    return plan(a_desired(after), known, {}, PlanOptions()).steps[-1].effect


OLD = an_app(code=some_code(content="v1"))
NEW = an_app(code=some_code(content="v2"))


def test_with_room_for_one_more_replica_nobody_notices() -> None:
    assert effect(OLD, NEW, nodes=[a_node(CPU=1)]).impact is Impact.ROLLING_RESTART
    assert effect(OLD, NEW, nodes=[a_node(CPU=1)]).interruption_s == 0.0


def test_without_room_the_interruption_is_said_and_what_is_lacking() -> None:
    found = effect(OLD, NEW, nodes=[a_node("gn01", CPU=0.5)])
    assert (found.impact, found.interruption_s) == (Impact.INTERRUPTION, None)
    assert found.note == "no room for one more replica: Main needs 1 CPU: node gn01 lacks 0.5 CPU"


def test_unknown_nodes_are_not_full_nodes() -> None:
    assert effect(OLD, NEW).impact is Impact.ROLLING_RESTART


@pytest.mark.parametrize(("replicas", "impact"), [(1, Impact.INTERRUPTION), (2, Impact.ROLLING_RESTART)])
def test_without_surge_a_single_replica_is_missed(replicas: int, impact: Impact) -> None:
    new = an_app(code=some_code(content="v2"), rollout={"surge": False}, replicas={"*": replicas})
    assert effect(OLD, new).impact is impact


def test_an_app_that_does_not_serve_cannot_be_interrupted() -> None:
    found = effect(OLD, NEW, nodes=[a_node(CPU=0)], status={"status": "DEPLOY_FAILED"})
    assert found.impact is Impact.ROLLING_RESTART
    assert found.note == "it does not serve now (DEPLOY_FAILED)"


@pytest.mark.parametrize(
    ("after", "rebuilds"),
    [
        (NEW, None),  # the requirements of what runs are not known
        (an_app(kwargs={"Main": {"n": 1}}), False),
        (an_app(code=some_code(content="v2", classes=[a_class()])), False),  # it asks for no environment
        (an_app(max_ongoing_requests=3), False),
    ],
)
def test_whether_the_environment_is_built(after: Any, rebuilds: bool | None) -> None:
    assert effect(OLD, after).rebuilds_env is rebuilds


def test_a_new_app_builds_its_environment_unless_its_code_runs_already() -> None:
    code = some_code()
    other = an_app("other", code=code)
    alone = plan(a_desired(an_app(code=code)), a_live(), {}, PlanOptions())
    beside = plan(
        a_desired(an_app(code=code), other), a_live(a_status(other), artifacts=[an_artifact(other)]), {}, PlanOptions()
    )
    assert alone.steps[-1].effect.rebuilds_env is True
    assert beside.steps[-1].effect.rebuilds_env is False


def test_options_that_only_running_the_code_would_tell_hold_nothing() -> None:
    app = an_app(code=some_code(classes=[a_class(num_gpus=9, unknown=("ray_actor_options",))]))
    made = plan(a_desired(app), a_live(nodes=[a_node(CPU=1)]), {}, PlanOptions())
    assert not made.held
    assert made.steps[-1].effect.rebuilds_env is None


def test_an_app_without_gpu_needs_none() -> None:
    app = an_app(code=some_code(classes=[a_class(num_gpus=1)]), disable_gpu=True)
    assert not plan(a_desired(app), a_live(nodes=[a_node(CPU=1)]), {}, PlanOptions()).held


def test_memory_counts() -> None:
    app = an_app(code=some_code(classes=[a_class(memory=4 * 2**30)]))
    made = plan(a_desired(app), a_live(nodes=[a_node("n", CPU=1, memory=2**30)]), {}, PlanOptions())
    assert made.held[0].message == "Main needs 1 CPU, 4 GiB memory: node n lacks 3 GiB memory"
