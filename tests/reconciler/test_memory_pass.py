"""A pass that remembers: who may write, what it learns, what it notes, and what it does when the memory is away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from bioengine_runtime.contract.status import Rejection
from reconciler.apply import Ended, Event, Started
from reconciler.errors import HeldElsewhere, LeaseLost, SourceUnusable, Spoiled, Unreachable
from reconciler.history import Outbox
from reconciler.lease import Lease, this_host
from reconciler.planning.memory import Entry, Order, OrderKind, Remembered
from reconciler.planning.people import NOBODY, Person
from reconciler.planning.steps import Gate, PlanOptions, Reason, Result
from reconciler.reconcile import carry_out, look, reconcile, tell_trouble
from tests.builders import a_cluster
from tests.fakes import FakeMemory, FakeSecrets, FakeSource, FakeWorld, a_repository, an_app_folder

NOTHING_ASKED = PlanOptions()
ALIVE = os.getppid()


def a_lease(name: str = "anna", *, pid: int = ALIVE, ttl_s: float = 60.0) -> Lease:
    return Lease(name, settle_s=0.0, pid=pid, ttl_s=ttl_s)


def a_world(*apps: str, cluster: str = "", **fakes: object) -> FakeWorld:
    source = FakeSource(a_repository(*apps, cluster=cluster))
    return FakeWorld(source, memory=FakeMemory(), lease=a_lease(), **fakes)  # type: ignore[arg-type]


def memory_of(fake: FakeWorld) -> FakeMemory:
    assert fake.memory
    return fake.memory


def said(fake: FakeWorld) -> list[tuple[str, str]]:
    return [(entry.what.split("@")[0], entry.result) for entry in memory_of(fake).entries]


def taken_over(fake: FakeWorld, name: str = "next") -> None:
    holder = memory_of(fake).remembered.holder
    assert holder
    memory_of(fake).remembered = Remembered(replace(holder, name=name, pid=1, epoch=holder.epoch + 1))


# ── one writer ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_rx_01_a_second_reconciler_is_refused_also_while_there_is_nothing_to_do() -> None:
    fake = a_world("one")
    await reconcile(fake.world, NOTHING_ASKED)
    await reconcile(fake.world, NOTHING_ASKED)
    fake.lease = a_lease("ben", pid=1)
    fake.forget_calls()
    with pytest.raises(HeldElsewhere, match=f"anna .*{this_host()}") as refused:
        await reconcile(fake.world, NOTHING_ASKED)
    assert refused.value.exit_code == 75 and not fake.writes


async def test_rx_02_the_steps_after_the_lease_was_lost_are_not_begun() -> None:
    fake = a_world("one", cluster="policy: {parallel: 1}\n")
    events: list[Event] = []

    def lose_it_during_the_first(event: Event) -> None:
        events.append(event)
        if isinstance(event, Started):
            taken_over(fake)

    with pytest.raises(LeaseLost, match="next"):
        await reconcile(fake.world, NOTHING_ASKED, tell=lose_it_during_the_first)
    ended = [event.outcome for event in events if isinstance(event, Ended)]
    assert [outcome.result for outcome in ended] == [Result.DONE, Result.SKIPPED, Result.SKIPPED]
    assert "next (process 1" in ended[1].message
    assert fake.artifacts.writes and not fake.runtime.writes  # what was begun was finished
    assert not fake.reports.published and memory_of(fake).remembered.holder
    assert said(fake) == [("upload one", "done")]


async def test_rx_03_an_apply_by_hand_is_refused_while_another_one_keeps_the_cluster() -> None:
    fake = a_world("one")
    await reconcile(fake.world, NOTHING_ASKED)
    fake.source.commit(an_app_folder("one", says="2"))
    fake.lease = a_lease("by hand", pid=1)
    seen = await look(fake.world, NOTHING_ASKED)
    fake.forget_calls()
    with pytest.raises(HeldElsewhere, match="anna"):
        await carry_out(fake.world, seen, approved=True)
    assert not fake.writes


async def test_an_apply_that_has_nothing_to_do_takes_no_lease() -> None:
    fake = a_world("one")
    await reconcile(fake.world, NOTHING_ASKED)
    fake.lease = a_lease("by hand", pid=1)
    fake.forget_calls()
    await carry_out(fake.world, await look(fake.world, NOTHING_ASKED))
    assert not fake.writes


async def test_a_pass_that_changes_nothing_reads_once_and_writes_nothing() -> None:
    fake = a_world("one")
    for _ in range(2):
        await reconcile(fake.world, NOTHING_ASKED)
    fake.forget_calls()
    await reconcile(fake.world, NOTHING_ASKED)
    assert memory_of(fake).calls == ["read"] and not fake.writes


# ── a memory that is away or spoiled ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [Unreachable("Hypha is away"), Spoiled("it was changed by somebody")])
async def test_rc_12_without_what_is_remembered_nothing_is_written(error: Exception) -> None:
    fake = a_world("one")
    memory_of(fake).fail("read", error)
    seen = await look(fake.world, NOTHING_ASKED)
    assert seen.live.remembered is None and [unseen.what for unseen in seen.live.unseen] == ["memory"]
    try:
        done = await reconcile(fake.world, NOTHING_ASKED)
        assert done.report["complete"] is False
    except Unreachable as stopped:
        assert str(stopped) == str(error)
    assert not fake.runtime.apps and not fake.artifacts.artifacts


async def test_who_never_saw_what_is_remembered_publishes_nothing() -> None:
    """A second reconciler with a key of its own would answer beside the healthy one."""
    fake = a_world("one")
    memory_of(fake).fail("read", Spoiled("sealed with another key"))
    await reconcile(fake.world, NOTHING_ASKED)
    await tell_trouble(fake.world, SourceUnusable("main is gone"))
    assert not fake.reports.published
    memory_of(fake).heal()
    await reconcile(fake.world, NOTHING_ASKED)
    memory_of(fake).fail("read", Unreachable("Hypha is away"))
    await reconcile(fake.world, NOTHING_ASKED)
    assert [report["complete"] for report in fake.reports.published] == [True, False]


class Other:
    """A reconciler that answers for the cluster it keeps; None: nobody answers."""

    def __init__(self, target: str | None) -> None:
        self._target = target

    async def order(self, method: str, arguments: Mapping[str, Any]) -> Any:
        assert (method, arguments) == ("get_status", {})
        if self._target is None:
            raise Unreachable("nobody offers it")
        return {"target": self._target}

    async def answers(self) -> bool:
        return self._target is not None

    async def me(self) -> Person:
        return NOBODY


@pytest.mark.parametrize(("target", "ends"), [("lab", True), ("another-lab", False), (None, False)])
async def test_a_second_reconciler_with_a_key_of_its_own_ends(target: str | None, ends: bool) -> None:
    fake = a_world("one")
    there = replace(fake.world.hypha(a_cluster()), running=Other(target))
    world = replace(fake.world, hypha=lambda _: there)
    memory_of(fake).fail("read", Spoiled("sealed with another key"))
    if ends:
        with pytest.raises(HeldElsewhere, match="another reconciler keeps lab") as refused:
            await reconcile(world, NOTHING_ASKED)
        assert refused.value.exit_code == 75 and "RECONCILE_KEY_FILE" in refused.value.hint
    else:
        await reconcile(world, NOTHING_ASKED)
    assert not fake.writes


async def test_who_had_the_lease_does_not_take_itself_for_another() -> None:
    fake = a_world("one")
    there = replace(fake.world.hypha(a_cluster()), running=Other("lab"))
    world = replace(fake.world, hypha=lambda _: there)
    await reconcile(world, NOTHING_ASKED)
    memory_of(fake).fail("read", Spoiled("somebody wrote into it"))
    assert (await reconcile(world, NOTHING_ASKED)).report["complete"] is False


async def test_a_step_is_not_begun_when_nobody_can_tell_who_has_the_lease() -> None:
    fake = a_world("one")

    def away(event: Event) -> None:
        if isinstance(event, Started):
            memory_of(fake).fail("read")

    done = await reconcile(fake.world, NOTHING_ASKED, tell=away)
    assert [outcome.result for outcome in done.outcomes] == [Result.DONE, Result.FAILED, Result.SKIPPED]
    assert not fake.runtime.apps


async def test_history_that_cannot_be_written_goes_with_the_next_pass() -> None:
    fake = a_world("one")
    memory_of(fake).fail("append")
    assert not (await reconcile(fake.world, NOTHING_ASKED)).failed
    assert said(fake) == []
    memory_of(fake).heal()
    await reconcile(fake.world, NOTHING_ASKED)
    assert said(fake) == [("upload one", "done"), ("prepare one", "done"), ("deploy one", "done")]


async def test_an_order_and_a_pass_that_note_something_at_once_are_both_noted_and_once() -> None:
    sent: list[str] = []

    async def recall() -> list[Entry]:
        return []

    async def send(entries: Sequence[Entry]) -> None:
        await asyncio.sleep(0)
        sent.extend(entry.what for entry in entries)

    outbox = Outbox(recall, send)
    await asyncio.gather(*(outbox.add([Entry(1.0, "anna", what, "ordered")]) for what in ("retry one", "suspend two")))
    assert sent == ["retry one", "suspend two"]


async def test_rx_hypha_restarts_in_mid_apply_and_the_next_pass_ends_it() -> None:
    fake = a_world("one", "two", cluster="policy: {parallel: 1}\n")
    ports = (fake.artifacts, fake.runtime, fake.reports, memory_of(fake))

    def away(event: Event) -> None:
        if isinstance(event, Started) and event.step.address.startswith("prepare one"):
            for port, methods in zip(
                ports, (("upload",), ("prepare", "apply"), ("publish",), ("append",)), strict=True
            ):
                for method in methods:
                    port.fail(method)

    first = await reconcile(fake.world, NOTHING_ASKED, tell=away)
    assert first.failed and not fake.runtime.apps and not fake.reports.published
    for port in ports:
        port.heal()
    await reconcile(fake.world, NOTHING_ASKED)
    assert fake.runtime.apps.keys() == {"one", "two"}
    assert fake.reports.published[-1]["commit"] == fake.source.head
    assert ("prepare one", "failed") in said(fake) and ("deploy one", "done") in said(fake)


async def test_after_an_outage_the_report_is_published_again_though_nothing_changed() -> None:
    fake = a_world("one")
    for _ in range(2):
        await reconcile(fake.world, NOTHING_ASKED)
    fake.reports.fail("publish")
    fake.reports.published.clear()
    await reconcile(fake.world, NOTHING_ASKED)
    fake.reports.heal()
    await reconcile(fake.world, NOTHING_ASKED)
    assert len(fake.reports.published) == 1 and fake.reports.published[0]["complete"]


async def test_a_report_made_during_an_outage_is_sent_after_it_also_when_git_is_away_then() -> None:
    fake = a_world("one")
    fake.reports.fail("publish")
    await reconcile(fake.world, NOTHING_ASKED)
    fake.reports.heal()
    await tell_trouble(fake.world, Unreachable("git is away"))
    assert fake.reports.published[-1]["apps"][0]["id"] == "one"
    assert fake.reports.published[-1]["complete"] is False


# ── what it does when things move meanwhile ────────────────────────────────────────────────────────────────────────


async def test_rx_05_a_commit_during_an_apply_lets_the_step_in_flight_end_and_replans() -> None:
    fake = a_world("one", "two", cluster="policy: {parallel: 1}\n")
    first = fake.source.head
    woken = False

    def push(event: Event) -> None:
        nonlocal woken
        if isinstance(event, Started) and not woken:
            woken = True
            fake.source.commit(an_app_folder("one", says="newer"))

    done = await reconcile(fake.world, NOTHING_ASKED, tell=push, woken=lambda: woken)
    results = [outcome.result for outcome in done.outcomes]
    assert results.count(Result.DONE) == 1 and results.count(Result.SKIPPED) == len(results) - 1
    assert fake.source.head[:7] in next(o.message for o in done.outcomes if o.result is Result.SKIPPED)
    superseded = [entry for entry in memory_of(fake).entries if entry.result == "superseded"]
    assert [(entry.revision, entry.details["by"]) for entry in superseded] == [(first, fake.source.head)]
    woken = False
    await reconcile(fake.world, NOTHING_ASKED)
    provenance = fake.runtime.apps["one"].provenance
    assert provenance and provenance.commit == fake.source.head and "two" in fake.runtime.apps


@pytest.mark.parametrize("kind", [OrderKind.SUSPEND, OrderKind.PIN])
async def test_an_app_that_somebody_gave_an_order_for_meanwhile_is_not_touched(kind: OrderKind) -> None:
    fake = a_world("one", "two", cluster="policy: {parallel: 1}\n")

    def order(event: Event) -> None:
        if isinstance(event, Ended) and event.step.address == "deploy one":
            remembered = memory_of(fake).remembered
            given = Order(kind, "two", "anna@lab.example", 0.0, revision=fake.source.head)
            memory_of(fake).remembered = replace(remembered, orders=(given,))

    done = await reconcile(fake.world, NOTHING_ASKED, tell=order)
    assert fake.runtime.apps.keys() == {"one"}
    assert f"anna@lab.example ordered meanwhile: {kind}" in " ".join(outcome.message for outcome in done.failed)


async def test_what_was_ordered_before_the_look_or_of_another_app_speaks_against_nothing() -> None:
    fake = a_world("one", "two", cluster="policy: {parallel: 1}\n")
    memory_of(fake).remembered = Remembered(orders=(Order(OrderKind.SUSPEND, "two", "anna", 0.0, until=1.0),))

    def order(event: Event) -> None:  # noqa: ARG001
        remembered = memory_of(fake).remembered
        memory_of(fake).remembered = replace(
            remembered, orders=(*remembered.orders, Order(OrderKind.SUSPEND, "else", "anna", 0.0))
        )

    assert not (await reconcile(fake.world, NOTHING_ASKED, tell=order)).failed


WINDOW = "policy: {parallel: 1, windows: [{start: '08:00', end: '16:00', timezone: UTC}]}\n"
IN_IT, AFTER_IT = (
    1_795_000_000.0 - 1_795_000_000 % 86400 + 12 * 3600,
    1_795_000_000.0 - 1_795_000_000 % 86400 + 20 * 3600,
)


@pytest.mark.parametrize(("ends", "approved", "deployed"), [(True, False, 1), (False, False, 2), (True, True, 2)])
async def test_when_its_window_closes_in_mid_apply_the_rest_waits(ends: bool, approved: bool, deployed: int) -> None:
    fake = a_world("one", "two", cluster=WINDOW)
    seen = await look(fake.world, NOTHING_ASKED)
    seen = replace(seen, live=replace(seen.live, observed_at=IN_IT), plan=replace(seen.plan, gate=None))

    def clock() -> float:
        return AFTER_IT if ends and fake.runtime.apps else IN_IT

    done = await carry_out(fake.world, seen, approved=approved, clock=clock)
    assert len(fake.runtime.apps) == deployed
    closed = [outcome.message for outcome in done.failed]
    assert bool(closed) == (deployed < 2) and all("needs" in one or "window is open" in one for one in closed)


async def test_rx_05_news_that_are_no_commit_stop_nothing() -> None:
    fake = a_world("one")
    done = await reconcile(fake.world, NOTHING_ASKED, woken=lambda: True)
    assert not done.failed and fake.runtime.apps.keys() == {"one"}


async def test_rx_07_what_the_worker_starts_again_by_itself_is_not_fought() -> None:
    fake = a_world("one")
    await reconcile(fake.world, NOTHING_ASKED)
    app = fake.runtime.apps["one"]
    restarted = [replica.model_copy(update={"pid": 999, "replica_id": "r2"}) for replica in app.replicas]
    fake.runtime.apps["one"] = app.model_copy(update={"replicas": restarted, "last_updated_at": 1.0})
    fake.forget_calls()
    assert (await reconcile(fake.world, NOTHING_ASKED)).look.plan.empty and not fake.writes


async def test_rx_08_a_resumed_app_gets_the_newest_commit_in_one_apply() -> None:
    suspended = "    suspend: true\n"
    fake = a_world("one")
    await reconcile(fake.world, NOTHING_ASKED)
    fake.source.commit(a_repository("one", one=suspended))
    for number in range(3):
        fake.source.commit(an_app_folder("one", says=f"pong {number}"))
        fake.forget_calls()
        await reconcile(fake.world, NOTHING_ASKED)
        assert not fake.artifacts.writes and not fake.runtime.writes
    fake.source.commit({**a_repository("one"), **an_app_folder("one", says="pong 2")})
    await reconcile(fake.world, NOTHING_ASKED)
    assert fake.runtime.writes == ["prepare one", "apply one"]
    provenance = fake.runtime.apps["one"].provenance
    assert provenance and provenance.commit == fake.source.head


async def test_a_plan_behind_a_gate_is_shown_and_done_only_by_who_approved_it() -> None:
    fake = a_world("one")
    seen = await look(fake.world, NOTHING_ASKED)
    gate = Gate(Reason.APPROVAL_REQUIRED, "a person is to say yes", "reconcile approve")
    gated = replace(seen, plan=replace(seen.plan, gate=gate))
    fake.forget_calls()
    done = await carry_out(fake.world, gated)
    assert done.outcomes == () and not fake.writes and fake.reports.published
    assert [(app["id"], app["sync"]) for app in done.report["apps"]] == [("one", "OutOfSync")]
    assert not (await carry_out(fake.world, gated, approved=True)).failed
    assert fake.runtime.apps.keys() == {"one"}


async def test_an_app_that_was_rolled_back_runs_what_its_older_commit_asked_for() -> None:
    fake = a_world("one", "two")
    older = FakeSource(a_repository("one", "two"))
    await reconcile(fake.world, NOTHING_ASKED)
    fake.source.commit({**an_app_folder("one", says="worse"), **an_app_folder("two", says="better")})
    seen = await look(fake.world, NOTHING_ASKED)
    pin = Order(OrderKind.PIN, "one", "anna", 1.0, revision=older.head, digest=seen.asked.apps["one"].spec.digest())
    memory_of(fake).remembered = replace(memory_of(fake).remembered, orders=(pin,))
    world = replace(fake.world, at=lambda revision: {older.head: older}[revision])
    before = fake.runtime.apps["one"]
    fake.forget_calls()
    done = await reconcile(world, NOTHING_ASKED)
    assert {outcome.address for outcome in done.outcomes if outcome.address.startswith("update")} == {"update two"}
    assert fake.runtime.apps["one"] == before
    assert done.look.asked.apps["one"] != done.look.desired.apps["one"]


@pytest.mark.parametrize(
    "then",
    [
        pytest.param(SourceUnusable("the commit is not here"), id="gone"),
        pytest.param(Unreachable("git is away"), id="away"),
        pytest.param({"cluster.yaml": "name: lab\napps: 3\n"}, id="invalid"),
    ],
)
async def test_a_commit_to_go_back_to_that_cannot_be_read_holds_its_own_app_and_no_other(then: Any) -> None:
    """It stopped the pass, and with it the changes of every app."""
    fake = a_world("one", "two")
    await reconcile(fake.world, NOTHING_ASKED)
    older = FakeSource(then if isinstance(then, dict) else a_repository("one", "two"))
    if isinstance(then, Exception):
        older.fail("fetch", then)
    fake.source.commit({**an_app_folder("one", says="worse"), **an_app_folder("two", says="better")})
    asked = (await look(fake.world, NOTHING_ASKED)).asked
    pin = Order(OrderKind.PIN, "one", "anna", 1.0, revision=older.head, digest=asked.apps["one"].spec.digest())
    memory_of(fake).remembered = replace(memory_of(fake).remembered, orders=(pin,))
    done = await reconcile(replace(fake.world, at=lambda _: older), NOTHING_ASKED)
    assert {outcome.address for outcome in done.outcomes if outcome.address.startswith("update")} == {"update two"}
    assert [(held.app_id, held.reason) for held in done.look.plan.held] == [("one", Reason.ROLLED_BACK)]
    assert done.report["complete"]


# ── what it learns and notes ───────────────────────────────────────────────────────────────────────────────────────


async def test_it_learns_how_long_an_app_takes_to_come_up() -> None:
    fake = a_world("one", "two")
    for number in range(7):
        fake.runtime.slow = {"one"}
        fake.source.commit(an_app_folder("one", says=f"pong {number}"))
        await reconcile(fake.world, NOTHING_ASKED)
        await reconcile(fake.world, NOTHING_ASKED)
        app = fake.runtime.apps["one"]
        came_up = {"status": "RUNNING", "last_updated_at": (app.last_updated_at or 0.0) - 40 - number}
        fake.runtime.apps["one"] = app.model_copy(update=came_up)
        await reconcile(fake.world, NOTHING_ASKED)
    seconds = memory_of(fake).remembered.seconds
    assert [round(each) for each in seconds["one"]] == [42, 43, 44, 45, 46]
    assert memory_of(fake).remembered.holder


@pytest.mark.parametrize("away", [True, False])
async def test_an_app_that_nobody_names_and_that_is_gone_is_new_when_it_is_named_again(*, away: bool) -> None:
    """`prune` is off, so it was stopped by hand."""
    fake = a_world("one", "two")
    await reconcile(fake.world, NOTHING_ASKED)
    memory_of(fake).remembered = replace(memory_of(fake).remembered, seconds={"one": (4.0,), "two": (4.0,)})
    if away:
        fake.source.commit(a_repository("two"))
        del fake.runtime.apps["one"]
        await reconcile(fake.world, NOTHING_ASKED)
        assert memory_of(fake).remembered.seconds.keys() == {"two"}
        fake.source.commit(a_repository("one", "two"))
    else:
        fake.source.commit({"apps/one/manifest.yaml": "id: [\n"})
        await reconcile(fake.world, NOTHING_ASKED)
        del fake.runtime.apps["one"]
        await reconcile(fake.world, NOTHING_ASKED)
        fake.source.commit(a_repository("one", "two"))
    planned = (await look(fake.world, NOTHING_ASKED)).plan
    assert [step.drift for step in planned.steps if step.address == "deploy one"] == [not away]


async def test_what_a_human_changed_is_noted_with_who_did_it() -> None:
    fake = a_world("one")
    await reconcile(fake.world, NOTHING_ASKED)
    app = fake.runtime.apps["one"]
    assert app.spec and app.provenance
    spec = app.spec.model_copy(update={"max_ongoing_requests": 77})
    by_hand = {"spec": spec, "digest": spec.digest(), "last_updated_at": 5.0}
    by_hand["provenance"] = app.provenance.model_copy(update={"by": "ben@lab.example"})
    for _ in range(2):  # twice the same, by hand: twice a drift
        by_hand["last_updated_at"] = by_hand["last_updated_at"] + 1
        fake.runtime.apps["one"] = app.model_copy(update=by_hand)
        await reconcile(fake.world, NOTHING_ASKED)
    drift = [entry for entry in memory_of(fake).entries if entry.what == "drift"]
    assert [(entry.by, entry.result, entry.app_id) for entry in drift] == [("ben@lab.example", "found", "one")] * 2
    assert drift[0].details["changes"] == [
        {"field": "max_ongoing_requests", "live": "77", "desired": "as the code says"}
    ]
    healed = memory_of(fake).entries[-1]
    assert (healed.what, healed.result, healed.by) == ("update one", "done", "anna") and healed.run == drift[1].run


async def test_a_rejection_is_noted_once_and_masked() -> None:
    fake = a_world("one", secrets=FakeSecrets({"CI_PASS": "hunter22"}))
    await reconcile(fake.world, NOTHING_ASKED)
    rejected = Rejection(digest="f" * 64, reason="cannot log in with hunter22", at=12.0)
    fake.runtime.apps["one"] = fake.runtime.apps["one"].model_copy(update={"rejected": rejected})
    for _ in range(3):
        await reconcile(fake.world, NOTHING_ASKED)
    noted = [entry for entry in memory_of(fake).entries if entry.result == "rejected"]
    assert [(entry.at, entry.app_id, entry.details["reason"]) for entry in noted] == [
        (12.0, "one", "cannot log in with (secret)")
    ]


async def test_a_step_that_fails_again_and_again_is_noted_once_also_by_the_next_process() -> None:
    fake = a_world("one")
    fake.runtime.fail("apply one", ValueError("no"))
    for _ in range(2):
        await reconcile(fake.world, NOTHING_ASKED)
    again = FakeMemory(memory_of(fake).remembered)
    again.entries = memory_of(fake).entries
    fake.memory = again
    fake.lease = a_lease("anna again", pid=os.getpid())
    again.remembered = Remembered()
    await reconcile(fake.world, NOTHING_ASKED)
    assert said(fake).count(("deploy one", "failed")) == 1
    assert len({entry.run for entry in again.entries}) >= 1
