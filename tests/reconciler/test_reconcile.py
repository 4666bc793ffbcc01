"""One pass over fakes: what it does, what it leaves alone, what it tells."""

from __future__ import annotations

import json

import pytest

from reconciler.errors import InvalidDesiredState, SourceUnusable
from reconciler.planning.steps import PlanOptions, Reason, Result
from reconciler.reconcile import look, reconcile, tell_trouble
from tests.fakes import FakeSecrets, FakeSource, FakeWorld, a_repository, an_app_folder

CANARY = "xK9-canary-value-77"
NOTHING_ASKED = PlanOptions()


async def test_a_commit_becomes_running_apps_and_the_next_pass_does_nothing() -> None:
    fake = FakeWorld(FakeSource(a_repository("one", "two")))
    done = await reconcile(fake.world, NOTHING_ASKED)
    assert [outcome.result for outcome in done.outcomes] == [Result.DONE] * 6
    assert fake.runtime.apps.keys() == {"one", "two"}
    fake.forget_calls()
    again = await reconcile(fake.world, NOTHING_ASKED)
    assert again.look.plan.empty and not fake.writes


async def test_a_push_touches_only_the_app_it_changes() -> None:
    fake = FakeWorld(FakeSource(a_repository("one", "two")))
    await reconcile(fake.world, NOTHING_ASKED)
    before = dict(fake.runtime.apps)
    fake.source.commit(an_app_folder("one", says="pong 2"))
    fake.forget_calls()
    await reconcile(fake.world, NOTHING_ASKED)
    assert fake.writes == ["upload ws/one", "prepare one", "apply one"]
    assert fake.runtime.apps["two"] == before["two"]
    assert fake.runtime.apps["one"].replicas != before["one"].replicas


async def test_a_revert_uploads_nothing() -> None:
    first = a_repository("one")
    fake = FakeWorld(FakeSource(first))
    await reconcile(fake.world, NOTHING_ASKED)
    fake.source.commit(an_app_folder("one", says="pong 2"))
    await reconcile(fake.world, NOTHING_ASKED)
    fake.source.commit(first)
    fake.forget_calls()
    done = await reconcile(fake.world, NOTHING_ASKED)
    assert done.outcomes and not fake.artifacts.writes


async def test_a_broken_declaration_is_not_a_removal() -> None:
    fake = FakeWorld(FakeSource(a_repository("one", "two", cluster="policy: {prune: true, removal_budget: 100%}\n")))
    await reconcile(fake.world, NOTHING_ASKED)
    fake.source.commit({"apps/one/manifest.yaml": "id: [\n"})
    fake.forget_calls()
    done = await reconcile(fake.world, NOTHING_ASKED)
    assert not fake.writes and fake.runtime.apps.keys() == {"one", "two"}
    assert done.look.desired.broken.keys() == {"one"}


async def test_an_environment_that_cannot_be_built_leaves_the_running_app_alone() -> None:
    fake = FakeWorld(FakeSource(a_repository("one", "two")))
    await reconcile(fake.world, NOTHING_ASKED)
    before = dict(fake.runtime.apps)
    fake.runtime.bad_environments["one"] = "no solution found: torch==99"
    fake.source.commit({**an_app_folder("one", says="2"), **an_app_folder("two", says="2")})
    done = await reconcile(fake.world, NOTHING_ASKED)
    results = {outcome.address.split("@")[0]: outcome for outcome in done.outcomes}
    assert results["prepare one"].result is Result.FAILED and "torch==99" in results["prepare one"].message
    assert results["update one"].result is Result.SKIPPED
    assert results["update two"].result is Result.DONE
    assert fake.runtime.apps["one"] == before["one"]


@pytest.mark.parametrize("what", ["apps", "artifacts"])
async def test_what_was_not_seen_is_never_touched(what: str) -> None:
    fake = FakeWorld(FakeSource(a_repository("one", cluster="policy: {prune: true, removal_budget: 100%}\n")))
    await reconcile(fake.world, NOTHING_ASKED)
    fake.source.commit(an_app_folder("one", says="2"))
    (fake.runtime if what == "apps" else fake.artifacts).fail("observe" if what == "apps" else "list")
    fake.forget_calls()
    done = await reconcile(fake.world, NOTHING_ASKED)
    assert not fake.writes
    assert {held.reason for held in done.look.plan.held} == {Reason.LIVE_STATE_UNKNOWN}
    assert done.report["complete"] is False


@pytest.mark.parametrize(("cluster", "known"), [("", False), ("hypha: {workspace: ws}\n", True)])
async def test_without_knowing_the_workspace_no_app_differs(cluster: str, known: bool) -> None:
    """Hypha is back a moment after it did not say where we are: what runs is not moved to another workspace."""
    fake = FakeWorld(FakeSource(a_repository("one", "two", cluster=cluster)))
    await reconcile(fake.world, NOTHING_ASKED)
    fake.artifacts.fail("workspace")
    fake.forget_calls()
    done = await reconcile(fake.world, NOTHING_ASKED)
    assert not fake.writes and done.look.live.complete is known
    assert {held.reason for held in done.look.plan.held} == (set() if known else {Reason.LIVE_STATE_UNKNOWN})
    assert all("workspace: no answer" in unseen.why for unseen in done.look.live.unseen)


@pytest.mark.parametrize("files", [{}, {"apps/one/x": "1"}, {"cluster.yaml": "name: lab\nname: lab\n"}])
async def test_a_source_that_says_nothing_clear_stops_the_pass(files: dict[str, str]) -> None:
    fake = FakeWorld(FakeSource(a_repository("one", cluster="policy: {prune: true}\n")))
    await reconcile(fake.world, NOTHING_ASKED)
    fake.forget_calls()
    fake.source = FakeSource(files)
    with pytest.raises((SourceUnusable, InvalidDesiredState)):
        await reconcile(fake.world, NOTHING_ASKED)
    assert not fake.writes and "one" in fake.runtime.apps


async def test_a_report_that_cannot_be_published_does_not_undo_the_pass() -> None:
    fake = FakeWorld(FakeSource(a_repository("one")))
    fake.reports.fail("publish")
    assert not (await reconcile(fake.world, NOTHING_ASKED)).failed


async def test_looking_writes_nothing() -> None:
    fake = FakeWorld(FakeSource(a_repository("one")))
    seen = await look(fake.world, NOTHING_ASKED)
    assert seen.plan.steps and not fake.writes and not fake.reports.published


async def test_ss_01_a_secret_reaches_the_runtime_and_nothing_else() -> None:
    env = "    env: {Main: {PASS: {env: CI_PASS}}}\n"
    fake = FakeWorld(FakeSource(a_repository("one", one=env)), secrets=FakeSecrets({"CI_PASS": CANARY}))
    done = await reconcile(fake.world, NOTHING_ASKED)
    assert fake.runtime.secrets_seen["one"] == {"Main": {"PASS": CANARY}}
    told = [repr(done), json.dumps(done.report), repr(fake.artifacts.manifests), repr(fake.artifacts.files)]
    told += [repr(fake.runtime.apps), repr(fake.reports.published)]
    assert not [text for text in told if CANARY in text or CANARY[::-1] in text]


async def test_ss_02_a_secret_in_somebody_elses_error_is_masked() -> None:
    env = "    env: {Main: {PASS: {env: CI_PASS}}}\n"
    fake = FakeWorld(FakeSource(a_repository("one", one=env)), secrets=FakeSecrets({"CI_PASS": CANARY}))
    fake.runtime.fail("apply one", RuntimeError(f"cannot log in with {CANARY}"))
    done = await reconcile(fake.world, NOTHING_ASKED)
    assert done.failed and CANARY not in repr(done.outcomes) and CANARY not in json.dumps(done.report)


async def test_ss_03_a_changed_value_updates_the_app() -> None:
    env = "    env: {Main: {PASS: {env: CI_PASS}}}\n"
    fake = FakeWorld(FakeSource(a_repository("one", one=env)), secrets=FakeSecrets({"CI_PASS": CANARY}))
    await reconcile(fake.world, NOTHING_ASKED)
    fake.secrets.values["CI_PASS"] = "another-value"
    done = await reconcile(fake.world, NOTHING_ASKED)
    assert [outcome.address for outcome in done.outcomes] == ["update one"]
    assert fake.runtime.secrets_seen["one"] == {"Main": {"PASS": "another-value"}}


async def test_a_secret_that_cannot_be_read_stops_only_its_app() -> None:
    env = "    env: {Main: {PASS: {env: CI_PASS}}}\n"
    fake = FakeWorld(FakeSource(a_repository("one", "two", one=env)))
    done = await reconcile(fake.world, NOTHING_ASKED)
    assert [outcome.address for outcome in done.failed] == ["deploy one"]
    assert "CI_PASS" in done.failed[0].message or "PASS" in done.failed[0].message
    assert fake.runtime.apps.keys() == {"two"}


async def test_a_report_carries_conditions_whose_times_go_on() -> None:
    fake = FakeWorld(FakeSource(a_repository("one")))
    world = fake.world
    first = (await reconcile(world, PlanOptions())).report
    second = (await reconcile(world, PlanOptions())).report
    ready = [next(one for one in report["conditions"] if one["type"] == "Ready") for report in (first, second)]
    source = [next(one for one in report["conditions"] if one["type"] == "SourceReady") for report in (first, second)]
    assert [one["status"] for one in ready] == ["False", "True"]
    assert source[0]["lastTransitionTime"] == source[1]["lastTransitionTime"]


async def test_a_source_that_cannot_be_read_makes_the_last_report_incomplete() -> None:
    fake = FakeWorld(FakeSource(a_repository("one")))
    world = fake.world
    await reconcile(world, PlanOptions())
    await tell_trouble(world, SourceUnusable("main is gone"))
    newest = fake.reports.published[-1]
    told = {one["type"]: one["status"] for one in newest["conditions"]}
    assert newest["complete"] is False and newest["apps"]
    assert (told["SourceReady"], told["Ready"], told["Drifted"]) == ("False", "Unknown", "Unknown")
