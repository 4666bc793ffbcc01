"""What stops a plan from doing harm: deletions that are meant to the number, saved plans that no longer fit."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from reconciler.planning import plan_file, plan_lines
from reconciler.planning.desired import DesiredApp, DesiredState
from reconciler.planning.live import ArtifactVersion, LiveState
from reconciler.planning.memory import Order
from reconciler.planning.planner import plan
from reconciler.planning.steps import Plan, PlanOptions, Reason, StopApp
from tests.builders import (
    NOW,
    OLD_COMMIT,
    a_desired,
    a_live,
    a_secret,
    a_status,
    a_world,
    an_app,
    an_approval,
    an_artifact,
    some_code,
)


def a_fleet(gone: int, **desired: Any) -> tuple[DesiredState, LiveState]:
    """Four apps stay, `gone` are no longer named; all are ours."""
    stays = [an_app(f"stays-{n}") for n in range(4)]
    goes = [an_app(f"gone-{n}") for n in range(gone)]
    return a_desired(*stays, **{"policy": {"prune": True}, **desired}), a_live(*map(a_status, [*stays, *goes]))


def stopped(made: Plan) -> int:
    return sum(isinstance(step.verb, StopApp) for step in made.steps)


def reasons(made: Plan) -> set[Reason]:
    return {held.reason for held in made.held}


# ── deletions ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("confirmed", "stops"), [(0, 0), (1, 0), (2, 2), (3, 0), (99, 0)])
def test_rp_05_only_the_exact_number_confirms_deletions(confirmed: int, stops: int) -> None:
    """Caught: more confirmed than there are, which whoever confirmed them did not see."""
    made = plan(*a_fleet(2), {}, PlanOptions(prune_confirmed=confirmed))
    assert stopped(made) == stops
    assert stops or reasons(made) == {Reason.PRUNE_BUDGET_EXCEEDED}


def test_a_wrong_number_stops_even_what_the_budget_allows() -> None:
    desired, live = a_fleet(1, policy={"prune": True, "removal_budget": 3})
    assert stopped(plan(desired, live, {})) == 1
    made = plan(desired, live, {}, PlanOptions(prune_confirmed=2))
    assert stopped(made) == 0
    assert made.held[0].message == "2 removals confirmed, and 1 app would be stopped"
    assert made.held[0].fix == "if it is meant: reconcile apply --confirm-deletes 1"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rewritten": True}, Reason.HISTORY_REWRITTEN),
        ({"policy": {"prune": False}}, Reason.PRUNE_DISABLED),
    ],
)
def test_rp_05_no_budget_is_large_enough_for_a_source_that_is_in_doubt(change: Any, reason: Reason) -> None:
    desired, live = a_fleet(2, **{"policy": {"prune": True, "removal_budget": 9}, **change})
    assert reasons(plan(desired, live, {})) == {reason}
    _, all_of_them = a_fleet(2)
    nothing = a_desired(policy={"prune": True, "removal_budget": "100%"})
    assert reasons(plan(nothing, all_of_them, {})) == {Reason.SOURCE_EMPTY}


@pytest.mark.parametrize("unseen", ["apps", "artifacts", "memory"])
def test_rp_05_nothing_is_stopped_in_the_dark(unseen: str) -> None:
    desired, live = a_fleet(2, policy={"prune": True, "removal_budget": 9})
    dark = a_live(*(live.worker.apps if live.worker else ()), unseen=[unseen])
    assert stopped(plan(desired, dark, {}, PlanOptions(prune_confirmed=2))) == 0


@pytest.mark.parametrize(
    ("by", "more", "stops"),
    [("anna", (), 2), ("ben", (), 0), ("", (), 0), ("anna", (an_app("new"),), 0)],
    ids=["who may", "who may not", "nobody", "who may, a plan with steps"],
)
def test_sp_07_an_approval_confirms_removals_when_it_is_of_them_alone(
    by: str, more: tuple[DesiredApp, ...], stops: int
) -> None:
    """The id of a plan pins which apps are meant; with other steps in it, those are what was approved."""
    policy = {"prune": True, "pruners": ["anna"], "approvers": ["ben", "anna"]}
    _, live = a_fleet(2)
    desired, _ = a_fleet(2, policy=policy)
    desired = replace(desired, apps={**desired.apps, **{app.app_id: app for app in more}})
    made = plan(desired, live, {})
    approved = replace(live, remembered=replace_orders(live, an_approval(made, desired, live, by)))
    again = plan(desired, approved, {})
    assert (stopped(made), stopped(again), again.id) == (0, stops, made.id)
    assert ("reconcile approve" in made.held[0].fix) is (not more)


def replace_orders(live: LiveState, *orders: Order) -> Any:
    assert live.remembered is not None
    return replace(live.remembered, orders=orders)


# ── saved plans ────────────────────────────────────────────────────────────────────────────────────────────────────


def saved(made: Plan, created_at: str = "2026-11-03T10:00:00+00:00") -> dict[str, Any]:
    return json.loads(json.dumps(plan_file.to_json(made, created_at)))


def a_plan() -> Plan:
    return plan(a_desired(an_app()), a_live(), {})


@pytest.mark.parametrize(
    ("later_s", "said"),
    [
        (0, ""),
        (3600, ""),
        (3601, "it was made 60 min ago, and policy.plan_valid_s is 3600"),
        (86_400 * 3, "it was made 72 h ago"),
        (-60, ""),
        (-3600, "it says that it was made 60 min from now; compare the clocks"),
    ],
)
def test_sp_05_a_plan_is_applied_while_it_is_fresh(later_s: float, said: str) -> None:
    found = plan_file.out_of_date(plan_file.from_json(saved(a_plan())), valid_s=3600.0, now=NOW + later_s)
    assert found.startswith(said) and bool(found) is bool(said)


@pytest.mark.parametrize("created_at", ["", "yesterday", "2026-11-03T10:00:00"])
def test_sp_05_a_plan_that_does_not_say_when_it_was_made_is_refused(created_at: str) -> None:
    document = plan_file.from_json(saved(a_plan(), created_at))
    assert "does not say when" in plan_file.out_of_date(document, valid_s=3600.0, now=NOW)


def test_sp_05_its_date_cannot_be_edited() -> None:
    document = saved(a_plan()) | {"created_at": datetime.fromtimestamp(NOW + 9e6, UTC).isoformat()}
    assert "changed after it was written" in plan_file.differences(document, a_plan())[0]


BEFORE = an_app(commit=OLD_COMMIT, secrets=a_secret("PIN"), max_ongoing_requests=3)
WANTED = an_app(secrets=a_secret("PIN"), kwargs={"Main": {"n": 2}})
KNOWN = {"demo-app": {"*/PIN": "f" * 16}}


@pytest.mark.parametrize(
    "moved",
    [
        {"digest": "2" * 64},
        {"secret_fingerprints": {"*/PIN": "0" * 16}},
        {"updating": True},
        {"provenance": None},
        {"status": "DELETING"},
    ],
    ids=lambda moved: next(iter(moved)),
)
def test_sp_06_what_moved_in_the_running_app_makes_a_saved_plan_stale(moved: Any) -> None:
    live = a_live(a_status(BEFORE), artifacts=[an_artifact(BEFORE)])
    document = saved(plan(a_desired(WANTED), live, KNOWN))
    assert not plan_file.differences(document, plan(a_desired(WANTED), live, KNOWN))
    now = a_live(a_status(BEFORE).model_copy(update=moved), artifacts=[an_artifact(BEFORE)])
    assert plan_file.differences(document, plan(a_desired(WANTED), now, KNOWN))


def test_sp_06_what_moved_in_the_store_or_in_the_bounds_of_the_workers_makes_it_stale() -> None:
    slurm = {"mode": "slurm", "workers": {"min": 0, "max": 4}}
    desired = a_desired(an_app(code=some_code(content="v2")), compute=slurm)
    fields: dict[str, Any] = {"mode": "slurm", "workers": {"min": 0, "max": 4}}
    stored = an_artifact(an_app())
    document = saved(plan(desired, a_live(artifacts=[stored], **fields), {}))
    more = an_artifact(an_app(), ArtifactVersion("2.0.0-g000000000000", "0" * 40))
    assert plan_file.differences(document, plan(desired, a_live(artifacts=[more], **fields), {}))
    bounds = {**fields, "workers": {"min": 1, "max": 4}}
    assert plan_file.differences(document, plan(desired, a_live(artifacts=[stored], **bounds), {}))


def test_what_comes_and_goes_by_itself_makes_no_plan_stale() -> None:
    live = a_live(a_status(BEFORE), artifacts=[an_artifact(BEFORE)])
    document = saved(plan(a_desired(WANTED), live, KNOWN))
    learned = a_live(a_status(BEFORE), artifacts=[an_artifact(BEFORE)], seconds={"demo-app": (7.0,)}, at=NOW + 60)
    assert not plan_file.differences(document, plan(a_desired(WANTED), learned, KNOWN))


# ── as lines ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_plan_as_lines_says_what_its_document_says() -> None:
    desired, live = a_fleet(1)
    desired = replace(desired, apps={**desired.apps, "new": an_app("new")})
    made = plan(desired, live, {})
    lines = [json.loads(json.dumps(line)) for line in plan_lines.lines(made, "2026-11-03T10:00:00+00:00")]
    document = saved(made)
    assert (lines[0]["event"], lines[-1]["event"]) == ("plan_started", "summary")
    assert lines[0]["id"] == made.id and lines[-1]["summary"] == document["summary"]
    told = {kind: [line for line in lines if line["event"] == kind] for kind in ("planned", "held")}
    assert [line["address"] for line in told["planned"]] == [step["address"] for step in document["steps"]]
    assert [line["app_id"] for line in told["held"]] == ["gone-0"]
    said = {name for line in lines for name in line}
    assert document.keys() - {"steps", "held", "problems", "live"} <= said


def test_what_was_not_seen_is_a_line() -> None:
    desired, _ = a_world(an_app())
    lines = list(plan_lines.lines(plan(desired, a_live(unseen=["apps"]), {}), ""))
    assert {"event": "unseen", "what": "apps", "why": "no answer within 10 s"} in lines
    assert lines[-1]["complete"] is False
