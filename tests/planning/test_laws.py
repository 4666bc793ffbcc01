"""The laws, over generated worlds. Each was seen failing: the docstring names the change that it caught."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.status import WorkerState
from reconciler.planning import backoff, drift, plan_file, render_markdown, render_text
from reconciler.planning.declare import declare
from reconciler.planning.desired import DesiredApp
from reconciler.planning.diff import WORKERS, Kind, differences, failed_and_stays
from reconciler.planning.live import ArtifactVersion, LiveState
from reconciler.planning.planner import plan
from reconciler.planning.steps import (
    Action,
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
from tests.builders import WORKSPACE, a_class, a_desired, a_live, an_app, some_code
from tests.fakes import FakeSource, an_app_folder
from tests.planning.simulator import apply_step, apply_steps, staging
from tests.planning.worlds import CANARY, World, fleets, worlds

LAW = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SLOW_LAW = settings(LAW, max_examples=60)


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
    """RP-08. Caught: an untargeted removal forgotten; a held app acted on as well; a plan without steps."""
    made = plan_of(world)
    held, acted = [held.app_id for held in made.held], touched(made)
    for reason in {held.reason for held in made.held}:
        event(f"held {reason}")
    insists_on = world.options.insists_on
    found = sorted(one.app_id for one in differences(world.desired, world.live, world.fingerprints, insists_on))
    assert sorted(held + acted) == found
    assert set(made.unchanged) | {*held, *acted} >= world.desired.apps.keys()
    assert not set(made.unchanged) & {*held, *acted}


@LAW
@given(worlds())
def test_what_is_unseen_or_not_ours_is_never_touched(world: World) -> None:
    """RP-06. Caught: owners not compared; unseen artifacts taken for none; targets ignored; a broken app pruned."""
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
    """RP-04. Caught: dependants planned first, so held for nothing; no edge to a dependency; a start that skips its
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
        if held.reason is Reason.DEPENDENCY_NOT_READY and held.action is not Action.STOP:
            ready = {step.app_id for step in made.steps} | {
                app.app_id for app in world.live.apps.values() if app.status == "RUNNING" and not failed_and_stays(app)
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
    """RP-02. Caught, first half: no steps at all; changes in place not seen. Second half: commits compared beside
    digests; a fingerprint that the runtime does not know taken for a change; unseen apps taken for none."""
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
    """RP-03. Caught: uploads that do not resume; a stored version that stops the deployment."""
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
    """RP-01. Caught: differences, and problems, in the order in which they came."""
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
    """RP-05. Caught: no budget; policy.prune ignored; removals while something was unseen."""
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
    """RP-02, RP-05. Caught: a budget that grows with what the same plan starts; the empty source not refused; two apps
    given the same room; removals while something was unseen."""
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
    """RP-09. Caught: names of secrets not hidden where the other side has the value in plain sight."""
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
    """RP-13. A budget that is a share grows with the fleet, so removals are another matter. Caught: each app waiting
    for those planned before it."""
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


@LAW
@given(worlds())
def test_an_app_keeps_its_id(world: World) -> None:
    """RP-07. Caught: an id made up by the planner; a declaration put under another's address."""
    for step in plan_of(world).steps:
        match step.verb:
            case DeployApp(spec) | UpdateApp(spec):
                assert step.app_id == spec.app_id and spec == world.desired.apps[spec.app_id].spec
                assert step.address.split() == ["deploy" if isinstance(step.verb, DeployApp) else "update", spec.app_id]
            case StopApp(app_id):
                assert step.app_id == app_id and step.address == f"stop {app_id}" and app_id in world.live.apps
            case _:
                pass


@LAW
@given(worlds())
def test_replicas_asked_for_are_those_kept_and_started_less_those_stopped(world: World) -> None:
    """RP-08. Caught: an update that leaves `replicas` as they were; a removal counted as an update."""
    made = plan_of(world)
    before, after_ = world.live.apps, after(world, made.steps).apps
    started = [step.app_id or "" for step in made.steps if isinstance(step.verb, DeployApp | UpdateApp)]
    stopped = {step.app_id for step in made.steps if isinstance(step.verb, StopApp | UpdateApp)}
    kept = sum(_replicas(app.spec) for app_id, app in before.items() if app_id not in stopped)
    asked = sum(_replicas(app.spec) for app in after_.values())
    assert asked == kept + sum(_replicas(world.desired.apps[app_id].spec) for app_id in started)
    for app_id in set(made.unchanged) & before.keys():
        assert asked and _replicas(before[app_id].spec) == _replicas(world.desired.apps[app_id].spec)


def _replicas(spec: AppSpec | None) -> int:
    return spec.replicas.get("*", 1) if spec else 1


@SLOW_LAW
@given(worlds(), st.data())
def test_versions_only_grow_and_going_back_uploads_nothing(world: World, data: st.DataObject) -> None:
    """RP-11. Caught: a version that does not depend on the content; stored versions of an app not looked at."""
    first = after(world, plan_of(world).steps)
    newer = {app_id: _edited(app) if data.draw(st.booleans()) else app for app_id, app in world.desired.apps.items()}
    pushed = replace(world, desired=replace(world.desired, apps=newer))
    second = after(pushed, plan_of(pushed, first).steps, first)
    for artifact_id, artifact in (first.artifacts or {}).items():
        assert set(artifact.versions) <= set((second.artifacts or {})[artifact_id].versions)
    uploads = [step.verb for step in plan_of(world, second).steps if isinstance(step.verb, UploadArtifact)]
    known = {name for artifact in (first.artifacts or {}).values() for name in artifact.versions}
    assert not [upload for upload in uploads if _version(upload) in known]
    if not plan_of(world).held:  # then all was stored, but for what ran already although nobody had stored it
        ran = {app.spec.version for app in world.live.apps.values() if app.spec}
        assert {upload.version for upload in uploads} <= ran


def _edited(app: DesiredApp) -> DesiredApp:
    """The same app after a push to its folder: another tree, so another version."""
    if app.code is None:
        return app
    code = some_code(app.code.manifest.id, content="edited", classes=app.code.classes)
    changed = an_app(app.app_id, code=code)
    kept = {"version": changed.spec.version, "artifact_id": changed.spec.artifact_id}
    return replace(app, spec=app.spec.model_copy(update=kept), code=code, provenance=changed.provenance)


def _version(upload: UploadArtifact) -> ArtifactVersion:
    return ArtifactVersion(upload.version, upload.folder.tree)


@SLOW_LAW
@given(worlds(), st.data())
def test_whatever_fails_and_however_often_it_ends_well_or_stalled_and_does_not_swing(
    world: World, data: st.DataObject
) -> None:
    """RP-12. Each pass writes to an app once at most; what came up is left alone from then on; what was rejected is
    tried once. Caught: rejected versions not held; digests compared by the commit they came from."""
    world = replace(world, options=replace(world.options, force=False))
    bad = {app.spec.digest() for app in world.desired.apps.values() if data.draw(st.booleans(), label=app.app_id)}
    live, tried, settled = world.live, list[str](), set[str]()
    for number in range(MOST_PASSES):
        made = plan_of(world, live)
        writes = touched(made)
        assert len(set(writes)) == len(writes)
        assert not settled & set(writes)
        # Nothing fails for ever.
        works = (lambda: data.draw(st.booleans())) if number < MOST_PASSES - 3 else (lambda: True)
        live, done = _some_of(made, world, live, bad, works)
        tried += [digest for step in done if (digest := _brings(step)) in bad]
        settled |= {step.app_id or "" for step in done if isinstance(step.verb, DeployApp | UpdateApp)}
    assert len(tried) == len(set(tried))
    assert plan_of(world, live).steps == ()


MOST_PASSES = 7


def _some_of(made: Plan, world: World, live: LiveState, bad: set[str], works: Callable[[], bool]):
    """Live after a pass in which some steps fail, and stop what needs them; with the steps that were done."""
    done: list[Step] = []
    for step in made.steps:
        if set(step.needs) <= {one.address for one in done} and works():
            live = apply_step(live, step, world.desired, world.fingerprints, bad)
            done.append(step)
    return live, done


def _brings(step: Step) -> str:
    return step.verb.spec.digest() if isinstance(step.verb, DeployApp | UpdateApp) else ""


def test_rp_12_each_failure_of_one_content_makes_its_app_rest_longer_and_only_that_app() -> None:
    """Caught: a rest that another app's failure begins; tries counted on when git has something new."""
    mine, other = an_app("mine"), an_app("other")
    made = plan(a_desired(mine, other), a_live(), {})
    failed = [Outcome(step.address, Result.FAILED if step.app_id == "mine" else Result.DONE) for step in made.steps]
    resting: Mapping[str, backoff.Rest] = {}
    slots: list[float] = []
    for now in range(0, 12_000, 1_000):
        resting = backoff.after(resting, made, failed, now)
        assert resting.keys() == {"mine"}
        slots.append(resting["mine"].until - now)
    assert slots == sorted(slots) and slots[0] == backoff.SHORTEST_S and slots[-1] == backoff.LONGEST_S
    pushed = plan(a_desired(_edited(mine), other), a_live(), {})
    again = [Outcome(step.address, Result.FAILED) for step in pushed.steps]
    assert backoff.after(resting, pushed, again, 0.0)["mine"].until == backoff.SHORTEST_S


CLUSTER_YAML = """\
name: lab
apps:
  one: {source: apps/one, env: {"*": {LEVEL: "1", DEBUG: "0"}}, replicas: {"*": 2}}
  two: {source: apps/two}
"""
PERMUTED = """\
# who runs what
apps:
  two:
    source: apps/two
  one:
    replicas: {"*": 2}
    env: {"*": {DEBUG: "0", LEVEL: "1"}}   # not so loud
    source: apps/one
name: lab
"""
MOVED = CLUSTER_YAML.replace("source: apps/one", "source: apps/uno")


@pytest.mark.parametrize(
    "change",
    [
        {"cluster.yaml": PERMUTED},
        {"cluster.yaml": MOVED}
        | {name.replace("apps/one", "apps/uno"): text for name, text in an_app_folder("one").items()}
        | dict.fromkeys(an_app_folder("one")),
        {"docs/about.md": "An app\n"},
    ],
    ids=["keys permuted and comments added", "folder renamed", "file beside the apps"],
)
async def test_rp_13_a_change_that_asks_for_nothing_else_does_nothing(change: dict[str, str | None]) -> None:
    """Caught: the path of the folder compared; the text of cluster.yaml compared instead of what it says."""
    source = FakeSource({"cluster.yaml": CLUSTER_YAML, **an_app_folder("one"), **an_app_folder("two")})
    before = declare(await source.fetch(), workspace=WORKSPACE)
    live = apply_steps(a_live(), plan(before, a_live(), {}).steps, before, {})
    source.commit(change)
    after_ = plan(declare(await source.fetch(), workspace=WORKSPACE), live, {})
    assert (after_.steps, after_.held, after_.unchanged) == ((), (), ("one", "two"))


def test_every_kind_of_difference_is_generated() -> None:
    seen: set[Kind] = set()

    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @given(worlds())
    def look(world: World) -> None:
        seen.update(found.kind for found in differences(world.desired, world.live, world.fingerprints))

    look()
    assert seen == set(Kind)
