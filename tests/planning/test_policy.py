"""What people may say besides the spec of an app: leave it, ignore a part of it, wait for me, go back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from bioengine_runtime.contract.cluster import AppInstance, Suspension
from bioengine_runtime.contract.status import Rejection
from reconciler.planning import drift, plan_file
from reconciler.planning.backoff import LONGEST_S
from reconciler.planning.conditions import Status, Type, of_report
from reconciler.planning.desired import DesiredApp
from reconciler.planning.live import LiveState
from reconciler.planning.memory import NOTHING, Order, OrderKind
from reconciler.planning.pins import pinned
from reconciler.planning.planner import plan
from reconciler.planning.render_markdown import render as render_markdown
from reconciler.planning.render_text import render
from reconciler.planning.steps import Plan, PlanOptions, Reason, Rest
from tests.builders import (
    COMMIT,
    NOW,
    OLD_COMMIT,
    a_desired,
    a_live,
    a_revision,
    a_secret,
    a_status,
    an_app,
    an_approval,
    an_artifact,
    some_code,
)

HOUR = 3600.0


def plan_of(app: DesiredApp, live: LiveState, known: Any = None, **desired: Any) -> Plan:
    return plan(a_desired(app, **desired), live, known or {}, PlanOptions())


def drifted(at: float = NOW, orders: tuple[Order, ...] = (), **spec: Any) -> LiveState:
    """demo-app, deployed from the newest commit and changed by hand since."""
    running = a_status(an_app(**(spec or {"max_ongoing_requests": 50})))
    return a_live(running, artifacts=[an_artifact(an_app())], at=at, orders=orders)


def behind(**live: Any) -> LiveState:
    """demo-app as an older commit had it."""
    old = an_app(commit=OLD_COMMIT, max_ongoing_requests=3)
    status = live.pop("status", {})
    return a_live(a_status(old, **status), artifacts=[an_artifact(old)], **live)


def reasons(made: Plan) -> dict[str, Reason]:
    return {held.app_id: held.reason for held in made.held}


def text_of(made: Plan) -> str:
    return render(made, command="").plain


def conditions(made: Plan, live: LiveState) -> dict[Type, Status]:
    return {one.type: one.status for one in of_report(drift.report(made, live))}


# ── self_heal ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("own", "policy", "reason", "is_drift"),
    [
        (None, True, None, True),
        (None, "detect-only", Reason.SELF_HEAL_DISABLED, True),
        (None, False, Reason.DRIFT_ACCEPTED, False),
        (True, False, None, True),
        ("detect-only", True, Reason.SELF_HEAL_DISABLED, True),
        (False, True, Reason.DRIFT_ACCEPTED, False),
    ],
)
def test_a_change_by_hand_is_undone_or_only_told_or_taken_as_meant(
    own: Any, policy: Any, reason: Reason | None, is_drift: bool
) -> None:
    live = drifted()
    made = plan_of(an_app(self_heal=own), live, policy={"self_heal": policy})
    assert reasons(made) == ({"demo-app": reason} if reason else {})
    assert bool(made.steps) is (reason is None)
    assert (conditions(made, live)[Type.DRIFTED] is Status.TRUE) is is_drift


def test_what_is_taken_as_meant_is_one_line_and_leaves_all_well() -> None:
    live = drifted()
    made = plan_of(an_app(self_heal=False), live)
    (line,) = [line for line in text_of(made).splitlines() if "demo-app" in line and not line.startswith("Source")]
    assert line.startswith("Changed by hand: demo-app runs with max_ongoing_requests 50, taken as meant because")
    assert drift.report(made, live)["apps"][0]["class"] == ""
    assert conditions(made, live)[Type.READY] is Status.TRUE and conditions(made, live)[Type.STALLED] is Status.FALSE


@pytest.mark.parametrize("self_heal", [False, "detect-only"])
def test_a_commit_is_followed_whatever_self_heal_says(self_heal: Any) -> None:
    assert plan_of(an_app(self_heal=self_heal), behind()).steps


@pytest.mark.parametrize("self_heal", [False, "detect-only"])
def test_an_app_that_is_gone_is_brought_back_whatever_self_heal_says(self_heal: Any) -> None:
    """A machine that was lost takes its apps with it and means nothing by it."""
    live = a_live(artifacts=[an_artifact(an_app())], seconds={"demo-app": (20.0,)})
    made = plan_of(an_app(self_heal=self_heal), live)
    assert made.steps[-1].address == "deploy demo-app" and made.steps[-1].drift
    assert made.steps[-1].why == "cluster.yaml:7:3 asks for it, and it ran before and is gone (drift)"


# ── ignore ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ignore", "live", "git"),
    [
        ("/max_ongoing_requests", {"max_ongoing_requests": 50}, {}),
        ("/env/*/MODE", {"env": {"*": {"MODE": "loud"}}}, {}),
        ("/env/*/MODE", {"env": {"*": {"MODE": "loud", "A": "1"}}}, {"env": {"*": {"A": "1"}}}),
        ("/kwargs/Main/a~1b", {"kwargs": {"Main": {"a/b": 2}}}, {"kwargs": {"Main": {"a/b": 1}}}),
        ("/authorized_users/1", {"authorized_users": ["a", "b"]}, {"authorized_users": ["a", "c"]}),
        ("/rollout/surge", {"rollout": {"surge": False}}, {}),
    ],
)
def test_a_difference_at_an_ignored_place_is_none(ignore: str, live: Any, git: Any) -> None:
    made = plan_of(an_app(ignore=(ignore,), **git), drifted(**live))
    assert (made.steps, made.held, made.unchanged) == ((), (), ("demo-app",))
    assert made.accepted == (f"demo-app: {ignore}",)
    assert f"Ignored differences: 1 (demo-app: {ignore})." in text_of(made)


@pytest.mark.parametrize(
    ("ignore", "live"),
    [
        ("/env/*/MODE", {"env": {"Main": {"MODE": "loud"}}}),
        ("/env/*/MODE", {"env": {"*": {"MODE": "loud", "LEVEL": "1"}}}),
        ("/env/Main/*", {"env": {"Main": {"MODE": "loud"}}}),
        ("/max_ongoing_request", {"max_ongoing_requests": 50}),
        ("/rollout", {"replicas": {"*": 2}}),
        ("/nothing/here", {"debug": True}),
    ],
)
def test_sc_17_a_pointer_names_one_place_and_is_no_pattern(ignore: str, live: Any) -> None:
    """Caught: `*` taken for any key; an entry of a list taken for the list."""
    assert plan_of(an_app(ignore=(ignore,)), drifted(**live)).steps


def test_sc_17_an_entry_of_a_list_is_that_entry() -> None:
    app = an_app(ignore=("/authorized_users/0",), authorized_users=["anna", "ben"])
    assert plan_of(app, drifted(authorized_users=["carl", "ben"])).empty
    assert plan_of(app, drifted(authorized_users=["anna", "mallory"])).steps
    assert plan_of(app, drifted(authorized_users=["anna", "ben", "mallory"])).steps


def test_a_later_change_elsewhere_is_found_and_deploys_what_git_says() -> None:
    app = an_app(ignore=("/max_ongoing_requests",), max_queued_requests=7)
    (step,) = plan_of(app, drifted()).steps
    assert step.address == "update demo-app" and step.verb.spec == app.spec  # type: ignore[union-attr]
    assert [change.field for change in step.changes] == ["max_ongoing_requests", "max_queued_requests"]


CODE = some_code(content="v2")


@pytest.mark.parametrize(
    "named", [("/env", "/kwargs", "/debug", "/rollout", "/secrets", "/replicas"), ("/*",), ("/-",)]
)
@pytest.mark.parametrize(
    "change",
    [{"code": CODE}, {"authorized_users": ["mallory"]}, {"disable_gpu": True}],
    ids=["code", "users", "gpu"],
)
def test_rp_10_ignoring_other_things_hides_no_change_of_code_or_users(named: Any, change: Any) -> None:
    made = plan_of(an_app(ignore=named), drifted(**change))
    assert "update demo-app" in [step.address for step in made.steps]


def test_rp_10_code_and_users_are_ignored_by_their_names_alone() -> None:
    assert plan_of(an_app(ignore=("/authorized_users",)), drifted(authorized_users=["anna"])).empty
    assert plan_of(an_app(ignore=("/version",)), drifted(code=CODE)).empty


def test_rp_10_no_pointer_hides_a_secret_that_changed_or_a_token_that_ends() -> None:
    everything = tuple(f"/{name}" for name in type(an_app().spec).model_fields)
    app = an_app(ignore=everything, secrets=a_secret("TOKEN"))
    live = a_live(a_status(app, token_expires_at=NOW + HOUR), artifacts=[an_artifact(app)])
    assert plan_of(app, live, {"demo-app": {"*/TOKEN": "0" * 16}}).steps
    made = plan_of(app, live, {"demo-app": {"*/TOKEN": "f" * 16}})
    assert [(one.app_id, one.name) for one in made.credentials] == [("demo-app", "*/HYPHA_TOKEN")]


def test_sc_17_what_is_no_pointer_is_refused() -> None:
    for text in ("max_ongoing_requests", "/a~2", "", "env.*.MODE"):
        with pytest.raises(ValidationError):
            AppInstance.model_validate({"source": "apps/x", "ignore": [text]})


# ── suspend ────────────────────────────────────────────────────────────────────────────────────────────────────────

UNTIL = datetime.fromtimestamp(NOW + HOUR, UTC)


def a_suspension(*, at: float = NOW, **fields: Any) -> Order:
    order = Order(OrderKind.SUSPEND, "demo-app", "anna@lab.example", at, "measuring", revision=COMMIT)
    return replace(order, **fields)


def test_a_suspension_says_why_who_and_until_when() -> None:
    app = an_app(suspend=Suspension(reason="measuring", owner="anna", until=UNTIL))
    (held,) = plan_of(app, behind()).held
    assert (held.reason, held.fix) == (Reason.SUSPENDED, "remove `suspend`")
    assert held.message == "suspended: measuring (anna), until 2026-11-03 11:00 UTC"


@pytest.mark.parametrize("by", ["git", "order"])
def test_until_the_end_of_time_west_of_greenwich_stops_no_pass(by: str) -> None:
    for_ever = datetime.fromisoformat("9999-12-31T23:59:59-05:00")
    app = an_app(suspend=Suspension(reason="measuring", until=for_ever) if by == "git" else False)
    orders = [a_suspension(until=for_ever.timestamp())] if by == "order" else []
    (held,) = plan_of(app, behind(orders=orders)).held
    assert held.message.endswith("until 9999-12-31 23:59 UTC")


@pytest.mark.parametrize("ends", [-1e30, float("-inf")])
def test_a_token_that_ended_before_there_were_calendars_stops_no_pass(ends: float) -> None:
    app = an_app()
    live = a_live(a_status(app, token_expires_at=ends), artifacts=[an_artifact(app)])
    (told,) = drift.report(plan_of(app, live), live)["credentials"]
    assert told["ends"].startswith("0001-01-01")


@pytest.mark.parametrize("after_s", [HOUR, 2 * HOUR])
def test_a_suspension_that_has_ended_is_no_more(after_s: float) -> None:
    app = an_app(suspend=Suspension(reason="measuring", until=UNTIL))
    assert plan_of(app, behind(at=NOW + after_s)).steps
    order = a_suspension(until=NOW + HOUR)
    assert plan_of(an_app(), behind(orders=[order], at=NOW + after_s)).steps


def test_an_order_suspends_as_git_does_and_says_how_to_end_it() -> None:
    live = behind(orders=[a_suspension(until=NOW + HOUR)])
    (held,) = plan_of(an_app(), live).held
    assert held.message == "suspended: measuring (anna@lab.example), until 2026-11-03 11:00 UTC"
    assert (held.reason, held.fix) == (Reason.SUSPENDED, "reconcile resume demo-app")


def test_an_app_that_an_order_suspends_is_not_stopped_when_git_forgets_it() -> None:
    """Caught: orders looked at for wanted apps alone."""
    others = [an_app(f"app-{n}") for n in range(9)]
    states = [a_status(app) for app in [*others, an_app()]]
    desired = a_desired(*others, policy={"prune": True})
    assert plan(desired, a_live(*states), {}).steps
    assert reasons(plan(desired, a_live(*states, orders=[a_suspension()]), {})) == {"demo-app": Reason.SUSPENDED}


def test_once_lets_the_next_commit_through_and_only_that_one() -> None:
    once = a_suspension(once=True, revision=OLD_COMMIT, at=NOW)
    assert plan_of(an_app(), behind(orders=[replace(once, revision=COMMIT)])).held
    before = {"last_updated_at": NOW - HOUR}
    assert plan_of(an_app(), behind(orders=[once], status=before)).steps
    after = {"last_updated_at": NOW + 1}
    assert reasons(plan_of(an_app(), behind(orders=[once], status=after))) == {"demo-app": Reason.SUSPENDED}


def test_once_lets_no_commit_through_that_leaves_the_app_as_it_was() -> None:
    """It would undo by a pass what a hand did, which is what the order is to keep."""
    once = a_suspension(once=True, revision=OLD_COMMIT)
    made = plan_of(an_app(), drifted(orders=(once,)))
    assert reasons(made) == {"demo-app": Reason.SUSPENDED} and made.held[0].drift


def test_once_is_used_up_by_a_commit_that_was_tried_in_vain() -> None:
    once = a_suspension(once=True, revision=OLD_COMMIT)
    old = a_status(an_app(commit=OLD_COMMIT, max_ongoing_requests=3), last_updated_at=NOW - HOUR)
    tried = Rejection(digest="0" * 64, reason="it raised", at=NOW + 1)
    live = a_live(old.model_copy(update={"rejected": tried}), orders=[once])
    assert reasons(plan_of(an_app(), live)) == {"demo-app": Reason.SUSPENDED}


def test_who_cannot_see_the_orders_changes_nothing() -> None:
    """Unknown is not empty: there may be a suspension that we cannot see."""
    new, gone = an_app("new"), an_app("gone")
    old = an_app(commit=OLD_COMMIT, max_ongoing_requests=3)
    live = a_live(a_status(old), a_status(gone), artifacts=[an_artifact(old)], unseen=["memory"])
    made = plan(a_desired(an_app(), new, policy={"prune": True, "removal_budget": 9}), live, {})
    assert not made.steps
    assert reasons(made) == dict.fromkeys(("demo-app", "gone", "new"), Reason.LIVE_STATE_UNKNOWN)
    assert "memory" in text_of(made)


# ── rollback ───────────────────────────────────────────────────────────────────────────────────────────────────────

OLDER = an_app(commit=OLD_COMMIT, max_ongoing_requests=3)
GIT_WANTED = an_app().spec.digest()
PIN = Order(OrderKind.PIN, "demo-app", "anna", NOW, "too slow", revision=OLD_COMMIT, digest=GIT_WANTED)


def pinned_world(live: LiveState) -> tuple[Plan, LiveState]:
    desired = pinned(a_desired(an_app()), {"demo-app": a_desired(OLDER, revision=a_revision(commit=OLD_COMMIT))})
    return plan(desired, live, {}), live


def test_an_app_that_is_rolled_back_is_brought_to_the_older_commit_and_says_by_whom() -> None:
    made, _ = pinned_world(a_live(a_status(an_app()), artifacts=[an_artifact(an_app())], orders=[PIN]))
    (step,) = made.steps
    assert step.verb.spec == OLDER.spec  # type: ignore[union-attr]
    assert step.why == "rolled back to 4c45ada by anna: too slow" and not step.drift


@pytest.mark.parametrize(
    ("said_since", "reason"),
    [
        ({"suspend": "do not touch"}, Reason.SUSPENDED),
        ({"self_heal": "detect-only"}, Reason.SELF_HEAL_DISABLED),
        ({"depends_on": ("model",)}, Reason.DEPENDENCY_NOT_READY),
        ({"ignore": ("/max_ongoing_requests",)}, None),
    ],
)
def test_what_git_says_since_about_touching_an_app_holds_also_for_one_that_is_rolled_back(
    said_since: Any, reason: Reason | None
) -> None:
    """Only what runs goes back: it took `suspend` and its like from the old commit, too, and undid what was changed by
    hand."""
    desired = pinned(a_desired(an_app(**said_since)), {"demo-app": a_desired(OLDER)})
    by_hand = an_app(commit=OLD_COMMIT, max_ongoing_requests=99)
    made = plan(desired, a_live(a_status(by_hand), artifacts=[an_artifact(by_hand)], orders=[PIN]), {})
    assert not made.steps
    assert reasons(made) == ({"demo-app": reason} if reason else {})


def test_a_rolled_back_app_belongs_to_the_cluster_as_it_is_named_now() -> None:
    then = a_desired(an_app(commit=OLD_COMMIT, owner="as-it-was-named", secrets=a_secret()))
    before, now = then.apps["demo-app"], pinned(a_desired(an_app()), {"demo-app": then}).apps["demo-app"]
    assert (now.spec, now.secrets, now.code) == (before.spec, before.secrets, before.code)
    assert (now.provenance.owner, now.provenance.commit) == (an_app().provenance.owner, OLD_COMMIT)


def test_while_it_is_rolled_back_it_is_not_in_sync_and_not_stuck() -> None:
    made, live = pinned_world(behind(orders=[PIN]))
    assert made.empty and not made.held
    (app,) = drift.report(made, live)["apps"]
    assert (app["sync"], app["reason"], app["class"]) == ("OutOfSync", "RolledBack", "")
    found = conditions(made, live)
    assert (found[Type.READY], found[Type.STALLED], found[Type.DRIFTED]) == (Status.FALSE, Status.FALSE, Status.FALSE)
    assert "Rolled back: demo-app, rolled back to 4c45ada by anna: too slow" in text_of(made)


def test_a_hand_on_an_app_that_is_rolled_back_is_drift() -> None:
    """Caught: the newest commit compared, which it was not deployed from."""
    by_hand = an_app(commit=OLD_COMMIT, max_ongoing_requests=99)
    made, _ = pinned_world(a_live(a_status(by_hand), artifacts=[an_artifact(by_hand)], orders=[PIN]))
    assert made.steps[0].drift


def test_a_rest_that_is_longer_than_any_was_told_by_a_clock_that_was_wrong() -> None:
    def made(in_s: float) -> Plan:
        rest = Rest(1, NOW + in_s, an_app().spec.digest(), "no answer")
        return plan(a_desired(an_app()), behind(), {}, PlanOptions(resting={"demo-app": rest}))

    assert reasons(made(LONGEST_S)) == {"demo-app": Reason.BACKING_OFF}
    assert made(LONGEST_S + 1).steps and made(-1).steps


def test_while_the_older_commit_cannot_be_read_what_runs_is_kept() -> None:
    (held,) = plan_of(an_app(), behind(orders=[PIN])).held
    assert held.reason is Reason.ROLLED_BACK and "could not be read" in held.message


def test_who_runs_the_newest_commit_is_not_rolled_back() -> None:
    made = plan_of(an_app(), behind(orders=[replace(PIN, revision=COMMIT, digest="0" * 64)]))
    assert made.steps and not made.rolled_back


def test_the_pin_is_over_when_git_asks_for_something_else() -> None:
    assert plan_of(an_app(max_ongoing_requests=9), behind(orders=[PIN])).steps


# ── the gate ───────────────────────────────────────────────────────────────────────────────────────────────────────

NIGHTLY = {"windows": [{"start": "22:00", "end": "02:00", "timezone": "Europe/Stockholm"}]}
MANUAL = {"apply": "manual", "approvers": ["anna"]}


def yes_to(app: DesiredApp, live: LiveState, policy: Any) -> Order:
    """Of anna, who was shown the plan."""
    desired = a_desired(app, policy=policy)
    return an_approval(plan(desired, live, {}), desired, live)


@pytest.mark.parametrize("policy", [NIGHTLY, MANUAL, {**NIGHTLY, **MANUAL}])
def test_a_gate_changes_no_step_and_no_id(policy: Any) -> None:
    free = plan_of(an_app(), behind())
    made = plan_of(an_app(), behind(), policy=policy)
    assert (made.steps, made.id) == (free.steps, free.id) and free.gate is None and made.gate


def test_a_closed_window_says_when_the_next_one_opens() -> None:
    made = plan_of(an_app(), behind(), policy=NIGHTLY)
    assert made.gate and made.gate.reason is Reason.WINDOW_CLOSED
    assert made.gate.message == "no maintenance window is open; the next one opens 2026-11-03 22:00 CET"
    assert "Waits (WindowClosed): no maintenance window is open" in text_of(made)
    assert "**Waits (WindowClosed):**" in render_markdown(made)
    assert plan_of(an_app(), behind(at=NOW + 11 * HOUR + 1), policy=NIGHTLY).gate is None


def test_manual_waits_for_an_approval_of_this_very_plan() -> None:
    waiting = plan_of(an_app(), behind(), policy=MANUAL)
    assert waiting.gate and waiting.gate.fix == f"reconcile approve {waiting.id}"
    yes = yes_to(an_app(), behind(), MANUAL)
    approved = plan_of(an_app(), behind(orders=[yes]), policy=MANUAL)
    assert approved.gate is None and approved.id == waiting.id
    another = plan_of(an_app(kwargs={"Main": {"n": 2}}), behind(orders=[yes]), policy=MANUAL)
    assert another.gate and another.id != waiting.id
    ended = replace(yes, until=NOW - 1)
    assert plan_of(an_app(), behind(orders=[ended]), policy=MANUAL).gate


def test_a_plan_that_is_made_with_options_is_not_for_approve_but_for_a_terminal() -> None:
    made = plan(a_desired(an_app(), policy=MANUAL), behind(), {}, PlanOptions(force=True))
    assert made.gate and made.gate.fix == "say yes to it at a terminal: reconcile apply --force"


def test_an_approved_plan_waits_for_no_window() -> None:
    policy = {**NIGHTLY, **MANUAL}
    assert plan_of(an_app(), behind(orders=[yes_to(an_app(), behind(), policy)]), policy=policy).gate is None


def test_a_plan_that_only_reports_waits_for_nothing() -> None:
    policy = {**NIGHTLY, **MANUAL, "self_heal": "detect-only"}
    made = plan_of(an_app(), drifted(), policy=policy)
    assert made.gate is None and made.held


DETECT = {"self_heal": "detect-only", "approvers": ["anna"]}


@pytest.mark.parametrize("policy", [DETECT, {**DETECT, **MANUAL}, {**DETECT, **NIGHTLY}])
def test_drift_that_is_only_told_is_undone_when_somebody_approves_its_plan(policy: Any) -> None:
    told = plan_of(an_app(), drifted(), policy=policy)
    assert told.empty and told.held[0].fix.endswith(f", or reconcile approve {told.id}")
    approved = plan_of(an_app(), drifted(orders=(yes_to(an_app(), drifted(), policy),)), policy=policy)
    assert [step.address for step in approved.steps] == ["update demo-app"] and approved.steps[0].drift
    assert approved.id == told.id and approved.gate is None and not approved.held


def test_drift_is_told_again_when_the_approval_was_of_something_else() -> None:
    yes = yes_to(an_app(), drifted(), DETECT)
    for order in (replace(yes, by="ben"), replace(yes, until=NOW - 1), yes_to(an_app(), behind(), DETECT)):
        assert plan_of(an_app(), drifted(orders=(order,)), policy=DETECT).empty
    other = drifted(max_ongoing_requests=51, orders=(yes,))
    assert plan_of(an_app(), other, policy=DETECT).empty, "changed by hand again"


def test_who_approves_a_plan_with_steps_undoes_no_drift_by_it() -> None:
    desired = a_desired(an_app(), an_app("new"), policy={**DETECT, **MANUAL})

    def made(*orders: Order) -> Plan:
        return plan(desired, replace(drifted(), remembered=replace(NOTHING, orders=orders)), {})

    waiting = made()
    approved = made(an_approval(waiting, desired, drifted()))
    assert approved.steps == waiting.steps and approved.gate is None
    assert [held.reason for held in approved.held] == [Reason.SELF_HEAL_DISABLED]
    assert "approve" not in approved.held[0].fix


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (NIGHTLY, {Type.RECONCILING: Status.TRUE, Type.STALLED: Status.FALSE}),
        (MANUAL, {Type.RECONCILING: Status.FALSE, Type.STALLED: Status.TRUE}),
    ],
)
def test_a_plan_that_waits_is_said_in_the_conditions(policy: Any, expected: Any) -> None:
    live = behind()
    made = plan_of(an_app(), live, policy=policy)
    found = conditions(made, live)
    assert {kind: found[kind] for kind in expected} == expected and found[Type.READY] is Status.FALSE


def test_an_id_stays_while_nothing_changes_and_goes_when_something_does() -> None:
    one = plan_of(an_app(), behind(), policy={"windows": []})
    assert one.id.startswith("p-9c1e7d2-") and len(one.id) == len("p-9c1e7d2-") + 8
    assert plan_of(an_app(), behind(at=NOW + HOUR, seconds={"demo-app": (4.0,)})).id == one.id
    assert plan_of(an_app(), behind(status={"updating": True})).id != one.id
    assert plan_file.to_json(one, "")["id"] == one.id
