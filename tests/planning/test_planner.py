"""From differences to steps: one sentence per rule."""

from __future__ import annotations

from typing import Any

import pytest

from bioengine_runtime.contract.status import Rejection
from reconciler.planning.desired import DesiredApp, DesiredState
from reconciler.planning.live import ArtifactVersion, LiveArtifact, LiveState
from reconciler.planning.planner import plan
from reconciler.planning.steps import (
    Action,
    Impact,
    Plan,
    PlanOptions,
    Reason,
    ScaleWorkers,
    Step,
    UploadArtifact,
)
from tests.builders import (
    COMMIT,
    OLD_COMMIT,
    a_class,
    a_desired,
    a_live,
    a_node,
    a_problem,
    a_secret,
    a_status,
    a_world,
    an_app,
    an_artifact,
    some_code,
)


def plan_of(desired: DesiredState, live: LiveState, known: Any = None, **options: Any) -> Plan:
    return plan(desired, live, known or {}, PlanOptions(**options))


def addresses(made: Plan) -> list[str]:
    return [step.address for step in made.steps]


def reasons(made: Plan) -> dict[str, Reason]:
    return {held.app_id: held.reason for held in made.held}


def step_of(made: Plan, address: str) -> Step:
    return next(step for step in made.steps if step.address == address)


def changed(app_id: str = "demo-app", **spec: Any) -> tuple[DesiredApp, LiveState]:
    """An app wanted as `spec` says, which runs as it was before; its code is stored."""
    before = an_app(app_id, commit=OLD_COMMIT)
    return an_app(app_id, **spec), a_live(a_status(before), artifacts=[an_artifact(before)])


# ── steps ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_world_that_agrees_needs_nothing() -> None:
    made = plan_of(*a_world(an_app("a"), an_app("b")))
    assert made.empty
    assert made.unchanged == ("a", "b")


def test_a_new_app_is_uploaded_prepared_and_deployed() -> None:
    app = an_app()
    made = plan_of(a_desired(app), a_live())
    name = f"demo-app@{app.spec.version}"
    assert addresses(made) == [f"upload {name}", f"prepare {name}", "deploy demo-app"]
    assert [step.needs for step in made.steps] == [(), (f"upload {name}",), (f"prepare {name}",)]
    assert made.steps[0].pre == (("artifact.version", "absent"),)
    assert made.steps[2].pre == (("app.digest", ""),)


def test_two_apps_of_one_folder_share_upload_and_environment() -> None:
    code = some_code("shared")
    made = plan_of(a_desired(an_app("a", code=code), an_app("b", code=code)), a_live())
    assert len(made.steps) == 4
    assert made.steps[0].app_id is None
    assert step_of(made, "deploy a").needs == step_of(made, "deploy b").needs


def test_an_app_without_gpu_has_an_environment_of_its_own() -> None:
    code = some_code("shared")
    made = plan_of(a_desired(an_app("a", code=code), an_app("b", code=code, disable_gpu=True)), a_live())
    assert sum(address.startswith("prepare") for address in addresses(made)) == 2


def test_a_tree_that_is_stored_is_not_uploaded_again() -> None:
    old, new = an_app(code=some_code(content="v1")), an_app(code=some_code(content="v2"))
    stored = an_artifact(new, ArtifactVersion(old.spec.version, old.provenance.tree))
    made = plan_of(a_desired(old), a_live(a_status(new), artifacts=[stored]))
    assert addresses(made) == [f"prepare demo-app@{old.spec.version}", "update demo-app"]


def test_a_killed_upload_is_resumed() -> None:
    app = an_app()
    made = plan_of(a_desired(app), a_live(artifacts=[LiveArtifact(app.spec.artifact_id, (), staged=True)]))
    assert isinstance(made.steps[0].verb, UploadArtifact)
    assert made.steps[0].verb.resumes


@pytest.mark.parametrize(
    "spec",
    [
        {"authorized_users": ["anna"]},
        {"max_ongoing_requests": 3},
        {"replicas": {"*": 2}},
        {"rollout": {"surge": False}},
    ],
)
def test_what_running_replicas_can_take_over_is_one_step(spec: dict[str, Any]) -> None:
    app, live = changed(**spec)
    made = plan_of(a_desired(app), live)
    assert addresses(made) == ["update demo-app"]
    assert made.steps[0].effect.impact is Impact.IN_PLACE


def test_new_parameters_need_no_new_environment() -> None:
    app, live = changed(kwargs={"Main": {"size": 2}})
    made = plan_of(a_desired(app), live)
    assert addresses(made) == ["update demo-app"]
    assert made.steps[0].effect.impact is Impact.ROLLING_RESTART


def test_a_new_secret_value_restarts_the_app() -> None:
    app = an_app(secrets=a_secret("PIN"))
    made = plan_of(*a_world(app), {"demo-app": {"*/PIN": "0" * 16}})
    assert made.steps[0].effect.impact is Impact.ROLLING_RESTART
    assert made.steps[0].why == "the value of a secret changed where it is read from"


def test_an_update_holds_on_to_what_runs() -> None:
    app, live = changed(kwargs={"Main": {"size": 2}})
    assert plan_of(a_desired(app), live).steps[0].pre == (("app.digest", live.apps["demo-app"].digest),)


def test_a_chain_of_a_thousand_is_planned_from_its_end() -> None:
    ids = [f"a{number:04}" for number in range(1_000)]
    apps = [an_app(app_id, depends_on=tuple(ids[at + 1 : at + 2])) for at, app_id in enumerate(ids)]
    made = plan_of(a_desired(*apps), a_live())
    deploys = [address for address in addresses(made) if address.startswith("deploy ")]
    assert deploys == [f"deploy {app_id}" for app_id in reversed(ids)]


def test_a_dependency_comes_first() -> None:
    first, second = an_app("z-first"), an_app("a-second", depends_on=("z-first",))
    made = plan_of(a_desired(first, second), a_live())
    assert "deploy z-first" in step_of(made, "deploy a-second").needs
    assert addresses(made).index("deploy z-first") < addresses(made).index("deploy a-second")


def test_workers_are_scaled_by_their_bounds() -> None:
    desired = a_desired(compute={"mode": "slurm", "workers": {"min": 1, "max": 4}})
    made = plan_of(desired, a_live(mode="slurm", workers={"min": 0, "max": 4}))
    assert made.steps[0].verb == ScaleWorkers(1, 4)


def test_the_reason_names_folder_commit_and_subject() -> None:
    before = an_app(commit=OLD_COMMIT)
    app = an_app(code=some_code(content="v2"))
    desired = a_desired(app, changed={"apps/demo-app": (COMMIT, "Bump\x1b[31m it")})
    made = plan_of(desired, a_live(a_status(before)))
    assert step_of(made, "update demo-app").why == 'apps/demo-app changed in 9c1e7d2 "Bump�[31m it"'


def test_a_change_by_hand_is_undone_and_called_drift() -> None:
    made = plan_of(a_desired(an_app()), a_live(a_status(an_app(max_ongoing_requests=50))))
    assert made.steps[0].drift
    assert made.steps[0].why == "live differs from git (drift)"


# ── held ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_unseen_apps_are_not_absent_apps() -> None:
    made = plan_of(a_desired(an_app(), policy={"prune": True}), a_live(unseen=["apps"]))
    assert (made.steps, reasons(made)) == ((), {"demo-app": Reason.LIVE_STATE_UNKNOWN})


def test_with_unseen_artifacts_only_what_needs_none_is_done() -> None:
    new = an_app("new")
    in_place, live = changed("known", max_ongoing_requests=3)
    made = plan_of(a_desired(new, in_place), a_live(*live.worker.apps, unseen=["artifacts"]))  # type: ignore[union-attr]
    assert addresses(made) == ["update known"]
    assert reasons(made) == {"new": Reason.LIVE_STATE_UNKNOWN}


@pytest.mark.parametrize("owner", ["staging", None])
def test_an_app_of_somebody_else_is_left_alone(owner: str | None) -> None:
    state = a_status(an_app(owner=owner or "x", max_ongoing_requests=2))
    state = state if owner else state.model_copy(update={"provenance": None})
    made = plan_of(a_desired(an_app()), a_live(state))
    assert (made.steps, reasons(made)) == ((), {"demo-app": Reason.OWNERSHIP_CONFLICT})


def test_a_broken_declaration_is_not_a_removal() -> None:
    desired = a_desired(broken={"demo-app": (a_problem(),)}, policy={"prune": True, "removal_budget": "100%"})
    made = plan_of(desired, a_live(a_status(an_app())), prune_confirmed=9)
    assert (made.steps, reasons(made)) == ((), {"demo-app": Reason.INVALID_DECLARATION})


def test_a_removed_app_stays_while_prune_is_off() -> None:
    made = plan_of(a_desired(an_app("stays")), a_live(a_status(an_app("stays")), a_status(an_app("gone"))))
    assert (made.steps, reasons(made)) == ((), {"gone": Reason.PRUNE_DISABLED})
    assert made.held[0].action is Action.STOP


def test_a_removed_app_is_stopped_within_the_budget() -> None:
    stays = [an_app(f"app-{n}") for n in range(9)]
    states = [a_status(app) for app in [*stays, an_app("gone")]]
    made = plan_of(a_desired(*stays, policy={"prune": True}), a_live(*states))
    assert addresses(made) == ["stop gone"]


def test_over_budget_no_app_is_stopped() -> None:
    stays = [an_app(f"app-{n}") for n in range(8)]
    states = [a_status(app) for app in [*stays, an_app("gone"), an_app("gone-too")]]
    desired, live = a_desired(*stays, policy={"prune": True}), a_live(*states)
    held = plan_of(desired, live)
    assert set(reasons(held).values()) == {Reason.PRUNE_BUDGET_EXCEEDED}
    assert "--confirm-deletes 2" in held.held[0].fix
    assert addresses(plan_of(desired, live, prune_confirmed=2)) == ["stop gone", "stop gone-too"]


def test_a_file_that_names_no_app_at_all_removes_nothing_unless_it_is_meant() -> None:
    desired = a_desired(policy={"prune": True, "removal_budget": "100%"})
    live = a_live(a_status(an_app()))
    assert reasons(plan_of(desired, live)) == {"demo-app": Reason.SOURCE_EMPTY}
    assert addresses(plan_of(desired, live, prune_confirmed=1)) == ["stop demo-app"]


def test_nothing_is_stopped_in_the_pass_that_finds_history_rewritten_unless_it_is_meant() -> None:
    desired = a_desired(an_app("stays"), policy={"prune": True, "removal_budget": 5}, rewritten=True)
    live = a_live(a_status(an_app("stays")), a_status(an_app("gone")))
    assert reasons(plan_of(desired, live)) == {"gone": Reason.HISTORY_REWRITTEN}
    assert addresses(plan_of(desired, live, prune_confirmed=1)) == ["stop gone"]


def test_nothing_is_stopped_while_something_is_unseen() -> None:
    desired = a_desired(an_app("stays"), policy={"prune": True, "removal_budget": 5})
    live = a_live(a_status(an_app("stays")), a_status(an_app("gone")), unseen=["artifacts"])
    assert reasons(plan_of(desired, live)) == {"gone": Reason.LIVE_STATE_UNKNOWN}


@pytest.mark.parametrize("suspend", [True, "until Monday"])
def test_a_suspended_app_is_left_as_it_is(suspend: bool | str) -> None:
    app, live = changed(max_ongoing_requests=3, suspend=suspend)
    assert reasons(plan_of(a_desired(app), live)) == {"demo-app": Reason.SUSPENDED}


def test_a_version_that_did_not_come_up_is_not_tried_again() -> None:
    app, live = changed(kwargs={"Main": {"size": 2}})
    state = a_status(an_app(commit=OLD_COMMIT), rejected=app.spec.digest())
    desired, live = a_desired(app), a_live(state, artifacts=(live.artifacts or {}).values())
    assert reasons(plan_of(desired, live)) == {"demo-app": Reason.BAD_COMMIT}
    assert addresses(plan_of(desired, live, force=True)) == ["update demo-app"]
    other = a_desired(an_app(kwargs={"Main": {"size": 3}}))
    assert addresses(plan_of(other, live)) == ["update demo-app"]


@pytest.mark.parametrize(
    ("gate", "rollback", "said"),
    [
        ("start", "none", "tried and did not come up: it raised"),
        ("probe", "done", "tried and did not answer its probe rightly: it raised"),
        ("stable", "failed", "tried and did not stay healthy: it raised"),
    ],
)
def test_a_rejected_version_says_which_gate_it_failed(gate: Any, rollback: Any, said: str) -> None:
    app, _ = changed(kwargs={"Main": {"size": 2}})
    tried = Rejection(digest=app.spec.digest(), reason="it raised", at=0.0, gate=gate, rollback=rollback)
    state = a_status(an_app(commit=OLD_COMMIT)).model_copy(update={"rejected": tried})
    (held,) = plan_of(a_desired(app), a_live(state, artifacts=[an_artifact(app)])).held
    assert held.reason is Reason.BAD_COMMIT and held.message.endswith(said)
    assert "reconcile rollback demo-app" in held.fix and "reconcile retry demo-app" in held.fix


def test_a_rejected_version_is_tried_again_with_another_secret_while_the_old_one_serves() -> None:
    old = an_app(secrets=a_secret("PIN"))
    new = an_app(secrets=a_secret("PIN"), max_ongoing_requests=3)
    state = a_status(old, rejected=new.spec.digest())
    desired, live = a_desired(new), a_live(state, artifacts=[an_artifact(new)])
    assert reasons(plan_of(desired, live, {"demo-app": {"*/PIN": "f" * 16}})) == {"demo-app": Reason.BAD_COMMIT}
    assert "update demo-app" in addresses(plan_of(desired, live, {"demo-app": {"*/PIN": "0" * 16}}))


def test_a_first_version_that_did_not_come_up_is_tried_again_with_another_secret() -> None:
    app = an_app(secrets=a_secret("PIN"))
    state = a_status(app, status="DEPLOY_FAILED", rejected=app.spec.digest())
    desired, live = a_desired(app), a_live(state, artifacts=[an_artifact(app)])
    assert reasons(plan_of(desired, live, {"demo-app": {"*/PIN": "f" * 16}})) == {"demo-app": Reason.BAD_COMMIT}
    assert "update demo-app" in addresses(plan_of(desired, live, {"demo-app": {"*/PIN": "0" * 16}}))


def test_an_update_under_way_is_waited_for() -> None:
    app, live = changed(max_ongoing_requests=3)
    state = live.apps["demo-app"].model_copy(update={"updating": True})
    assert reasons(plan_of(a_desired(app), a_live(state))) == {"demo-app": Reason.UPDATING}


def test_an_app_that_is_being_stopped_is_waited_for() -> None:
    made = plan_of(a_desired(an_app()), a_live(a_status(an_app(), status="DELETING")))
    assert reasons(made) == {"demo-app": Reason.UPDATING}


def test_detect_only_reports_drift_and_leaves_it() -> None:
    desired = a_desired(an_app(), policy={"self_heal": "detect-only"})
    made = plan_of(desired, a_live(a_status(an_app(max_ongoing_requests=50))))
    assert reasons(made) == {"demo-app": Reason.SELF_HEAL_DISABLED}
    assert made.held[0].changes[0].after == "as the code says"


def test_without_self_heal_a_commit_is_still_followed() -> None:
    app, live = changed(max_ongoing_requests=3)
    assert addresses(plan_of(a_desired(app, policy={"self_heal": False}), live)) == ["update demo-app"]


@pytest.mark.parametrize("tree", [None, "0" * 40])
def test_a_version_with_other_content_is_never_overwritten(tree: str | None) -> None:
    app = an_app()
    stored = LiveArtifact(app.spec.artifact_id, (ArtifactVersion(app.spec.version, tree),))
    made = plan_of(a_desired(app), a_live(artifacts=[stored]))
    assert (made.steps, reasons(made)) == ((), {"demo-app": Reason.ARTIFACT_CONFLICT})


def test_an_artifact_version_that_is_not_there_cannot_be_deployed() -> None:
    app = an_app(code=None)
    assert reasons(plan_of(a_desired(app), a_live())) == {"demo-app": Reason.VERSION_UNKNOWN}
    assert addresses(plan_of(a_desired(app), a_live(artifacts=[an_artifact(app)])))[-1] == "deploy demo-app"


def test_an_artifact_of_another_workspace_is_for_the_runtime_to_find() -> None:
    app = an_app(code=None, artifact_id="other/thing")
    assert addresses(plan_of(a_desired(app), a_live()))[-1] == "deploy demo-app"


def test_a_dependency_that_neither_runs_nor_is_planned_holds_its_dependants() -> None:
    app = an_app("app", depends_on=("base",))
    desired = a_desired(app, broken={"base": (a_problem("base"),)})
    assert reasons(plan_of(desired, a_live()))["app"] is Reason.DEPENDENCY_NOT_READY
    assert "deploy app" in addresses(plan_of(desired, a_live(a_status(an_app("base")))))


def test_a_first_deployment_that_fits_nowhere_is_held_with_what_is_lacking() -> None:
    app = an_app(code=some_code(classes=[a_class(num_gpus=2)]))
    made = plan_of(a_desired(app), a_live(nodes=[a_node("gn07", CPU=8, GPU=1), a_node("gn08", CPU=0, GPU=2)]))
    assert reasons(made) == {"demo-app": Reason.INSUFFICIENT_CAPACITY}
    assert made.held[0].message == "Main needs 1 CPU, 2 GPU: node gn07 lacks 1 GPU, node gn08 lacks 1 CPU"


def test_apps_of_one_plan_do_not_take_the_same_room() -> None:
    made = plan_of(a_desired(an_app("a"), an_app("b"), an_app("c")), a_live(nodes=[a_node(CPU=2)]))
    assert reasons(made) == {"c": Reason.INSUFFICIENT_CAPACITY}


@pytest.mark.parametrize("worker", [{"nodes": []}, {"nodes": [a_node(CPU=0)], "mode": "slurm"}])
def test_room_that_nobody_can_tell_holds_nothing(worker: dict[str, Any]) -> None:
    assert not plan_of(a_desired(an_app()), a_live(**worker)).held


def test_only_targets_are_touched() -> None:
    made = plan_of(a_desired(an_app("a"), an_app("b")), a_live(), targets=frozenset({"a"}))
    assert "deploy a" in addresses(made)
    assert reasons(made) == {"b": Reason.NOT_TARGETED}


# ── said besides ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unhealthy_app_is_reported_and_not_touched() -> None:
    state = a_status(an_app(), status="UNHEALTHY", message="check_health raised")
    made = plan_of(a_desired(an_app()), a_live(state))
    assert made.empty
    assert made.notes == ("demo-app runs what git says and is UNHEALTHY: check_health raised",)


def test_secrets_that_could_not_be_compared_are_named() -> None:
    made = plan_of(*a_world(an_app(secrets=a_secret("PIN"))))
    assert made.notes == ("demo-app: 1 secret not compared (PIN)",)


def test_a_target_that_does_not_exist_is_said() -> None:
    made = plan_of(*a_world(an_app()), targets=frozenset({"typo"}))
    assert made.notes == ("--target typo: there is no such app",)
