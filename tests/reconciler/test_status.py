"""What the status service answers, to whom, and what it never says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from reconciler.adapters.hypha import HyphaSession
from reconciler.adapters.reports import HyphaReports
from reconciler.adapters.status import watcher
from reconciler.adapters.status.people import Caller
from reconciler.adapters.status.service import StatusService
from reconciler.adapters.status.watcher import TooManyWatchers, Watchers
from reconciler.board import Board, NotFound
from reconciler.errors import Unreachable
from reconciler.planning.memory import Entry, Order, OrderKind
from reconciler.planning.steps import PlanOptions
from reconciler.ports import Said, StepFailed
from reconciler.reconcile import reconcile
from tests.fakes import FakeSource, FakeWorld, a_repository
from tests.reconciler.status_world import a_condition, a_drifted_app, a_plan, a_report, an_app, said

ANN = {"user": {"id": "ann-id", "email": "ann@lab.example.org"}}
BOB = {"user": {"id": "bob-id", "email": "bob@lab.example.org"}}


def a_child_of(user: dict[str, Any], **rights: str) -> dict[str, Any]:
    """As Hypha tells of a token that `user` made: with an id of its own, its maker's e-mail, and all of a workspace
    that is its own."""
    workspaces = {"lab": "r", "ws-user-child-7": "a", **rights}
    scope = {"current_workspace": "ws-user-child-7", "workspaces": workspaces}
    made = {"id": "child-7", "parent": user["id"], "email": user["email"], "scope": scope}
    return {"user": made, "to": "lab/reconciler", "ws": "lab", "from": "ws-user-child-7/app"}


ADMIN_CHILD_OF_ANN = a_child_of(ANN["user"], lab="a")
ANONYMOUS = {"user": {"id": "ann-id", "email": "ann@lab.example.org", "is_anonymous": True}}
OURSELVES = {"user": {"id": "reconciler-id", "email": ""}}


@dataclass
class FakeOrders:
    """Keeps what was ordered."""

    given: list[Order] = field(default_factory=list[Order])
    retried: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    async def give(self, order: Order) -> None:
        self.given.append(order)

    async def take_back(self, kind: OrderKind, subject: str, by: str) -> bool:  # noqa: ARG002
        before = len(self.given)
        self.given = [one for one in self.given if (one.kind, one.subject) != (kind, subject)]
        return len(self.given) < before

    async def retry(self, app_id: str, by: str) -> None:
        self.retried.append((app_id, by))


class FakeHistory:
    """A memory of which only the history is asked."""

    async def history(self, limit: int, app_id: str = "") -> Sequence[Entry]:
        entries = [
            Entry(2.0, "ann@lab.example.org", "update", "done", "one"),
            Entry(1.0, "lab", "deploy", "done", "two"),
        ]
        return [one for one in entries if not app_id or one.app_id == app_id][:limit]


def a_board(*apps: dict[str, Any], **more: Any) -> Board:
    board = Board()
    board.show(said(*apps, **more))
    return board


@pytest.fixture
def orders() -> FakeOrders:
    return FakeOrders()


@pytest.fixture
def methods(orders: FakeOrders) -> Mapping[str, Any]:
    board = a_board(an_app("one"), a_drifted_app())
    approvers = ["ann-id", "ann@lab.example.org", "*", ""]
    return StatusService(
        board,
        memory=FakeHistory(),  # type: ignore[arg-type]
        orders=orders,
        approvers=lambda: approvers,
        ourselves=lambda: Caller("reconciler-id"),
        clock=lambda: 1000.0,
    ).methods()


# ── Drift ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_change_by_hand_is_a_row_for_each_field_with_the_plan_that_would_undo_it() -> None:
    report = a_board(an_app("one"), a_drifted_app()).drift()
    assert (report["schema"], report["complete"], report["drift"]) == ("reconcile.drift/v1", True, "yes")
    first = report["apps"][0]
    assert {key: first[key] for key in ("id", "class", "path", "desired", "live", "since", "actor", "plan_id")} == {
        "id": "drifted",
        "class": "config",
        "path": "/max_ongoing_requests",
        "desired": "10",
        "live": "50",
        "since": "2026-11-03T09:12:00+00:00",
        "actor": "anna@…",
        "plan_id": "p-9c1e7d2-ab12",
    }
    assert [row["path"] for row in report["apps"]][1:] == ["/kwargs/Main/greeting", "/env/Main/MODE"]


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (an_app("a"), None),
        (an_app("a", "OutOfSync", reason="Changed"), None),
        (an_app("a", "OutOfSync", **{"class": "code"}), "code"),
        (an_app("a", health="Degraded", **{"class": "health"}), "health"),
        (an_app("a", "Unknown", "Unknown", **{"class": "unknown"}), "unknown"),
        (an_app("a", reason="DriftAccepted", **{"class": "config"}), None),
    ],
)
def test_only_what_no_commit_asked_for_is_drift(app: dict[str, Any], expected: str | None) -> None:
    assert [row["class"] for row in a_board(app).drift()["apps"]] == ([expected] if expected else [])


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(a_report(complete=False, unseen=[{"what": "worker", "why": "no answer"}]), id="nothing seen"),
        pytest.param(a_report(an_app("one"), complete=False, unseen=[{"what": "a", "why": "b"}]), id="one seen"),
        pytest.param(
            a_report(an_app("one"), complete=False, conditions=[a_condition("SourceReady", "False", message="away")]),
            id="yesterday's",
        ),
        pytest.param(a_report(complete=False), id="nobody says why"),
    ],
)
def test_an_incomplete_report_cannot_be_read_as_no_drift(report: dict[str, Any]) -> None:
    board = Board()
    board.show(Said(report, a_plan()))
    drift, status = board.drift(), board.status()
    assert drift["complete"] is False and status["complete"] is False
    assert drift["drift"] == status["drift"] == "unknown"
    assert [row["class"] for row in drift["apps"]] == ["unknown"] and drift["apps"][0]["message"]
    assert status["unseen"]


def test_apps_of_others_and_tokens_that_end_are_drift_too() -> None:
    orphan = {"id": "x", "class": "orphan", "health": "Healthy", "owner": "", "since": "", "actor": "ann@x.example.org"}
    ends = {"id": "one", "name": "*/TOKEN", "ends": "2026-11-22T00:00:00+00:00"}
    unread = {"id": "one", "name": "*/OTHER", "ends": ""}
    board = a_board(an_app("one"), orphans=[orphan], credentials=[ends, unread])
    assert [(row["id"], row["class"], row["path"]) for row in board.drift()["apps"]] == [
        ("x", "orphan", ""),
        ("one", "credential", "/secrets/*/TOKEN"),
    ]
    assert board.app("x")["owner"] == "" and board.app("x")["actor"] == "ann@…"


async def test_what_a_real_pass_says_can_be_read() -> None:
    class OnBoard:
        def __init__(self) -> None:
            self.board = Board()

        async def publish(self, said: Said) -> None:
            self.board.show(said)

    fake = FakeWorld(FakeSource(a_repository("one")), reports=OnBoard())  # type: ignore[arg-type]
    await reconcile(fake.world, PlanOptions())
    await reconcile(fake.world, PlanOptions())
    board: Board = fake.reports.board  # type: ignore[attr-defined]
    assert (board.status()["drift"], board.drift()["apps"], board.plan()["steps"]) == ("no", [], [])
    idle = board.version
    await reconcile(fake.world, PlanOptions())
    assert board.version == idle
    app = fake.runtime.apps["one"]
    assert app.spec and app.provenance
    by_hand = app.spec.model_copy(update={"max_ongoing_requests": 50})
    provenance = app.provenance.model_copy(update={"by": "ann@lab.example.org"})
    fake.runtime.apps["one"] = app.model_copy(
        update={"spec": by_hand, "digest": by_hand.digest(), "provenance": provenance}
    )
    fake.runtime.fail("apply one", StepFailed("refused"))
    await reconcile(fake.world, PlanOptions())
    (row,) = board.drift()["apps"]
    assert (row["class"], row["path"], row["live"], row["actor"]) == ("config", "/max_ongoing_requests", "50", "ann@…")
    assert row["plan_id"] == board.plan()["id"] != "" and row["since"]
    assert board.app("one")["steps"] and board.story("one")["rows"]
    fake.runtime.fail("observe")
    await reconcile(fake.world, PlanOptions())
    assert board.status()["complete"] is False and board.drift()["drift"] == "unknown"


def test_before_the_first_pass_nothing_is_known() -> None:
    assert Board().drift()["drift"] == "unknown" and Board().drift()["apps"]
    assert Board().status()["age_s"] is None


def test_drift_that_was_seen_is_told_although_something_else_was_not() -> None:
    board = a_board(a_drifted_app(), complete=False, unseen=[{"what": "artifacts", "why": "no answer"}])
    assert board.drift()["drift"] == "yes"
    assert board.drift()["apps"][-1]["id"] == "*"


# ── What is never said ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_no_parameter_variable_log_or_email_is_told_to_anybody(methods: Mapping[str, Any]) -> None:
    asked = [("get_status",), ("get_app", "drifted"), ("get_drift",), ("get_plan",), ("get_history",)]
    told = [await methods[name](*args, context=ANN) for name, *args in [*asked, ("explain", "drifted")]]
    event = await anext(await methods["watch"](context=BOB))
    text = json.dumps([*told, event], ensure_ascii=False)
    for private in ("parameter-", "variable-", "lab.example.org", "a line of the log", "/run/secrets"):
        assert private not in text
    assert "anna@…" in text and "max_ongoing_requests" in text and "kwargs.Main.greeting" in text


def test_ss_01_the_values_of_secrets_are_blotted_out_of_everything() -> None:
    board = Board(masked=lambda text: text.replace("canary-value", "(secret)"))
    plan = a_plan(problems=[{"where": "cluster.yaml:1", "message": "canary-value", "fix": ""}])
    app = an_app("one", "OutOfSync", "Degraded", message="cannot log in with canary-value", **{"class": "health"})
    board.show(
        Said(a_report(app, notes=["canary-value"]), plan, lambda _: {"rows": [{"name": "a", "text": "canary-value"}]})
    )
    text = json.dumps([board.status(), board.drift(), board.plan(), board.app("one"), board.story("one")])
    assert "canary-value" not in text and text.count("(secret)") >= 6


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("changed by anna@lab.example.org, today", "changed by anna@…, today"),
        ("Fix (by <a.b+c@x.io>)", "Fix (by <a.b+c@…>)"),
        ("upload ws/cellpose@1.0.0-g9c41d20be113", "upload ws/cellpose@1.0.0-g9c41d20be113"),
        ("main@sha1:9c1e7d2", "main@sha1:9c1e7d2"),
    ],
)
def test_addresses_of_people_are_cut_and_versions_are_not(text: str, shown: str) -> None:
    assert Board().public({"message": [text]}) == {"message": [shown]}


# ── Asking ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_app_that_is_not_there_is_a_clear_error(methods: Mapping[str, Any]) -> None:
    for name in ("get_app", "explain"):
        with pytest.raises(Exception, match="not found") as error:
            await methods[name](app_id="driftet", context=BOB)
        assert 'did you mean "drifted"?' in str(error.value)
        assert type(error.value).__name__ == "NotFound"


async def test_the_history_is_told_newest_first_and_for_one_app(methods: Mapping[str, Any]) -> None:
    assert [one["app_id"] for one in await methods["get_history"](context=BOB)] == ["one", "two"]
    assert [one["by"] for one in await methods["get_history"](limit=5, app_id="one", context=BOB)] == ["ann@…"]


def test_every_method_says_what_it_wants(methods: Mapping[str, Any]) -> None:
    for name, method in methods.items():
        schema = method.__schema__
        assert schema["name"] == name and len(schema["description"]) > 20
        properties = schema["parameters"]["properties"]
        assert not {"caller", "context", "self"} & properties.keys()
        assert all(one["description"] for one in properties.values())
    assert methods["suspend"].__schema__["parameters"]["required"] == ["app_id", "reason"]
    assert methods["get_status"].__schema__["parameters"]["properties"] == {}


@pytest.mark.parametrize(
    ("name", "arguments", "wrong"),
    [
        ("get_history", {"limit": 0}, "limit"),
        ("get_history", {"limit": 10**6}, "limit"),
        ("get_app", {}, "app_id"),
        ("get_status", {"verbose": True}, "verbose"),
        ("rollback", {"app_id": "one", "to": "--upload-pack=x"}, "to"),
        ("suspend", {"app_id": "one", "reason": "", "until": None}, "reason"),
        ("suspend", {"app_id": "one", "reason": "x", "until": "2026-01-01T00:00:00"}, "until"),
    ],
)
async def test_wrong_arguments_are_named_and_not_repeated(
    methods: Mapping[str, Any], orders: FakeOrders, name: str, arguments: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(Exception, match=wrong) as error:
        await methods[name](**arguments, context=ANN)
    assert type(error.value).__name__ == "ValueError" and "upload-pack" not in str(error.value)
    assert not orders.given


async def test_a_fault_of_ours_says_nothing_of_our_insides() -> None:
    board = Board()
    board.show(Said(a_report(an_app("one")), a_plan(), lambda _: {}["secret-key"]))
    with pytest.raises(Exception, match="log says more") as error:
        await StatusService(board).methods()["explain"]("one", context=BOB)
    assert "secret-key" not in str(error.value)


# ── Ordering ───────────────────────────────────────────────────────────────────────────────────────────────────────

ORDERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("approve", {"plan_id": "p-9c1e7d2-ab12"}),
    ("suspend", {"app_id": "one", "reason": "demo"}),
    ("resume", {"app_id": "one"}),
    ("rollback", {"app_id": "one"}),
    ("retry", {"app_id": "one"}),
)


@pytest.mark.parametrize(("name", "arguments"), ORDERS)
@pytest.mark.parametrize(
    "context",
    [
        BOB,
        ANONYMOUS,
        None,
        {},
        {"user": None},
        {"user": {"id": "*"}},
        {"user": {}},
        pytest.param(a_child_of(ANN["user"]), id="what ann lets an app read with"),
        pytest.param(a_child_of(ANN["user"], lab="rw"), id="what ann lets an app write with"),
        pytest.param(a_child_of(ANN["user"], elsewhere="a"), id="what ann administers another workspace with"),
        pytest.param(a_child_of({"id": "reconciler-id", "email": ""}), id="what the reconciler's token made"),
        pytest.param({**a_child_of(ANN["user"], lab="a"), "to": ""}, id="nobody knows where"),
        pytest.param({"user": {**ANN["user"], "id": "child-7", "parent": "ann-id"}, "to": "lab/x"}, id="no rights"),
    ],
)
async def test_nobody_but_those_who_are_named_may_order(
    methods: Mapping[str, Any], orders: FakeOrders, name: str, arguments: dict[str, Any], context: Any
) -> None:
    with pytest.raises(Exception, match=r"policy\.approvers") as error:
        await methods[name](**arguments, context=context)
    assert type(error.value).__name__ == "PermissionError"
    assert not orders.given and not orders.retried


@pytest.mark.parametrize("context", [ANN, ADMIN_CHILD_OF_ANN, OURSELVES, {"user": {"email": "ann@lab.example.org"}}])
async def test_those_who_are_named_may_order(methods: Mapping[str, Any], orders: FakeOrders, context: Any) -> None:
    assert (await methods["approve"]("p-9c1e7d2-ab12", "looks fine", context=context))["accepted"] is True
    (order,) = orders.given
    assert (order.kind, order.subject, order.reason) == (OrderKind.APPROVE, "p-9c1e7d2-ab12", "looks fine")
    assert order.at == 1000.0 and order.by and order.revision.startswith("9c1e7d2")


async def test_who_may_prune_may_approve_and_order_nothing_else(orders: FakeOrders) -> None:
    board, pruners = a_board(an_app("one")), ["bob@lab.example.org"]
    methods = StatusService(board, orders=orders, pruners=lambda: pruners).methods()
    assert (await methods["approve"]("p-9c1e7d2-ab12", context=BOB))["accepted"] is True
    (order,) = orders.given
    assert (order.by, order.by_id) == ("bob@lab.example.org", "bob-id"), "by whatever name he may, it is known"
    for name, arguments in ORDERS:
        with pytest.raises(Exception, match="may not"):
            await methods[name](**arguments, context=ANN if name == "approve" else BOB)
    assert orders.given == [order] and not orders.retried


@pytest.mark.parametrize(("name", "arguments"), ORDERS)
async def test_an_order_for_another_cluster_is_refused(
    methods: Mapping[str, Any], orders: FakeOrders, name: str, arguments: dict[str, Any]
) -> None:
    """Two clusters of one workspace have by default one id for this service."""
    with pytest.raises(Exception, match=f"keeps {a_report()['target']}, not staging"):
        await methods[name](**arguments, cluster="staging", context=ANN)
    assert not orders.given and not orders.retried


async def test_an_order_for_this_cluster_is_taken(methods: Mapping[str, Any], orders: FakeOrders) -> None:
    await methods["retry"]("one", cluster=a_report()["target"], context=ANN)
    assert orders.retried == [("one", "ann@lab.example.org")]


async def test_whoever_sends_an_identity_is_not_believed(methods: Mapping[str, Any], orders: FakeOrders) -> None:
    with pytest.raises(Exception, match="user"):
        await methods["retry"]("one", user={"id": "ann-id"}, context=BOB)
    assert not orders.retried


async def test_only_the_plan_of_now_can_be_approved(methods: Mapping[str, Any], orders: FakeOrders) -> None:
    with pytest.raises(Exception, match="p-9c1e7d2-ab12"):
        await methods["approve"]("p-0000000-0000", context=ANN)
    assert not orders.given


async def test_an_app_is_suspended_until_then_and_resumed(methods: Mapping[str, Any], orders: FakeOrders) -> None:
    await methods["suspend"]("one", "demo today", "1970-01-01T01:00:00+00:00", context=ANN)
    assert [(one.subject, one.reason, one.until) for one in orders.given] == [("one", "demo today", 3600.0)]
    await methods["resume"]("one", context=ANN)
    assert not orders.given
    with pytest.raises(Exception, match="a commit resumes"):
        await methods["resume"]("one", context=ANN)


async def test_an_app_goes_back_to_a_commit_or_to_the_last_good_one(
    methods: Mapping[str, Any], orders: FakeOrders
) -> None:
    await methods["rollback"]("one", "a1b2c3d", context=ANN)
    await methods["rollback"]("one", context=ANN)
    assert [(one.kind, one.subject, one.revision) for one in orders.given] == [
        (OrderKind.PIN, "one", "a1b2c3d"),
        (OrderKind.PIN, "one", ""),
    ]
    await methods["retry"]("one", context=ANN)
    assert orders.retried == [("one", "ann@lab.example.org")]


@pytest.mark.parametrize("name", ["suspend", "rollback", "retry", "resume"])
async def test_no_order_is_taken_for_an_app_that_is_not_there(
    methods: Mapping[str, Any], orders: FakeOrders, name: str
) -> None:
    with pytest.raises(Exception, match="not found"):
        await methods[name](app_id="two", **({"reason": "x"} if name == "suspend" else {}), context=ANN)
    assert not orders.given and not orders.retried


async def test_a_reconciler_that_takes_no_orders_says_so() -> None:
    methods = StatusService(a_board(an_app("one")), approvers=lambda: ["ann-id"]).methods()
    with pytest.raises(Exception, match="takes no orders"):
        await methods["retry"]("one", context=ANN)


# ── Watching ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_watcher_gets_everything_and_then_what_changed() -> None:
    board = a_board(an_app("one"), an_app("still"), an_app("two"), conditions=[a_condition("Ready")])
    watching = await Watchers(board).join()
    first = await anext(watching)
    assert first["event"] == "snapshot" and [app["id"] for app in first["apps"]] == ["one", "still", "two"]
    board.show(said(an_app("one", "OutOfSync"), an_app("still"), conditions=[a_condition("Ready", "False")]))
    then = await anext(watching)
    assert then["event"] == "changes" and [app["id"] for app in then["apps"]] == ["one"] and then["gone"] == ["two"]
    assert [one["status"] for one in then["conditions"]] == ["False"]


async def test_a_slow_watcher_gets_several_changes_as_one() -> None:
    board = a_board(an_app("one"))
    watching = await Watchers(board, sign_of_life_s=0.01).join()
    await anext(watching)
    for number in range(1000):
        board.show(said(an_app("one", message=str(number)), an_app(f"app-{number}")))
    event = await anext(watching)
    assert event["event"] == "changes" and [app["id"] for app in event["apps"]] == ["one", "app-999"]
    assert event["gone"] == []
    assert (await anext(watching))["event"] == "alive"


async def test_a_waiting_watcher_is_told_at_once_and_an_idle_pass_tells_nobody() -> None:
    board = a_board(an_app("one"))
    watching = await Watchers(board, sign_of_life_s=30).join()
    await anext(watching)
    asking = asyncio.ensure_future(anext(watching))
    board.show(said(an_app("one"), observed_at="2026-11-21T09:01:00+00:00"))
    await asyncio.sleep(0.02)
    assert not asking.done()
    board.show(said(an_app("one", "OutOfSync")))
    assert (await asyncio.wait_for(asking, 5))["event"] == "changes"


async def test_who_stopped_asking_is_let_go_and_who_waits_is_not() -> None:
    now = 0.0
    watchers = Watchers(a_board(an_app("one")), clock=lambda: now, sign_of_life_s=30)
    gone, waiting = await watchers.join(), await watchers.join()
    await anext(gone)
    await anext(waiting)
    asking = asyncio.ensure_future(anext(waiting))
    await asyncio.sleep(0)
    now = watcher.LET_GO_AFTER_S + 1
    assert await watchers.sweep() == 1
    with pytest.raises(StopAsyncIteration):
        await anext(gone)
    await waiting.aclose()
    asking.cancel()
    assert await watchers.sweep() == 0


async def test_not_everybody_in_the_world_can_watch_at_once() -> None:
    watchers = Watchers(a_board())
    for _ in range(watcher.WATCHERS):
        await watchers.join()
    with pytest.raises(TooManyWatchers, match="watch already"):
        await watchers.join()


# ── On Hypha ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Connection:
    """What hypha-rpc calls a server."""

    def __init__(self) -> None:
        self.config = type("Config", (), {"user": {"id": "reconciler-id"}, "workspace": "lab"})
        self.registered: list[dict[str, Any]] = []


class FakeSession:
    """A session that can lose its connection."""

    def __init__(self) -> None:
        self.now: Connection | None = Connection()
        self.calls = self.restarts = 0

    async def connection(self) -> Connection:
        if self.now is None:
            raise Unreachable("nobody there")
        return self.now

    async def register(self, service: dict[str, Any]) -> str:
        self.calls += 1
        (await self.connection()).registered.append(service)
        return service["id"]


def reports_on(session: FakeSession, **more: Any) -> HyphaReports:
    as_session: HyphaSession = session  # type: ignore[assignment]
    return HyphaReports(as_session, "reconcile-status", **more)


async def test_an_idle_pass_costs_no_call() -> None:
    session = FakeSession()
    reports = reports_on(session)
    for minute in range(5):
        await reports.publish(said(an_app("one"), observed_at=f"2026-11-21T09:0{minute}:00+00:00"))
    assert session.calls == 1
    (service,) = (await session.connection()).registered
    assert service["config"] == {"visibility": "protected", "require_context": True}
    assert (await service["get_status"](context=BOB))["observed_at"] == "2026-11-21T09:04:00+00:00"


async def test_after_an_outage_the_service_comes_back_with_the_last_report() -> None:
    session, board = FakeSession(), Board()
    reports = reports_on(session, board=board)
    await reports.publish(said(an_app("one")))
    first = (await session.connection()).registered[0]
    session.now = None
    with pytest.raises(Unreachable):
        await reports.publish(said(an_app("one", "OutOfSync")))
    assert board.status()["apps"][0]["sync"] == "OutOfSync"  # whoever reads it here knows already
    session.now = Connection()
    await reports.publish(said(an_app("one", "OutOfSync")))
    (again,) = session.now.registered
    assert (await again["get_status"](context=BOB))["apps"][0]["sync"] == "OutOfSync"
    assert again["get_status"] is not first["get_status"]


async def test_after_a_restart_of_hypha_the_service_is_offered_again_on_the_same_connection() -> None:
    """hypha-rpc connects again by itself, and offers again what it can; a process that was paused meanwhile could not
    count on it, and was found by nobody until its end."""
    session = FakeSession()
    reports = reports_on(session)
    await reports.publish(said(an_app("one")))
    session.restarts += 1
    await reports.publish(said(an_app("one")))
    await reports.publish(said(an_app("one")))
    assert session.calls == 2


async def test_nobody_reaches_orders_by_being_the_reconciler_of_another_connection() -> None:
    session, orders = FakeSession(), FakeOrders()
    reports = reports_on(session, orders=orders)
    await reports.publish(said(an_app("one")))
    (service,) = (await session.connection()).registered
    await service["retry"]("one", context=OURSELVES)
    with pytest.raises(Exception, match=r"policy\.approvers"):
        await service["retry"]("one", context=ANN)
    assert orders.retried == [("one", "reconciler-id")]


def test_unknown_names_get_no_guess_when_none_is_near() -> None:
    with pytest.raises(NotFound) as error:
        a_board(an_app("one")).known("zzz")
    assert error.value.hint == "there are one"
