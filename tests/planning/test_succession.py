"""What has to be up before an app is stopped."""

from __future__ import annotations

from typing import Any

import pytest

from bioengine_runtime.contract.status import AppState, ReplicaState
from reconciler.planning.agreed import aims
from reconciler.planning.planner import plan
from reconciler.planning.steps import Action, Plan, PlanOptions, Reason, StopApp
from tests.builders import COMMIT, NOW, OLD_COMMIT, a_desired, a_live, a_node, a_status, an_app, an_artifact, some_code

OLD, NEW = an_app("old"), an_app("new")
POLICY = {"prune": True, "removal_budget": "100%"}
SLURM = {"mode": "slurm", "workers": {"min": 0, "max": 1}}
PLACED = ReplicaState(deployment="Main", replica_id="a", state="STARTING", node_id="n")
PENDING = ReplicaState(deployment="Main", replica_id="b", state="STARTING")


def a_plan(*running: AppState, options: PlanOptions | None = None, live: Any = None, **desired: Any) -> Plan:
    """Git names `new`, and no longer `old`."""
    seen = a_live(a_status(OLD), *running, artifacts=[an_artifact(NEW)], **(live or {}))
    return plan(a_desired(NEW, policy=POLICY, **desired), seen, {}, options or PlanOptions())


def held(made: Plan) -> dict[str, Reason]:
    return {one.app_id: one.reason for one in made.held}


def stops(made: Plan) -> bool:
    return any(isinstance(step.verb, StopApp) for step in made.steps)


def coming(*replicas: ReplicaState, age_s: float, **fields: Any) -> AppState:
    about = {"status": "DEPLOYING", "replicas": list(replicas), "last_updated_at": NOW - age_s, **fields}
    return a_status(NEW, **about)


def test_a_removal_comes_after_what_the_same_plan_changes() -> None:
    (stop,) = [step for step in a_plan().steps if isinstance(step.verb, StopApp)]
    assert stop.needs == ("deploy new",)


def test_undoing_what_somebody_did_by_hand_is_none_of_the_change() -> None:
    by_hand = NEW.spec.model_copy(update={"kwargs": {"Main": {"n": 2}}})
    made = a_plan(a_status(NEW, spec=by_hand, digest=by_hand.digest()))
    update, stop = made.steps[-2:]
    assert update.drift and isinstance(stop.verb, StopApp) and stop.needs == ()


def test_a_name_that_ran_here_before_may_come_in_its_place_as_well() -> None:
    (stop,) = [step for step in a_plan(live={"seconds": {"new": (9.0,)}}).steps if isinstance(step.verb, StopApp)]
    assert stop.needs == ("deploy new",)


@pytest.mark.parametrize(
    "app",
    [
        coming(PLACED, age_s=900.0),
        coming(age_s=5.0),
        coming(PLACED, PENDING, age_s=5.0),
        coming(PLACED, age_s=900.0, status="RUNNING", updating=True),
    ],
)
def test_it_waits_for_what_is_on_its_way(app: AppState) -> None:
    made = a_plan(app)
    assert held(made) == {"old": Reason.UPDATING}
    assert ("old", "") in aims(made, a_desired(NEW)) and made.held[0].action is Action.STOP


@pytest.mark.parametrize("app", [coming(age_s=61.0), coming(PLACED, PENDING, age_s=61.0), a_status(NEW)])
def test_it_waits_for_nothing_that_waits_for_room_or_is_up(app: AppState) -> None:
    assert stops(a_plan(app))


@pytest.mark.parametrize(("machines", "waits"), [(0, True), (1, False)])
def test_a_machine_that_is_still_to_start_is_room(machines: int, waits: bool) -> None:
    head = a_node("login").model_copy(update={"head": True})
    live = {"mode": "slurm", "nodes": [head, *(a_node(f"w{n}") for n in range(machines))]}
    live |= {"workers": {"min": 0, "max": 1}}
    assert stops(a_plan(coming(PENDING, age_s=300.0), compute=SLURM, live=live)) is not waits


@pytest.mark.parametrize(
    ("commit", "changed", "waits"),
    [
        (COMMIT, None, True),
        (OLD_COMMIT, None, False),
        (OLD_COMMIT, {"cluster.yaml": (OLD_COMMIT, "Rename")}, True),
        (OLD_COMMIT, {"cluster.yaml": (COMMIT, "Rename")}, False),
    ],
)
def test_what_failed_before_this_change_keeps_nothing(commit: str, changed: Any, waits: bool) -> None:
    came_from = NEW.provenance.model_copy(update={"commit": commit})
    failed = a_status(NEW, status="DEPLOY_FAILED", rejected=NEW.spec.digest(), provenance=came_from)
    made = a_plan(failed, changed=changed)
    assert held(made) == {"new": Reason.BAD_COMMIT} | ({"old": Reason.DEPENDENCY_NOT_READY} if waits else {})
    assert stops(made) is not waits


def test_who_names_it_does_not_wait() -> None:
    assert stops(a_plan(coming(age_s=5.0), options=PlanOptions(targets=frozenset({"old"}))))


def test_it_waits_for_nobody_elses() -> None:
    theirs = an_app("new", owner="staging")
    assert stops(a_plan(a_status(theirs, status="DEPLOYING", last_updated_at=NOW)))


def test_what_may_not_be_stopped_at_all_says_that() -> None:
    made = a_plan(coming(age_s=5.0), options=PlanOptions(prune_confirmed=3))
    assert held(made) == {"old": Reason.PRUNE_BUDGET_EXCEEDED}


def test_what_is_being_changed_by_this_plan_is_needed_and_not_waited_for() -> None:
    app = an_app("new", code=some_code("new", content="v0"), commit=OLD_COMMIT)
    older = a_status(app, status="DEPLOYING", last_updated_at=NOW)
    (stop,) = [step for step in a_plan(older).steps if isinstance(step.verb, StopApp)]
    assert stop.needs == ("update new",)
