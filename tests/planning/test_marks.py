"""When a change is the one that was shown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.planning.marks import is_marked, mark_of, mark_of_held
from reconciler.planning.steps import (
    Action,
    Change,
    DeployApp,
    Effect,
    Held,
    Impact,
    PrepareRuntimeEnv,
    Reason,
    ScaleWorkers,
    Step,
    StopApp,
    UpdateApp,
)
from tests.builders import a_desired, a_live, a_revision, a_status, an_app

HERE = a_revision()
BEFORE, WANTED = an_app(max_ongoing_requests=3), an_app()
UPDATE = Step(
    "update demo-app",
    UpdateApp(WANTED.spec, {}, WANTED.provenance),
    "",
    "demo-app",
    pre=(("app.digest", BEFORE.spec.digest()),),
    effect=Effect(Impact.ROLLING_RESTART),
)
BOUNDS = (Change("workers", "0…1", "0…4"),)


def shown(step: Step) -> set[str]:
    mark = mark_of(step, HERE)
    assert mark
    return {mark}


@pytest.mark.parametrize(
    "now",
    [
        replace(UPDATE, pre=(("app.digest", "0" * 64),)),
        replace(UPDATE, pre=(("app.digest", ""),)),
        replace(UPDATE, pre=()),
        replace(UPDATE, drift=True),
        replace(UPDATE, effect=Effect(Impact.INTERRUPTION)),
        replace(UPDATE, verb=UpdateApp(BEFORE.spec, {}, BEFORE.provenance)),
        replace(UPDATE, verb=StopApp("demo-app")),
        replace(UPDATE, verb=ScaleWorkers(0, 4), changes=BOUNDS),
        replace(UPDATE, verb=PrepareRuntimeEnv(WANTED.spec)),
    ],
)
def test_it_is_another_one_when_it_begins_or_ends_elsewhere_or_costs_more(now: Step) -> None:
    assert is_marked(UPDATE, HERE, shown(UPDATE)) and not is_marked(now, HERE, shown(UPDATE))


def test_it_is_another_one_at_another_commit() -> None:
    assert not is_marked(UPDATE, replace(HERE, commit="0" * 40), shown(UPDATE))


def test_it_is_the_same_whatever_else_is_said_of_it() -> None:
    now = replace(UPDATE, why="for another reason", needs=("prepare x",), effect=Effect(Impact.IN_PLACE))
    assert is_marked(now, HERE, shown(UPDATE))


def test_who_lets_callers_be_interrupted_lets_them_be_spared() -> None:
    worse = replace(UPDATE, effect=Effect(Impact.INTERRUPTION))
    assert is_marked(UPDATE, HERE, shown(worse))


@pytest.mark.parametrize(
    ("step", "action"),
    [
        (UPDATE, Action.UPDATE),
        (replace(UPDATE, effect=Effect(Impact.INTERRUPTION)), Action.UPDATE),
        (replace(UPDATE, verb=StopApp("demo-app")), Action.STOP),
        (replace(UPDATE, verb=ScaleWorkers(0, 4), app_id=None, changes=BOUNDS), Action.SCALE),
    ],
)
def test_what_is_held_is_the_step_that_it_becomes(step: Step, action: Action) -> None:
    held = Held(step.app_id or "(workers)", Reason.APPROVAL_REQUIRED, "", "", action, step.changes)
    assert is_marked(step, HERE, {mark_of_held(held, HERE, a_desired(WANTED), a_live(a_status(BEFORE)))})


def test_what_is_held_and_does_not_run_is_deployed() -> None:
    step = replace(UPDATE, verb=DeployApp(WANTED.spec, {}, WANTED.provenance), pre=(("app.digest", ""),))
    held = Held("demo-app", Reason.DEPENDENCY_NOT_READY, "", "", Action.CREATE)
    assert is_marked(step, HERE, {mark_of_held(held, HERE, a_desired(WANTED), a_live())})
