"""What failed its gate and stays: left alone by every pass, and tried again when somebody insists."""

from __future__ import annotations

from typing import Any

import pytest

from bioengine_runtime.contract.status import Gate, Rejection, ServeStatus
from reconciler.planning.desired import DesiredState
from reconciler.planning.live import LiveState
from reconciler.planning.planner import plan
from reconciler.planning.steps import Impact, Plan, PlanOptions
from tests.builders import a_desired, a_live, a_status, an_app, an_artifact


def failed(gate: Gate = "probe", status: ServeStatus = "RUNNING") -> tuple[DesiredState, LiveState]:
    """`one` runs as git wants it, and is no good; `two` is well."""
    one, two = an_app("one"), an_app("two")
    tried = Rejection(digest=one.spec.digest(), reason="it raised", at=0.0, gate=gate)
    state = a_status(one, status=status).model_copy(update={"rejected": tried})
    return a_desired(one, two), a_live(state, a_status(two), artifacts=[an_artifact(one), an_artifact(two)])


def insisting(world: tuple[DesiredState, LiveState], *targets: str, **options: Any) -> Plan:
    return plan(*world, {}, PlanOptions(frozenset(targets), force=True, **options))


def test_ro_04_without_insisting_nothing_is_done() -> None:
    assert plan(*failed(), {}).empty
    assert not plan(*failed("start", "DEPLOY_FAILED"), {}).steps


@pytest.mark.parametrize(
    ("gate", "status"), [("probe", "RUNNING"), ("stable", "UNHEALTHY"), ("start", "DEPLOY_FAILED")]
)
def test_ro_04_it_is_tried_again_and_nothing_else_is_touched(gate: Gate, status: ServeStatus) -> None:
    for made in (insisting(failed(gate, status), "one"), insisting(failed(gate, status))):
        assert [step.app_id for step in made.steps if step.address.startswith("update")] == ["one"]
        assert made.steps[-1].why.endswith("and is to be tried again")
    assert not insisting(failed(gate, status), "two").steps


def test_one_that_is_up_is_only_judged_anew() -> None:
    (step,) = insisting(failed(), "one").steps
    assert step.effect.impact is Impact.IN_PLACE
    assert step.why == "it did not pass its gate, and is to be tried again"


def test_a_good_version_that_was_given_up_is_tried_again_too() -> None:
    app = an_app()
    world = a_desired(app), a_live(a_status(app, status="DEPLOY_FAILED"), artifacts=[an_artifact(app)])
    assert plan(*world, {}).empty
    assert [step.app_id for step in insisting(world, "demo-app").steps][-1] == "demo-app"


def test_what_was_tried_is_not_tried_twice() -> None:
    assert insisting(failed(), "one", tried=frozenset({"one"})).empty
