"""The laws, over generated worlds. Each was seen failing: the docstring names the change that it caught."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.status import WorkerState
from reconciler.planning import drift, plan_file, render_markdown, render_text
from reconciler.planning.diff import WORKERS, Kind, differences
from reconciler.planning.live import LiveState
from reconciler.planning.planner import plan
from reconciler.planning.steps import (
    DeployApp,
    Impact,
    Outcome,
    Plan,
    PrepareRuntimeEnv,
    Reason,
    Result,
    ScaleWorkers,
    Step,
    StopApp,
    UpdateApp,
    UploadArtifact,
)
from tests.builders import a_class, an_app, some_code
from tests.planning.simulator import apply_steps, staging
from tests.planning.worlds import CANARY, World, fleets, worlds

LAW = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def plan_of(world: World, live: LiveState | None = None) -> Plan:
    return plan(world.desired, live or world.live, world.fingerprints, world.options)


def after(world: World, steps: tuple[Step, ...] | list[Step], live: LiveState | None = None) -> LiveState:
    return apply_steps(live or world.live, steps, world.desired, world.fingerprints)


def touched(plan: Plan) -> list[str]:
    """Ids of the apps that a plan writes to, and the workers."""
    return [
        WORKERS if isinstance(step.verb, ScaleWorkers) else step.app_id or ""
        for step in plan.steps
        if isinstance(step.verb, ScaleWorkers | DeployApp | UpdateApp | StopApp)
    ]


@LAW
@given(worlds())
def test_every_difference_is_resolved_or_held_and_never_both(world: World) -> None:
    """Caught: an untargeted removal forgotten; a held app acted on as well; a plan without steps."""
    made = plan_of(world)
    held, acted = [held.app_id for held in made.held], touched(made)
    for reason in {held.reason for held in made.held}:
        event(f"held {reason}")
    found = sorted(difference.app_id for difference in differences(world.desired, world.live, world.fingerprints))
    assert sorted(held + acted) == found
    assert set(made.unchanged) | {*held, *acted} >= world.desired.apps.keys()
    assert not set(made.unchanged) & {*held, *acted}


@LAW
@given(worlds())
def test_what_is_unseen_or_not_ours_is_never_touched(world: World) -> None:
    """Caught: owners not compared; unseen artifacts taken for none; targets ignored; a broken app pruned."""
    made = plan_of(world)
    for step in made.steps:
        if isinstance(step.verb, DeployApp | UpdateApp | StopApp):
            assert world.live.worker is not None
            running = world.live.apps.get(step.app_id or "")
            assert running is None or (running.provenance and running.provenance.owner == world.desired.cluster.name)
            assert step.app_id not in world.desired.broken
        if isinstance(step.verb, UploadArtifact):
            assert world.live.artifacts is not None
            artifact = world.live.artifacts.get(step.verb.artifact_id)
            assert artifact is None or artifact.version(step.verb.version) is None
        if isinstance(step.verb, ScaleWorkers):
            assert world.live.worker is not None
    if world.options.targets:
        assert set(touched(made)) <= world.options.targets


@LAW
@given(worlds())
def test_a_step_needs_only_earlier_steps_and_each_address_is_there_once(world: World) -> None:
    """Caught: dependants planned first, so held for nothing; no edge to a dependency; a start that skips its
    environment; an environment before its upload."""
    made = plan_of(world)
    earlier: set[str] = set()
    for step in made.steps:
        assert set(step.needs) <= earlier, step
        assert step.address not in earlier
        earlier.add(step.address)
    by_address = {step.address: step for step in made.steps}
    for step in made.steps:
        if isinstance(step.verb, DeployApp | UpdateApp):
            app = world.desired.apps[step.verb.spec.app_id]
            others = {f"{word} {needed}" for needed in app.depends_on for word in ("deploy", "update")}
            needed = _all_needs(step, by_address)
            assert others & earlier <= needed
            if step.effect.impact is not Impact.IN_PLACE:
                assert {one.address for one in made.steps if _is_for_code_of(one, step.verb.spec)} <= needed
    for held in made.held:
        if held.reason is Reason.DEPENDENCY_NOT_READY:
            ready = {step.app_id for step in made.steps} | {
                app.app_id for app in world.live.apps.values() if app.status == "RUNNING"
            }
            assert set(world.desired.apps[held.app_id].depends_on) - ready


def _all_needs(step: Step, steps: dict[str, Step]) -> set[str]:
    return set(step.needs).union(*(_all_needs(steps[address], steps) for address in step.needs))


def _is_for_code_of(step: Step, spec: AppSpec) -> bool:
    """The upload of an app's code, and the building of its environment if that is for its sake."""
    match step.verb:
        case UploadArtifact(artifact_id, version):
            return (artifact_id, version) == (spec.artifact_id, spec.version)
        case PrepareRuntimeEnv(prepared):
            return prepared == spec
        case _:
            return False


@LAW
@given(worlds())
def test_one_pass_makes_it_so_and_the_next_does_nothing(world: World) -> None:
    """Caught, first half: no steps at all; changes in place not seen. Second half: commits compared beside digests;
    a fingerprint that the runtime does not know taken for a change; unseen apps taken for none."""
    made = plan_of(world)
    live = after(world, made.steps)
    for step in made.steps:
        match step.verb:
            case DeployApp() | UpdateApp():
                running = live.apps[step.app_id or ""]
                assert running.digest == world.desired.apps[running.app_id].spec.digest()
            case StopApp():
                assert step.app_id not in live.apps
    held = {held.app_id for held in made.held}
    for app_id, app in world.desired.apps.items():
        assert app_id in held or live.apps[app_id].digest == app.spec.digest()
    again = plan_of(world, live)
    assert again.steps == ()
    assert {held.app_id for held in again.held} == held


@LAW
@given(worlds(), st.data())
def test_a_crash_after_any_step_and_a_second_pass_end_in_the_same_state(world: World, data: st.DataObject) -> None:
    """Caught: uploads that do not resume; a stored version that stops the deployment."""
    made = plan_of(world)
    done: list[Step] = []
    for step in made.steps:  # any set of steps that holds what each of them needs: apply works on several at once
        ready = set(step.needs) <= {one.address for one in done}
        if ready and data.draw(st.booleans(), label=step.address):
            done.append(step)
    live = after(world, done)
    halfway = [step for step in made.steps if isinstance(step.verb, UploadArtifact) and step not in done]
    if halfway and data.draw(st.booleans(), label="killed within an upload"):
        live = staging(live, halfway[0])
    second = plan_of(world, live)
    for step in second.steps:
        if isinstance(step.verb, UploadArtifact) and (live.artifacts or {}).get(step.verb.artifact_id):
            assert step.verb.resumes == (live.artifacts or {})[step.verb.artifact_id].staged
    assert _state(after(world, second.steps, live)) == _state(after(world, made.steps))


def _state(live: LiveState) -> object:
    """Everything that a reader of live could tell apart, but leftovers of an upload that nobody needs any more."""
    artifacts = {
        name: sorted(version.name for version in artifact.versions)
        for name, artifact in (live.artifacts or {}).items()
        if artifact.versions
    }
    return live.worker, artifacts


@LAW
@given(worlds(), st.randoms(use_true_random=False))
def test_equal_inputs_in_any_order_give_the_same_bytes(world: World, random: object) -> None:
    """Caught: differences, and problems, in the order in which they came."""
    shuffled = _shuffled(world, random)
    one, other = (json.dumps(plan_file.to_json(plan_of(w), "")) for w in (world, shuffled))
    assert one == other
    assert render_text.render(plan_of(world), command="x") == render_text.render(plan_of(shuffled), command="x")


def _shuffled(world: World, random) -> World:
    def mixed(table):
        items = list(table.items())
        random.shuffle(items)
        return dict(items)

    worker = world.live.worker
    if worker is not None:
        apps = list(worker.apps)
        random.shuffle(apps)
        worker = WorkerState.model_construct(**{**worker.__dict__, "apps": apps})
    live = replace(
        world.live,
        worker=worker,
        artifacts=None if world.live.artifacts is None else mixed(world.live.artifacts),
        unseen=tuple(reversed(world.live.unseen)),
    )
    desired = replace(world.desired, apps=mixed(world.desired.apps), broken=mixed(world.desired.broken))
    return replace(world, desired=desired, live=live, fingerprints=mixed(world.fingerprints))


@LAW
@given(worlds())
def test_no_more_is_stopped_than_policy_or_a_person_allows(world: World) -> None:
    """Caught: no budget; policy.prune ignored; removals while something was unseen."""
    made = plan_of(world)
    stops = [step for step in made.steps if isinstance(step.verb, StopApp)]
    event(f"{len(stops)} stopped")
    policy, name = world.desired.cluster.policy, world.desired.cluster.name
    owned = [app for app in world.live.apps.values() if app.provenance and app.provenance.owner == name]
    created = [step for step in made.steps if isinstance(step.verb, DeployApp)]
    allowed = max(policy.removals_allowed(len(owned) + len(created)), world.options.prune_confirmed)
    assert len(stops) <= allowed
    if stops:
        assert policy.prune
        assert world.live.complete
        assert world.desired.apps or world.desired.broken or world.options.prune_confirmed >= len(stops)


@LAW
@given(fleets())
def test_a_fleet_of_any_size_converges_within_its_budget(world: World) -> None:
    """Caught: a budget that grows with what the same plan starts; the empty source not refused; two apps given
    the same room; removals while something was unseen."""
    made = plan_of(world)
    stops = [step for step in made.steps if isinstance(step.verb, StopApp)]
    event(f"{bool(stops)=}")
    live = after(world, made.steps)
    assert plan_of(world, live).steps == ()
    assert all(free >= 0 for node in (live.worker.nodes if live.worker else ()) for free in node.free.values())
    fleet = len({step.app_id for step in made.steps if isinstance(step.verb, DeployApp)} | world.live.apps.keys())
    assert len(stops) <= max(world.desired.cluster.policy.removals_allowed(fleet), world.options.prune_confirmed)
    assert world.live.complete or not stops
    if not world.desired.apps:
        assert len(stops) <= world.options.prune_confirmed


@LAW
@given(worlds())
def test_no_secret_value_is_in_any_output(world: World) -> None:
    """Caught: names of secrets not hidden where the other side has the value in plain sight."""
    made = plan_of(world)
    failed = [Outcome(step.address, Result.FAILED, "it did not start") for step in made.steps]
    outputs = [
        render_text.render(made, command="reconcile apply").plain,
        render_markdown.render(made),
        json.dumps(plan_file.to_json(made, "")),
        json.dumps(drift.report(made, world.live, failed)),
    ]
    for output in outputs:
        assert CANARY not in output


@LAW
@given(worlds(), st.sampled_from(("aaa", "zzz")))
def test_an_unrelated_app_leaves_the_other_steps_as_they_are(world: World, app_id: str) -> None:
    """A budget that is a share grows with the fleet, so removals are another matter. Caught: each app waiting for
    those planned before it."""
    alone = plan_of(world)
    other = an_app(app_id, code=some_code("unrelated", classes=[a_class(num_cpus=0)]))
    more = replace(world, desired=replace(world.desired, apps={**world.desired.apps, app_id: other}))
    mine = {f"deploy {app_id}", *(step.address for step in plan_of(more).steps if "unrelated" in step.address)}
    assert [
        step for step in plan_of(more).steps if step.address not in mine and not isinstance(step.verb, StopApp)
    ] == [step for step in alone.steps if not isinstance(step.verb, StopApp)]


@LAW
@given(worlds())
def test_a_saved_plan_is_the_same_plan_until_something_moves(world: World) -> None:
    """Caught: foreign apps stopped (the next plan then fails its preconditions)."""
    made = plan_of(world)
    document = json.loads(json.dumps(plan_file.to_json(made, "2026-01-01T00:00:00Z")))
    assert plan_file.differences(document, plan_of(world)) == ()
    assert plan_file.from_json(document).options == world.options
    if made.steps:
        assert plan_file.differences(document, plan_of(world, after(world, made.steps[:1]))) or not _visible(
            made.steps[0]
        )


def _visible(step: Step) -> bool:
    """Whether doing the step alone changes what is seen: building an environment does not."""
    return isinstance(step.verb, UploadArtifact | DeployApp | UpdateApp | StopApp | ScaleWorkers)


@LAW
@given(worlds(), st.data())
def test_a_change_by_hand_makes_a_saved_plan_stale(world: World, data: st.DataObject) -> None:
    """Also where the steps stay the same, as for an app that is held. Caught: live left out of the digest."""
    worker = world.live.worker
    ours = [app for app in worker.apps if app.app_id in world.desired.apps] if worker else []
    if worker is None or not ours:
        return
    at = data.draw(st.sampled_from(range(len(ours))))
    apps = [app.model_copy(update={"digest": "2" * 64}) if app is ours[at] else app for app in worker.apps]
    moved = replace(world.live, worker=worker.model_copy(update={"apps": apps}))
    document = plan_file.to_json(plan_of(world), "")
    assert "what runs or is stored changed since" in plan_file.differences(document, plan_of(world, moved))


def test_every_kind_of_difference_is_generated() -> None:
    seen: set[Kind] = set()

    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @given(worlds())
    def look(world: World) -> None:
        seen.update(found.kind for found in differences(world.desired, world.live, world.fingerprints))

    look()
    assert seen == set(Kind)
