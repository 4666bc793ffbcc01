"""Drift has a sort, a place, an actor and a time; and what is no drift is not called so (gitops rows 57-67)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bioengine_runtime.contract.status import ReplicaState
from reconciler.planning import drift
from reconciler.planning.conditions import Status, Type, of_report
from reconciler.planning.credentials import SOON_S, end_of
from reconciler.planning.desired import DesiredApp
from reconciler.planning.live import LiveState
from reconciler.planning.planner import plan
from reconciler.planning.render_text import render
from reconciler.planning.steps import Change, Plan, PlanOptions, Reason
from reconciler.planning.story import explain, trace
from tests.builders import (
    NOW,
    OLD_COMMIT,
    a_desired,
    a_live,
    a_revision,
    a_secret,
    a_status,
    a_world,
    an_app,
    an_artifact,
    some_code,
)


def reported(app: DesiredApp, live: LiveState, known: Any = None, **desired: Any) -> dict[str, Any]:
    made = plan(a_desired(app, **desired), live, known or {}, PlanOptions())
    return next(one for one in drift.report(made, live)["apps"] if one["id"] == app.app_id)


def by_hand(wanted: DesiredApp | None = None, **spec: Any) -> LiveState:
    """demo-app, deployed from the newest commit and changed by anna since."""
    state = a_status(an_app(**spec), last_updated_at=NOW - 60)
    assert state.provenance
    state = state.model_copy(update={"provenance": state.provenance.model_copy(update={"by": "anna@lab.example"})})
    return a_live(state, artifacts=[an_artifact(wanted or an_app())])


# ── sorts of drift ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("spec", "sort", "path"),
    [
        ({"max_ongoing_requests": 50}, "config", "/max_ongoing_requests"),
        ({"env": {"*": {"MODE": "loud"}}}, "config", "/env/*/MODE"),
        ({"kwargs": {"Main": {"a/b": 2}}}, "config", "/kwargs/Main/a~1b"),
        ({"code": some_code(content="by hand")}, "code", "/version"),
        ({"env": {"*": {"API_KEY": "x"}}}, "credential", "/env/*/API_KEY"),
    ],
)
def test_a_change_by_hand_is_told_with_its_sort_its_place_who_and_when(spec: Any, sort: str, path: str) -> None:
    app = reported(an_app(), by_hand(**spec))
    assert (app["class"], app["reason"]) == (sort, "Drifted")
    assert path in [change["path"] for change in app["changes"]]
    assert (app["actor"], app["since"]) == ("anna@lab.example", "2026-11-03T09:59:00+00:00")


def test_a_change_by_a_commit_is_no_drift() -> None:
    old = a_live(a_status(an_app(commit=OLD_COMMIT, max_ongoing_requests=3)))
    app = reported(an_app(), old)
    assert (app["class"], app["reason"], app["actor"], app["since"]) == ("", "Changed", "", "")


@pytest.mark.parametrize(("seconds", "sort"), [({"demo-app": (9.0,)}, "missing"), ({}, "")])
def test_an_app_that_ran_and_is_gone_is_missing_and_a_new_one_is_not(seconds: Any, sort: str) -> None:
    assert reported(an_app(), a_live(artifacts=[an_artifact(an_app())], seconds=seconds))["class"] == sort


def test_an_app_that_is_not_well_is_drift_of_health() -> None:
    desired, live = a_world(an_app())
    unhealthy = a_live(a_status(an_app(), status="UNHEALTHY"), artifacts=(live.artifacts or {}).values())
    made = plan(desired, unhealthy, {})
    (app,) = drift.report(made, unhealthy)["apps"]
    assert (app["sync"], app["health"], app["class"]) == ("Synced", "Degraded", "health")


@pytest.mark.parametrize(("status", "said"), [("RUNNING", ""), ("UNHEALTHY", "disk full; ")])
def test_an_app_that_is_to_stay_as_it_is_says_so_also_while_it_is_as_git_wants_it(status: Any, said: str) -> None:
    app = replace(an_app(), suspend="measuring")
    live = a_live(a_status(app, status=status, message="disk full"), artifacts=[an_artifact(app)])
    report = drift.report(plan(a_desired(app), live, {}), live)
    (one,) = report["apps"]
    assert (one["sync"], one["reason"]) == ("Synced", Reason.SUSPENDED)
    assert one["message"] == f"{said}suspended: measuring"
    assert {one.type: one.status for one in of_report(report)}[Type.SUSPENDED] is Status.TRUE


def test_what_was_not_seen_is_unknown() -> None:
    assert reported(an_app(), a_live(unseen=["apps"]))["class"] == "unknown"


def test_what_git_no_longer_names_and_nobody_stops_is_an_orphan() -> None:
    live = a_live(a_status(an_app("gone")))
    made = plan(a_desired(), live, {})
    assert [app["class"] for app in drift.report(made, live)["apps"]] == ["orphan"]


@pytest.mark.parametrize(("owner", "said"), [("staging", "staging"), (None, "")])
def test_an_app_that_is_neither_ours_nor_named_is_told_and_left_alone(owner: str | None, said: str) -> None:
    state = a_status(an_app("theirs", owner=owner or "x"), started_at=NOW)
    state = state if owner else state.model_copy(update={"provenance": None})
    live = a_live(state, a_status(an_app()), artifacts=[an_artifact(an_app())])
    made = plan(a_desired(an_app(), policy={"prune": True, "removal_budget": 9}), live, {}, PlanOptions())
    report = drift.report(made, live)
    (orphan,) = report["orphans"]
    assert (orphan["id"], orphan["class"], orphan["owner"]) == ("theirs", "orphan", said)
    assert made.empty and not made.held and [app["id"] for app in report["apps"]] == ["demo-app"]
    assert {one.type: one.status for one in of_report(report)}[Type.READY] is Status.TRUE
    assert "Not ours and not in git, left alone: theirs" in render(made, command="").plain
    story = explain("theirs", a_desired(an_app()), live, made)
    assert ("state", "Unknown, Unknown") in story.rows and ("drift", "orphan") in story.rows


def test_a_change_knows_where_in_the_spec_it_is() -> None:
    assert Change("env.Main.A_B").path == "/env/Main/A_B"
    assert [Change(field).path for field in ("files", "digest", "workers", "spec")] == [""] * 4


# ── proof that the wanted code runs ────────────────────────────────────────────────────────────────────────────────


def with_replicas(*codes: str | None, state: str = "RUNNING", **status: Any) -> LiveState:
    """demo-app as wanted, with replicas that say what they run; `own` is what they should."""
    own = an_app().spec.code_digest()
    replicas = [
        ReplicaState(deployment="Main", replica_id=f"r{n}", state=state, code_digest=own if code == "own" else code)
        for n, code in enumerate(codes)
    ]
    return a_live(a_status(an_app(), replicas=replicas, **status), artifacts=[an_artifact(an_app())])


def test_a_replica_that_runs_other_code_is_found_though_the_app_was_deployed_as_wanted() -> None:
    live = with_replicas("own", "0" * 64)
    made = plan(a_desired(an_app()), live, {})
    (held,) = made.held
    assert (held.reason, held.app_id) == (Reason.CODE_MISMATCH, "demo-app")
    assert held.changes[0].field == "replica r1" and held.changes[0].before == "code 000000000000"
    report = drift.report(made, live)
    assert (report["apps"][0]["class"], report["apps"][0]["sync"]) == ("code", "OutOfSync")
    assert {one.type: one.status for one in of_report(report)}[Type.DRIFTED] is Status.TRUE


@pytest.mark.parametrize(
    "live",
    [
        with_replicas("own", "own"),
        with_replicas("own", None),
        with_replicas("own", "0" * 64, updating=True),
        with_replicas("0" * 64, state="STOPPING"),
        with_replicas("0" * 64, status="DEPLOYING"),
    ],
    ids=["all as wanted", "one says nothing", "an update is under way", "it is on its way out", "it is not up yet"],
)
def test_what_proves_nothing_accuses_nobody(live: LiveState) -> None:
    assert not plan(a_desired(an_app()), live, {}).held


def test_the_proof_stands_in_the_story_of_the_app() -> None:
    live = with_replicas("own", "own", None)
    made = plan(a_desired(an_app()), live, {})
    rows = dict(explain("demo-app", a_desired(an_app()), live, made).rows)
    assert rows["proof"] == "2 of 2 replicas that said what they run run this code; 1 said nothing"


def test_a_trace_of_an_app_with_ignored_differences_holds() -> None:
    ran = an_app(kwargs={"Main": {"n": 2}})
    replica = ReplicaState(deployment="Main", replica_id="r", state="RUNNING", code_digest=ran.spec.code_digest())
    live = a_live(a_status(ran, replicas=[replica]), artifacts=[an_artifact(ran)])
    assert trace("demo-app", a_desired(an_app(ignore=("/kwargs",))), live).ok
    assert not trace("demo-app", a_desired(an_app()), live).ok


# ── credentials ────────────────────────────────────────────────────────────────────────────────────────────────────


TOKEN = "eyJhbGciOiJub25lIn0.eyJleHAiOjE3OTM3MDA2MDB9.c2ln"
"""A JWT that ends ten minutes after NOW; signed by nobody."""


@pytest.mark.parametrize(
    ("value", "end"),
    [
        (TOKEN, NOW + 600),
        ("hunter2", None),
        ("a.b.c", None),
        (TOKEN.replace("eyJleHAiOjE3OTM3MDA2MDB9", "e30"), None),
        (TOKEN.replace("eyJleHAiOjE3OTM3MDA2MDB9", "WzFd"), None),
        ("", None),
    ],
)
def test_a_token_says_itself_when_it_ends(value: str, end: float | None) -> None:
    assert end_of(value) == end


def with_token(ends_in_s: float | None, *, known: str | None = "f" * 16) -> tuple[Plan, dict[str, Any]]:
    app = an_app(secrets=a_secret("HYPHA_TOKEN"))
    ends = None if ends_in_s is None else NOW + ends_in_s
    desired, live = a_desired(app), a_live(a_status(app, token_expires_at=ends), artifacts=[an_artifact(app)])
    made = plan(desired, live, {"demo-app": {"*/HYPHA_TOKEN": known}})
    return made, drift.report(made, live)


def credentials_valid(report: dict[str, Any]) -> tuple[Status, str]:
    found = next(one for one in of_report(report) if one.type is Type.CREDENTIALS_VALID)
    return found.status, found.reason


@pytest.mark.parametrize("ends_in_s", [SOON_S - 1, 0, -600])
def test_ss_09_a_token_that_ends_soon_is_drift_of_credentials(ends_in_s: float) -> None:
    """It is told, and nothing is restarted for it: the value that git refers to is the one that ends."""
    made, report = with_token(ends_in_s)
    assert made.empty
    assert (report["apps"][0]["class"], report["apps"][0]["reason"]) == ("credential", "CredentialExpiring")
    assert credentials_valid(report) == (Status.FALSE, "CredentialExpiring")
    assert "Ends soon: demo-app: */HYPHA_TOKEN on 2026-11-" in render(made, command="").plain


def test_ss_09_a_token_with_time_left_is_valid_and_one_that_nobody_read_is_unknown() -> None:
    assert credentials_valid(with_token(SOON_S + 1)[1])[0] is Status.TRUE
    assert credentials_valid(with_token(None)[1])[0] is Status.TRUE
    assert credentials_valid(with_token(None, known=None)[1]) == (Status.UNKNOWN, "CredentialUnknown")


def test_ss_09_the_token_of_the_worker_counts_too() -> None:
    desired, live = a_world(an_app())
    ending = a_live(*live.apps.values(), artifacts=(live.artifacts or {}).values(), token_expires_at=NOW + 60)
    made = plan(desired, ending, {})
    report = drift.report(made, ending)
    assert credentials_valid(report) == (Status.FALSE, "CredentialExpiring")
    assert report["credentials"] == [{"id": "(worker)", "name": "HYPHA_TOKEN", "ends": "2026-11-03T10:01:00+00:00"}]


def test_a_secret_whose_value_changed_is_a_change_and_its_value_is_nowhere() -> None:
    app = an_app(secrets=a_secret("TOKEN"))
    live = a_live(a_status(app), artifacts=[an_artifact(app)])
    found = reported(app, live, {"demo-app": {"*/TOKEN": "0" * 16}})
    assert found["changes"] == [
        {"field": "env.*.TOKEN", "path": "/env/*/TOKEN", "live": "", "desired": "(secret changed)"}
    ]


# ── the source ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rr_07_a_repository_that_is_away_is_said_and_drift_is_still_found() -> None:
    away = a_revision()
    away = type(away)(away.url, away.ref, away.commit, away.subject, away="connection refused")
    live = by_hand(max_ongoing_requests=50)
    made = plan(a_desired(an_app(), revision=away), live, {})
    found = {one.type: one for one in of_report(drift.report(made, live))}
    assert (found[Type.SOURCE_READY].status, found[Type.SOURCE_READY].message) == (Status.FALSE, "connection refused")
    assert found[Type.DRIFTED].status is Status.TRUE
