"""suspend, resume, approve, rollback, retry: given here when nobody else reconciles, else to the one who does."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from bioengine_runtime.contract.status import Provenance
from reconciler.adapters.memory import HyphaMemory
from reconciler.errors import SourceUnusable, Spoiled, Unreachable
from reconciler.lease import Lease
from reconciler.planning.memory import Holder, Order, OrderKind, Remembered
from reconciler.planning.people import Person
from reconciler.ports import Hypha, OrderRefused, Source, World
from reconciler.secrets import LocalSecrets
from tests.fakes import FakeMemory, FakeSource, FakeWorld, a_repository
from tests.reconciler.test_cli import CliRunner, app
from tests.reconciler.test_memory_adapter import Manager

ANNA = Person("anna-id", "anna@example.org")


@dataclass
class FakeRunning:
    """The other reconciler."""

    heard: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])
    refuses: str = ""
    person: Person = ANNA

    async def order(self, method: str, arguments: Any) -> Any:
        if self.refuses:
            raise OrderRefused(self.refuses)
        self.heard.append((method, dict(arguments)))

    async def answers(self) -> bool:
        return True

    async def me(self) -> Person:
        return self.person


@dataclass
class Lab:
    fake: FakeWorld
    home: Path
    running: FakeRunning = field(default_factory=FakeRunning)

    def run(self, *words: str) -> Any:
        """One command, as a process of its own would see the world."""
        fake = self.fake
        there = Hypha(fake.artifacts, fake.runtime, None, fake.memory, self.running)
        lease = Lease("lab", settle_s=0.0)
        world = World(fake.source, lambda _: there, fake.secrets, lease=lease, at=self._at)
        return CliRunner().invoke(app, [*words, "--home", str(self.home)], obj=world)

    def _at(self, commit: str) -> Source:
        return self.fake.source.at(commit)

    def push(self, text: str) -> str:
        commit = self.fake.source.commit({"apps/one/main.py": MAIN.replace("pong", text)})
        assert self.run("apply", "--auto-approve").exit_code == 0
        return commit

    @property
    def memory(self) -> FakeMemory:
        assert self.fake.memory
        return self.fake.memory

    @property
    def version(self) -> str:
        spec = self.fake.runtime.apps["one"].spec
        assert spec
        return spec.version


MAIN = ""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    global MAIN
    files = a_repository("one", "two")
    MAIN = files["apps/one/main.py"]
    made = Lab(FakeWorld(FakeSource(files), memory=FakeMemory()), tmp_path)
    assert made.run("apply", "--auto-approve").exit_code == 0
    return made


def held_by_another(lab: Lab) -> None:
    now = time.time()
    lab.memory.remembered = Remembered(Holder("lab@node7", "node7", 7, 3, now, now))


def test_a_suspended_app_is_left_alone_until_it_is_resumed(lab: Lab) -> None:
    before = lab.version
    assert lab.run("suspend", "one", "--reason", "measuring").exit_code == 0
    lab.fake.source.commit({"apps/one/main.py": MAIN + "# new\n"})
    shown = lab.run("apply", "--auto-approve")
    assert lab.version == before
    assert "Suspended" in shown.stderr and "measuring" in shown.stderr and "anna@example.org" in shown.stderr
    assert lab.run("resume", "one").exit_code == 0
    lab.run("apply", "--auto-approve")
    assert lab.version != before


def test_resuming_what_nobody_suspended_says_so(lab: Lab) -> None:
    result = lab.run("resume", "one")
    assert result.exit_code == 1 and "nobody suspended one" in result.stderr


def test_rollback_brings_the_last_content_back_without_an_upload_and_holds_until_git_moves(lab: Lab) -> None:
    first = lab.version
    lab.push("second")
    second = lab.version
    lab.fake.artifacts.calls.clear()
    result = lab.run("rollback", "one", "--reason", "masks are empty")
    assert result.exit_code == 0, result.output
    assert lab.version == first and not lab.fake.artifacts.writes
    lab.run("apply", "--auto-approve")
    assert lab.version == first, "a pass must not bring back what was rolled back"
    lab.push("third")
    assert lab.version not in (first, second)


def test_rollback_to_a_commit_that_never_had_the_app_is_refused(lab: Lab) -> None:
    old = lab.fake.source.commit(dict.fromkeys(("apps/one/main.py", "apps/one/manifest.yaml")))
    lab.fake.source.commit(a_repository("one", "two"))
    before = lab.version
    result = lab.run("rollback", "one", "--to", old)
    assert result.exit_code == 1 and "has no valid one" in result.stderr and lab.version == before


@pytest.mark.parametrize("then", ["at once", "after the next commit"])
def test_rollback_passes_over_what_was_rejected(lab: Lab, then: str) -> None:
    first, good = lab.version, lab.fake.source.head
    lab.fake.runtime.bad["one"] = "it raised in __init__"
    lab.push("second")
    lab.run("apply", "--auto-approve")
    lab.fake.runtime.bad.clear()
    if then != "at once":
        lab.push("third")
    assert lab.run("rollback", "one").exit_code == 0
    assert lab.version == first and lab.memory.remembered.orders[0].revision == good


def test_rollback_does_not_go_to_what_was_rolled_away_from(lab: Lab) -> None:
    first = lab.version
    lab.push("second")
    lab.run("rollback", "one")
    lab.push("third")
    third = lab.version
    lab.run("rollback", "one")
    assert lab.version == first
    refused = lab.run("rollback", "one")
    assert refused.exit_code == 1 and "no earlier good commit" in refused.stderr and lab.version == first
    lab.run("resume", "one")
    lab.run("apply", "--auto-approve")
    lab.push("fourth")
    assert lab.run("rollback", "one").exit_code == 0
    assert lab.version == third, "resumed, it was good again"


def test_rollback_to_what_git_asks_for_anyway_is_refused(lab: Lab) -> None:
    lab.push("second")
    result = lab.run("rollback", "one", "--to", lab.fake.source.head)
    assert result.exit_code == 1 and "as git asks for it" in result.stderr and not lab.memory.remembered.orders


def test_a_rollback_that_is_over_does_not_come_back_with_the_content_of_then(lab: Lab) -> None:
    lab.push("second")
    second = lab.version
    lab.run("rollback", "one")
    lab.push("third")
    assert not lab.memory.remembered.orders
    lab.push("second")
    assert lab.version == second


def test_a_rollback_is_not_over_while_the_app_is_broken_or_not_all_is_seen(lab: Lab) -> None:
    first = lab.version
    lab.push("second")
    lab.run("rollback", "one")
    lab.fake.source.commit({"apps/one/manifest.yaml": "id: [\n"})
    lab.run("apply", "--auto-approve")
    lab.fake.source.commit(a_repository("two"))
    lab.fake.artifacts.fail("list")
    lab.run("apply", "--auto-approve")
    assert lab.memory.remembered.orders and lab.version == first
    lab.fake.artifacts.heal()
    lab.run("apply", "--auto-approve")
    assert not lab.memory.remembered.orders


def test_rollback_without_a_history_asks_for_the_commit(lab: Lab) -> None:
    lab.memory.entries.clear()
    result = lab.run("rollback", "one")
    assert result.exit_code == 1 and "--to COMMIT" in result.stderr


def test_a_pin_ends_with_resume(lab: Lab) -> None:
    lab.push("second")
    second = lab.version
    lab.run("rollback", "one")
    assert lab.version != second
    assert lab.run("resume", "one").exit_code == 0
    lab.run("apply", "--auto-approve")
    assert lab.version == second


def test_a_pin_whose_commit_is_gone_keeps_what_runs_and_ends_with_resume(lab: Lab) -> None:
    first = lab.version
    lab.push("second")
    second = lab.version
    lab.run("rollback", "one")
    [pin] = lab.memory.remembered.orders
    lab.fake.source.at(pin.revision).fail("fetch", SourceUnusable("somebody pushed by force"))
    shown = lab.run("apply", "--auto-approve")
    assert lab.version == first and "RolledBack" in shown.stderr and "reconcile resume one" in shown.stderr
    assert lab.run("resume", "one").exit_code == 0
    lab.run("apply", "--auto-approve")
    assert lab.version == second


def test_a_plan_that_waits_for_approval_is_carried_out_by_nobody_but_who_is_told_so(lab: Lab) -> None:
    files = a_repository("one", "two", cluster="policy: {apply: manual}\n")
    lab.fake.source.commit({**files, "apps/one/main.py": MAIN + "# new\n"})
    before = lab.version
    refused = lab.run("apply", "--auto-approve")
    assert refused.exit_code == 3 and "reconcile approve p-" in refused.stderr and lab.version == before
    plan_id = next(word for word in refused.stderr.split() if word.startswith("p-")).rstrip(".,;")
    assert lab.run("approve", "p-0000000-00000000").exit_code == 1
    assert lab.run("approve", plan_id).exit_code == 0
    assert lab.run("apply", "--auto-approve").exit_code == 0 and lab.version != before


def test_an_order_goes_to_the_one_who_keeps_the_cluster(lab: Lab) -> None:
    held_by_another(lab)
    result = lab.run("suspend", "one", "--reason", "measuring", "--until", "2031-01-01T00:00:00")
    assert result.exit_code == 0 and "told to lab@node7" in result.stdout
    [(method, arguments)] = lab.running.heard
    assert method == "suspend" and arguments["app_id"] == "one" and arguments["until"].startswith("20")
    assert not lab.memory.remembered.orders


def test_who_suspends_for_a_while_is_told_until_when(lab: Lab) -> None:
    result = lab.run("suspend", "one", "--reason", "measuring", "--until", "2226-01-01T12:00:00+02:00")
    assert result.exit_code == 0 and "one is suspended until 2226-01-01 10:00 UTC." in result.stdout


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+02:00", "9999-12-31T23:00:00-02:00"])
def test_a_moment_outside_the_calendar_is_no_bug_of_ours(lab: Lab, moment: str) -> None:
    result = lab.run("suspend", "one", "--reason", "measuring", "--until", moment)
    assert result.exit_code == 1 and "no clock shows it" in result.stderr and not lab.memory.remembered.orders


def test_what_the_other_one_refuses_is_an_error(lab: Lab) -> None:
    held_by_another(lab)
    lab.running.refuses = "bob@example.org may not suspend"
    result = lab.run("suspend", "one", "--reason", "x")
    assert result.exit_code == 1 and "may not suspend" in result.stderr


def test_sp_09_a_persons_app_is_taken_over_only_when_git_says_so(lab: Lab) -> None:
    running = lab.fake.runtime.apps["one"]
    person = Provenance(owner="user:anna", source="x", commit="y", by="anna@example.org")
    lab.fake.runtime.apps["one"] = running.model_copy(update={"provenance": person})
    lab.run("apply", "--auto-approve")
    assert lab.fake.runtime.apps["one"].provenance == person
    lab.fake.source.commit(a_repository("one", "two", one="    adopt: true\n"))
    lab.run("apply", "--auto-approve")
    taken = lab.fake.runtime.apps["one"].provenance
    assert taken and (taken.owner, taken.adopts) == ("lab", "user:anna")
    assert lab.fake.runtime.apps["one"].replicas == running.replicas, "nothing was restarted"


def test_sp_08_another_reconcilers_app_is_never_taken_over(lab: Lab) -> None:
    running = lab.fake.runtime.apps["one"]
    assert running.provenance
    theirs = running.provenance.model_copy(update={"owner": "other-lab"})
    lab.fake.runtime.apps["one"] = running.model_copy(update={"provenance": theirs})
    lab.fake.source.commit(a_repository("one", "two", one="    adopt: true\n"))
    lab.run("apply", "--auto-approve")
    assert lab.fake.runtime.apps["one"].provenance == theirs


def test_orders_of_one_kind_replace_each_other(lab: Lab) -> None:
    lab.run("suspend", "one", "--reason", "first")
    lab.run("suspend", "one", "--reason", "second")
    suspensions = [order for order in lab.memory.remembered.orders if order.kind is OrderKind.SUSPEND]
    assert [order.reason for order in suspensions] == ["second"]
    assert suspensions[0].by == "anna@example.org"


def test_who_waits_for_a_rolled_back_app_waits_for_what_was_ordered(lab: Lab) -> None:
    lab.push("second")
    lab.run("rollback", "one")
    assert lab.run("wait", "one", "--timeout", "5").exit_code == 0


def test_a_rollback_is_no_drift(lab: Lab) -> None:
    lab.fake.source.commit(a_repository("one", "two", one="    max_ongoing_requests: 3\n"))
    lab.run("apply", "--auto-approve")
    lab.run("rollback", "one")
    assert [entry.what for entry in lab.memory.entries if "drift" in entry.what] == []


def test_an_app_that_is_as_git_wants_it_tells_that_it_is_suspended(lab: Lab) -> None:
    lab.run("suspend", "one", "--reason", "measuring")
    told = lab.run("explain", "one").stdout
    assert "Synced, Healthy" in told and "measuring" in told
    assert told.rstrip().endswith(f"reconcile resume one --home {lab.home}")


@pytest.mark.parametrize(
    ("order", "note"),
    [
        (
            ("suspend", "--until", "2226-01-01T00:00:00Z"),
            "suspended: masks (anna@example.org), until 2226-01-01 00:00 UTC",
        ),
        (("rollback",), "rolled back to {first} by anna@example.org: masks"),
    ],
)
def test_a_reason_is_shown_wherever_the_app_is_shown(lab: Lab, order: tuple[str, ...], note: str) -> None:
    """Caught: of an app that is as git wants it, or was taken back, `get` said neither that nor by whom and why."""
    first = lab.fake.source.head[:7]
    lab.push("second")
    assert "NOTE" not in lab.run("get").stdout
    assert lab.run(order[0], "one", "--reason", "masks", *order[1:]).exit_code == 0
    note = note.format(first=first)
    rows = {row["id"]: row for row in json.loads(lab.run("get", "-o", "json").stdout)["apps"]}
    assert (rows["one"]["note"], rows["two"]["note"]) == (note, "") and rows["one"]["message"] == note
    assert note in lab.run("get").stdout and note in lab.run("plan").stdout
    told = {row["name"]: row["text"] for row in json.loads(lab.run("explain", "one", "-o", "json").stdout)["rows"]}
    assert note in told.values() and told["next"].startswith("reconcile resume one")


def test_an_app_that_was_taken_back_and_is_left_alone_says_both(lab: Lab) -> None:
    lab.push("second")
    lab.run("rollback", "one", "--reason", "masks")
    lab.run("suspend", "one", "--reason", "measuring")
    told = lab.run("get").stdout
    assert "rolled back to" in told and "suspended: measuring" in told


def test_the_history_says_to_what_and_until_when(lab: Lab) -> None:
    first = lab.fake.source.head[:7]
    lab.push("second")
    lab.run("rollback", "one", "--reason", "masks")
    lab.run("suspend", "two", "--reason", "measuring", "--until", "2226-01-01T00:00:00Z", "--once")
    told = lab.run("history").stdout
    assert f"to {first}: masks" in told and "until 2226-01-01 00:00 UTC, but for one commit: measuring" in told


@pytest.mark.parametrize(
    "words",
    [
        ("suspend", "one", "--reason", "measuring"),
        ("resume", "one"),
        ("rollback", "one"),
        ("retry", "one"),
        ("approve", "some-plan"),
    ],
)
def test_an_order_needs_no_key_it_is_told_to_who_has_it(lab: Lab, words: tuple[str, ...]) -> None:
    """An approver's own machine cannot read what the reconciler of the cluster remembers."""
    lab.memory.fail("read", Spoiled("ws/reconcile-lab cannot be checked: this installation has no key"))
    lab.memory.calls.clear()
    result = lab.run(*words)
    assert result.exit_code == 0, result.output
    assert [method for method, _ in lab.running.heard] == [words[0]] and not lab.memory.writes
    assert "told to the one that keeps this cluster" in result.stdout


def test_where_nobody_keeps_it_either_it_says_what_is_wrong_with_the_memory(lab: Lab) -> None:
    lab.memory.fail("read", Spoiled("ws/reconcile-lab cannot be checked", hint="Use the key."))
    lab.running = Gone()
    result = lab.run("suspend", "one", "--reason", "measuring")
    assert result.exit_code == 1 and "cannot be checked" in result.stderr and "Use the key." in result.stderr


def test_a_memory_that_only_we_cannot_read_is_not_started_anew(lab: Lab) -> None:
    """It is well, and another installation's: its reconciler would lose the lease and all orders."""
    lab.run("suspend", "one", "--reason", "measuring")
    kept = lab.memory.remembered
    lab.memory.fail("read", Spoiled("ws/reconcile-lab was changed by somebody"))
    result = lab.run("lock", "--forget", "--auto-approve")
    assert result.exit_code == 75 and "keeps lab" in result.stderr and "RECONCILE_KEY_FILE" in result.stderr
    assert lab.memory.remembered == kept
    lab.running = Gone()
    assert lab.run("lock", "--forget", "--auto-approve").exit_code == 0
    assert not lab.memory.remembered.orders


def test_an_approvers_own_machine_gets_no_key_and_leaves_the_memory_as_it_is(lab: Lab, tmp_path: Path) -> None:
    """With a key of its own the memory would look spoiled, and with a memory of its own the cluster would be held."""
    manager, ours = Manager(), LocalSecrets(tmp_path / "own" / "fingerprint.key", environ={})
    theirs = HyphaMemory(manager, "lab", lambda: b"t" * 32)  # type: ignore[arg-type]
    held_by_another(lab)
    kept = lab.memory.remembered
    asyncio.run(theirs.write(kept))
    lab.fake.memory = HyphaMemory(manager, "lab", ours.key, new_key=ours.made_key)  # type: ignore[assignment,arg-type]
    assert lab.run("suspend", "one", "--reason", "measuring").exit_code == 0
    assert [method for method, _ in lab.running.heard] == ["suspend"]
    assert lab.run("lock", "--forget", "--auto-approve").exit_code == 75
    assert lab.run("apply", "--auto-approve").exit_code == 1, "what is remembered is not known: all is held"
    assert not (tmp_path / "own").exists() and asyncio.run(theirs.read()) == kept


class Gone(FakeRunning):
    """Nobody is there."""

    async def order(self, method: str, arguments: Any) -> Any:
        raise Unreachable(f"{method}: nobody offers it, with {len(arguments)} arguments")

    async def answers(self) -> bool:
        return False


def test_every_order_is_noted_with_who_gave_it_and_why(lab: Lab) -> None:
    commit = lab.push("second")
    lab.run("suspend", "one", "--reason", "measuring")
    lab.run("resume", "one")
    lab.run("rollback", "one", "--reason", "masks are empty")
    lab.run("retry", "two")
    lab.run("retry", "two")
    noted = [entry for entry in lab.memory.entries if entry.result == "ordered"]
    assert [(entry.what, entry.app_id) for entry in noted] == [
        ("suspend one", "one"),
        ("resume one", "one"),
        ("rollback one", "one"),
        ("retry two", "two"),
        ("retry two", "two"),
    ]
    assert {entry.by for entry in noted} == {"anna@example.org"} and {entry.revision for entry in noted} == {commit}
    assert noted[0].details["reason"] == "measuring" and noted[1].details == {"ends": "suspend"}
    assert noted[2].details["reason"] == "masks are empty" and noted[2].details["to"] != commit
    assert "rollback one" in lab.run("history").stdout


def test_an_order_stands_although_it_could_not_be_noted(lab: Lab) -> None:
    lab.memory.fail("append")
    assert lab.run("suspend", "one", "--reason", "measuring").exit_code == 0
    assert [order.subject for order in lab.memory.remembered.orders] == ["one"]


def test_an_approval_counts_as_long_as_a_saved_plan(lab: Lab) -> None:
    files = a_repository("one", "two", cluster="policy: {apply: manual, plan_valid_s: 60}\n")
    lab.fake.source.commit({**files, "apps/one/main.py": MAIN + "# new\n"})
    refused = lab.run("apply", "--auto-approve")
    plan_id = next(word for word in refused.stderr.split() if word.startswith("p-")).rstrip(".,;")
    lab.run("approve", plan_id, "--reason", "fine")
    (order,) = lab.memory.remembered.orders
    assert order.until == order.at + 60
    assert [entry.what for entry in lab.memory.entries if entry.result == "ordered"] == [f"approve {plan_id}"]
    long_ago = replace(order, at=order.at - 100, until=order.at - 40)
    lab.memory.remembered = replace(lab.memory.remembered, orders=(long_ago,))
    again = lab.run("apply", "--auto-approve")
    assert again.exit_code == 3 and f"reconcile approve {plan_id}" in again.stderr


def test_orders_that_have_ended_are_cleared_away_with_the_next_one(lab: Lab) -> None:
    wanted = lab.fake.runtime.apps["two"].digest or ""
    ended = (
        Order(OrderKind.APPROVE, "p-1", "anna", 1.0, until=2.0),
        Order(OrderKind.SUSPEND, "two", "anna", 1.0, until=2.0),
        Order(OrderKind.PIN, "two", "anna", 1.0, digest="what git wanted once"),
        Order(OrderKind.PIN, "gone", "anna", 1.0, digest=wanted),
    )
    lasting = (
        Order(OrderKind.APPROVE, "p-2", "anna", 1.0, until=time.time() + 60),
        Order(OrderKind.SUSPEND, "two", "anna", 1.0),
        Order(OrderKind.PIN, "two", "anna", 1.0, revision=lab.fake.source.head, digest=wanted),
    )
    lab.memory.remembered = replace(lab.memory.remembered, orders=(*ended, *lasting))
    assert lab.run("suspend", "one", "--reason", "x").exit_code == 0
    assert lab.memory.remembered.orders[:-1] == lasting
    assert lab.memory.remembered.orders[-1].subject == "one"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("suspend", "one", "--reason", "x", "--until", "2020-01-01"), "is in the past"),
        (("suspend", "one", "--reason", ""), "reason: it is empty"),
        (("suspend", "one", "--reason", "x" * 501), "501 characters, and 500 are kept"),
        (("rollback", "one", "--reason", "x" * 501), "501 characters, and 500 are kept"),
        (("suspend", "one", "--reason", "caf\udce9"), "is no UTF-8"),
    ],
)
def test_what_makes_no_sense_is_refused_and_what_was_ordered_stays(lab: Lab, words: tuple[str, ...], why: str) -> None:
    lab.run("suspend", "one", "--reason", "long measurement")
    kept = lab.memory.remembered.orders
    result = lab.run(*words)
    assert result.exit_code == 1 and why in result.stderr
    assert lab.memory.remembered.orders == kept and len(kept) == 1


def test_approving_a_plan_that_has_nothing_in_it_is_refused(lab: Lab) -> None:
    made = json.loads(lab.run("plan", "-o", "json").stdout)
    result = lab.run("approve", made["id"])
    assert made["steps"] == [] and result.exit_code == 1 and "nothing to approve" in result.stderr
    assert not lab.memory.remembered.orders


def test_a_drift_report_is_a_plan_with_an_id_that_can_be_approved_and_applied(lab: Lab) -> None:
    cluster = "policy: {self_heal: detect-only, approvers: [anna@example.org]}\n"
    lab.fake.source.commit(a_repository("one", "two", cluster=cluster))
    assert lab.run("apply", "--auto-approve").exit_code == 0

    def by_hand(number: int) -> None:
        app = lab.fake.runtime.apps["one"]
        assert app.spec and app.provenance
        spec = app.spec.model_copy(update={"max_ongoing_requests": number})
        person = app.provenance.model_copy(update={"by": "ben@example.org"})
        lab.fake.runtime.apps["one"] = app.model_copy(
            update={"spec": spec, "digest": spec.digest(), "provenance": person}
        )

    before = lab.fake.runtime.apps["one"].digest
    by_hand(50)
    told = [json.loads(lab.run("plan", "-o", "json").stdout) for _ in range(2)]
    assert [made["steps"] for made in told] == [[], []] and told[0]["id"] == told[1]["id"]
    assert f"reconcile approve {told[0]['id']}" in told[0]["held"][0]["fix"]
    lab.run("apply", "--auto-approve")
    assert lab.fake.runtime.apps["one"].digest != before
    assert lab.run("approve", told[0]["id"]).exit_code == 0
    lab.run("apply", "--auto-approve")
    assert lab.fake.runtime.apps["one"].digest == before
    by_hand(60)
    lab.run("apply", "--auto-approve")
    assert lab.fake.runtime.apps["one"].digest != before, "what is changed then is another plan"


def test_removals_that_are_all_that_is_left_are_refused_until_somebody_confirms_them(lab: Lab) -> None:
    policy = "policy: {prune: true, pruners: [anna@example.org], removal_budget: 0}\n"
    lab.fake.source.commit(a_repository("one", cluster=policy))
    refused = lab.run("apply", "--auto-approve")
    assert refused.exit_code == 3 and "two; none of them is" in refused.stderr
    assert "--confirm-deletes 1" in refused.stderr and "two" in lab.fake.runtime.apps
    plan_id = json.loads(lab.run("plan", "-o", "json").stdout)["id"]
    assert f"reconcile approve {plan_id}" in refused.stderr
    assert lab.run("approve", plan_id).exit_code == 0
    assert lab.run("apply", "--auto-approve").exit_code == 0 and lab.fake.runtime.apps.keys() == {"one"}


def test_removals_that_the_policy_switches_off_are_nothing_to_refuse(lab: Lab) -> None:
    lab.fake.source.commit(a_repository("one"))
    assert lab.run("apply", "--auto-approve").exit_code == 0 and "two" in lab.fake.runtime.apps
