"""Rollouts on nodes that SLURM gives late (RO-11) or takes away (RO-12): to wait is not to fail, nor to try again."""

from __future__ import annotations

from typing import Any

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.status import Rejection, ReplicaState
from reconciler.loop import Pace
from reconciler.planning import backoff
from reconciler.planning.steps import PlanOptions, Reason
from reconciler.reconcile import Pass, reconcile
from reconciler.settle import Verdict, reconcile_until_settled
from tests.fakes import FakeSource, FakeWorld, a_repository, an_app_folder

SLURM = "compute: {mode: slurm, workers: {min: 0, max: 4}}\npolicy: {drift_interval_s: 30}\n"
QUEUED = "Main: 1 replica waits for a node with 1 GPU; 2 jobs of this cluster are in SLURM's queue (Resources)"
LOST = "Main: 1 replica died: its node 10.0.0.2 is gone"


def a_cluster(*apps: str, **more: str) -> FakeWorld:
    """A worker on SLURM, its bounds as git wants them."""
    fake = FakeWorld(FakeSource(a_repository(*apps, cluster=SLURM, **more)))
    fake.runtime.mode, fake.runtime.workers = "slurm", {"min": 0, "max": 4}
    return fake


def becomes(fake: FakeWorld, app_id: str, **fields: Any) -> None:
    """What the worker says of an app from now on."""
    fake.runtime.apps[app_id] = fake.runtime.apps[app_id].model_copy(update=fields)


def spec_of(fake: FakeWorld, app_id: str) -> AppSpec:
    spec = fake.runtime.apps[app_id].spec
    assert spec
    return spec


def a_replica(fake: FakeWorld, app_id: str, name: str, state: str) -> ReplicaState:
    """One of what is deployed now."""
    return ReplicaState(
        deployment="Main", replica_id=name, state=state, node_id=name, code_digest=spec_of(fake, app_id).code_digest()
    )


async def a_quiet_pass(fake: FakeWorld) -> Pass:
    """A pass that changes nothing, and after which nothing rests or was tried."""
    fake.forget_calls()
    done = await reconcile(fake.world, PlanOptions())
    assert fake.writes == [] and done.outcomes == ()
    assert backoff.after({}, done.look.plan, done.outcomes, 0.0) == {}
    return done


def app(done: Pass, app_id: str) -> tuple[str, str, str, str]:
    (found,) = (one for one in done.report["apps"] if one["id"] == app_id)
    return found["sync"], found["health"], found["reason"], found["message"]


def conditions(done: Pass) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in done.report["conditions"]}


async def test_ro_11_an_app_that_waits_in_a_full_queue_is_on_its_way_and_holds_up_only_who_needs_it() -> None:
    fake = a_cluster("big", "front", "other", front="    depends_on: [big]\n")
    fake.runtime.slow.add("big")
    first = await reconcile(fake.world, PlanOptions())
    assert not first.failed and fake.runtime.apps.keys() == {"big", "other"}
    becomes(fake, "big", message=QUEUED)
    for _ in range(3):
        done = await a_quiet_pass(fake)
        assert app(done, "big") == ("Synced", "Progressing", "", QUEUED)
        assert app(done, "other") == ("Synced", "Healthy", "", "")
        assert app(done, "front")[2] == "DependencyNotReady" and "big, which is DEPLOYING" in app(done, "front")[3]
        told = conditions(done)
        assert told["Ready"] == ("False", "Progressing") and told["Reconciling"] == ("True", "Progressing")
        assert told["Stalled"][0] == "False" and told["Drifted"][0] == "False"
        assert Pace(30.0).after(done).seconds() == 30.0
    fake.source.commit(an_app_folder("other", says="pong 2"))
    fake.forget_calls()
    await reconcile(fake.world, PlanOptions())
    assert fake.writes == ["upload ws/other", "prepare other", "apply other"]
    becomes(fake, "big", status="RUNNING", message="")
    fake.forget_calls()
    await reconcile(fake.world, PlanOptions())
    assert "apply front" in fake.writes and "apply big" not in fake.writes
    assert conditions(await a_quiet_pass(fake))["Ready"] == ("True", "Applied")


async def test_ro_11_who_waits_for_the_queue_is_told_so_when_the_time_is_up_and_nothing_was_tried_twice() -> None:
    fake = a_cluster("big", "front", front="    depends_on: [big]\n")
    fake.runtime.slow.add("big")
    first = await reconcile(fake.world, PlanOptions())
    becomes(fake, "big", message=QUEUED)
    waited = await reconcile_until_settled(
        fake.world, PlanOptions(), first, timeout_s=0.1, tell=lambda _: None, every_s=0.01
    )
    assert not waited.ok
    assert (waited.apps["big"].verdict, waited.apps["big"].why) == (Verdict.WAITING, QUEUED)
    assert fake.writes.count("apply big") == 1 and "apply front" not in fake.writes


async def test_ro_12_a_rollout_whose_node_is_taken_away_goes_on_where_it_was_and_the_old_version_serves() -> None:
    fake = a_cluster("big", "other")
    await reconcile(fake.world, PlanOptions())
    serving = [a_replica(fake, "big", "n1", "RUNNING")]
    files = a_repository("big", "other", "front", cluster=SLURM, front="    depends_on: [big]\n")
    fake.source.commit({**files, **an_app_folder("big", says="pong 2")})
    fake.runtime.slow.add("big")
    await reconcile(fake.world, PlanOptions())
    for replicas, message in (
        ([*serving, a_replica(fake, "big", "n2", "STARTING")], "Main: 1 replica is starting"),
        (serving, LOST),
        ([*serving, a_replica(fake, "big", "n3", "PENDING_ALLOCATION")], QUEUED),
    ):
        becomes(fake, "big", updating=True, replicas=replicas, message=message)
        done = await a_quiet_pass(fake)
        assert app(done, "big") == ("Synced", "Progressing", "", message)
        assert app(done, "front")[2] == "Updating" and "front" not in fake.runtime.apps
        assert app(done, "other")[:2] == ("Synced", "Healthy")
        told = conditions(done)
        assert told["Ready"] == ("False", "Progressing") and told["Reconciling"] == ("True", "Progressing")
        assert told["Stalled"][0] == "False" and told["Drifted"][0] == "False"
    replicas = [a_replica(fake, "big", "n3", "RUNNING")]
    becomes(fake, "big", status="RUNNING", updating=False, message="", replicas=replicas)
    fake.forget_calls()
    await reconcile(fake.world, PlanOptions())
    assert fake.writes == ["prepare front", "apply front"]
    assert conditions(await a_quiet_pass(fake))["Ready"] == ("True", "Applied")


async def test_ro_12_a_version_that_had_no_node_for_too_long_is_remembered_and_not_tried_again() -> None:
    """The worker goes back by itself after `health_timeout_s`; the reconciler leaves it at that."""
    fake = a_cluster("big", "other")
    await reconcile(fake.world, PlanOptions())
    good = fake.runtime.apps["big"]
    fake.source.commit(an_app_folder("big", says="pong 2"))
    await reconcile(fake.world, PlanOptions())
    late = f"did not come up within 300 s: {LOST}"
    digest = spec_of(fake, "big").digest()
    fake.runtime.apps["big"] = good
    becomes(fake, "big", rejected=Rejection(digest=digest, reason=late, at=1.0, rollback="done"))
    for _ in range(3):
        done = await a_quiet_pass(fake)
        assert [(held.app_id, held.reason) for held in done.look.plan.held] == [("big", Reason.BAD_COMMIT)]
        assert app(done, "big")[1] == "Healthy" and LOST in app(done, "big")[3]
        assert app(done, "other")[:2] == ("Synced", "Healthy")
        assert conditions(done)["Stalled"] == ("True", "BadCommit")
        assert Pace(30.0).after(done).seconds() == 30.0
