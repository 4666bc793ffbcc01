"""Offline plans: as if another commit had been carried out. Laws over generated pairs of commits, and what is said."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import event, given

from bioengine_runtime.contract.base import SecretFromAge, SecretFromEnv, SecretRef
from bioengine_runtime.contract.cluster import Suspension
from reconciler.planning import plan_file, plan_lines, render_markdown, render_text
from reconciler.planning.desired import DesiredApp, DesiredState
from reconciler.planning.planner import plan
from reconciler.planning.steps import Action, DeployApp, Plan, PlanOptions, Reason, StopApp, UpdateApp
from reconciler.planning.supposed import plan_since, references, supposed
from tests.builders import NOW, a_desired, a_live, a_problem, a_revision, an_app, some_code
from tests.planning.simulator import apply_steps
from tests.planning.test_laws import LAW
from tests.planning.worlds import World, worlds

BASE = "b45e000" + "0" * 33
NONE = PlanOptions()


def based(desired: DesiredState) -> DesiredState:
    """The same, as an older commit says it."""

    def older(app: DesiredApp) -> DesiredApp:
        return replace(app, provenance=app.provenance.model_copy(update={"commit": BASE}))

    apps = {app_id: older(app) for app_id, app in desired.apps.items()}
    return replace(desired, apps=apps, revision=a_revision(commit=BASE, ref="main", subject="Before"))


def whole(desired: DesiredState) -> DesiredState:
    """Without what would not be carried out: broken and suspended apps."""
    names = desired.apps.keys()
    apps = {
        app_id: replace(app, suspend=False, depends_on=tuple(one for one in app.depends_on if one in names))
        for app_id, app in desired.apps.items()
    }
    return replace(desired, apps=apps, broken={})


def offline(desired: DesiredState, then: DesiredState) -> Plan:
    return plan_since(desired, based(then), NONE, NOW)


# ── laws ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@LAW
@given(worlds())
def test_rp_02_a_commit_has_nothing_to_do_after_itself(world: World) -> None:
    """Caught: artifacts, bounds of workers, secrets, digests left out of what is supposed."""
    made = plan_since(world.desired, world.desired, NONE, NOW)
    assert made.steps == ()
    assert {held.app_id: held.reason for held in made.held} == dict.fromkeys(
        world.desired.broken, Reason.INVALID_DECLARATION
    )
    assert made.credentials == ()


@LAW
@given(worlds(), worlds())
def test_what_is_supposed_is_what_carrying_it_out_would_make(older: World, newer: World) -> None:
    """Caught: the version of an artifact kept for one of two apps only; provenance of the newer commit; drift."""
    then = based(whole(older.desired))
    empty = a_live(mode=then.cluster.compute.mode, workspace="")
    first = plan(then, empty, references(then))
    assert not first.held
    live = apply_steps(empty, first.steps, then, references(then))
    guess = supposed(then, NOW)
    assert (guess.apps, guess.artifacts) == (live.apps, live.artifacts)

    known, options = references(newer.desired), newer.options
    real = plan(newer.desired, live, known, options)
    made = plan(newer.desired, replace(guess, supposed=None), known, options)
    event(f"{len(made.steps)} steps")
    assert (made.steps, made.held, made.unchanged, made.live_digest) == (
        real.steps,
        real.held,
        real.unchanged,
        real.live_digest,
    )
    assert not any(step.drift for step in made.steps)


# ── secrets ────────────────────────────────────────────────────────────────────────────────────────────────────────


def age(text: str, where: str) -> SecretRef:
    sealed = base64.b64encode(f"age-encryption.org/v1\n{text}".encode()).decode()
    return SecretFromAge(age=sealed).at(where)


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (SecretFromEnv(env="CI_PASS"), SecretFromEnv(env="CI_PASS"), False),
        (SecretFromEnv(env="CI_PASS"), SecretFromEnv(env="OTHER"), True),
        (age("sealed", "cluster.yaml:7"), age("sealed", "cluster.yaml:9"), False),
        (age("sealed", "cluster.yaml:7"), age("sealed anew", "cluster.yaml:7"), True),
        (SecretFromEnv(env="CI_PASS"), age("sealed", "cluster.yaml:7"), True),
    ],
)
def test_a_secret_is_compared_by_where_it_is_read_from(before: SecretRef, after: SecretRef, changed: bool) -> None:
    """Caught: the line of an age text compared; no secret ever changed."""
    made = offline(
        a_desired(an_app("one", secrets={"*": {"PASS": after}})),
        a_desired(an_app("one", secrets={"*": {"PASS": before}})),
    )
    assert made.unchanged == (() if changed else ("one",))
    for step in made.steps:
        assert step.why == "a secret is read from elsewhere"
        assert [(change.field, change.after) for change in step.changes] == [("env.*.PASS", "(secret changed)")]
    assert not made.notes


# ── what cannot be supposed ────────────────────────────────────────────────────────────────────────────────────────


def test_rp_06_an_app_that_is_broken_in_that_commit_is_not_known_rather_than_absent() -> None:
    """Caught: the repaired app called new; one that is removed with its repair forgotten."""
    broken = {"one": (a_problem("one"),), "two": (a_problem("two"),)}
    needs = an_app("needs", depends_on=("one",))
    made = offline(a_desired(an_app("one"), needs, an_app("three")), a_desired(broken=broken))
    held = {one.app_id: one for one in made.held}
    assert held.keys() == {"one", "two", "needs"}
    for app_id in ("one", "two"):
        assert held[app_id].reason is Reason.LIVE_STATE_UNKNOWN and held[app_id].action is Action.UNKNOWN
        assert "its declaration is broken in main@sha1:b45e000" in held[app_id].message
    assert "one, which is not known" in held["needs"].message
    assert [step.app_id for step in made.steps if isinstance(step.verb, DeployApp)] == ["three"]


def test_what_may_be_otherwise_even_where_git_is_followed_is_said() -> None:
    one = an_app("one")
    moved = a_desired(one)
    hypha = moved.cluster.hypha.model_copy(update={"workspace": "elsewhere"})
    moved = replace(moved, cluster=moved.cluster.model_copy(update={"hypha": hypha}))
    notes = offline(moved, a_desired(replace(one, suspend="until Monday"))).notes
    assert notes == (
        "cluster.yaml leads to another Hypha, workspace or worker than in main@sha1:b45e000; what runs there is not "
        "known",
        "one is suspended in main@sha1:b45e000, so what runs of it may be older",
    )
    assert offline(a_desired(one), a_desired(one)).notes == ()


def test_a_suspension_that_has_ended_leaves_no_doubt() -> None:
    ended = Suspension(reason="maintenance", until=datetime.fromtimestamp(NOW - 60, UTC))
    assert offline(a_desired(an_app("one")), a_desired(an_app("one", suspend=ended))).notes == ()


def test_it_waits_for_nobody_and_belongs_to_nobody() -> None:
    """Who would apply it is not known, so no right is missing. Caught: removals held for an anonymous user."""
    policy = {"apply": "manual", "prune": True, "removal_budget": "100%", "pruners": ["ann@lab.example"]}
    made = offline(a_desired(an_app("one"), policy=policy), a_desired(an_app("one"), an_app("two")))
    assert [step.verb for step in made.steps] == [StopApp("two")] and not made.held
    assert (made.id, made.gate) == ("", None)


# ── what is said ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def made() -> Plan:
    before = an_app("one", code=some_code("one", content="v0"))
    return offline(a_desired(an_app("one"), an_app("two")), a_desired(before))


def test_the_text_says_what_it_was_compared_with_and_what_it_does_not_know(made: Plan) -> None:
    text = render_text.render(made, command="reconcile plan lab").plain
    assert "NOT ASKED: this is an offline plan" in text
    assert 'Supposed everything runs as main@sha1:b45e000 "Before" says, and is well' in text
    assert "Unknown: whether that commit is what runs; changes by hand (drift), free resources" in text
    assert "Offline plan: 1 to create, 1 to update, 0 to stop." in text
    assert "cluster.yaml:7:3 asks for it, and main@sha1:b45e000 does not" in text
    assert text.endswith("It cannot be applied. The plan for what really runs:\n    reconcile plan lab")
    assert "complete" not in text and "Apply it" not in text and "Plan id" not in text


def test_the_comment_says_so_before_anything_else(made: Plan) -> None:
    head = render_markdown.render(made).partition("| app |")[0]
    assert head.startswith("<!-- reconcile:prod -->\n### reconcile <code>prod</code>, offline: 1 to create")
    assert "; it is made again" not in render_markdown.render(made)
    assert "**Offline plan:** nobody was asked what runs." in head and "Not known: whether that commit" in head


def test_no_program_takes_it_for_a_plan_of_what_runs(made: Plan) -> None:
    """Caught: `since` lost from the lines; the live state called complete."""
    document = json.loads(json.dumps(plan_file.to_json(made, "")))
    assert document["since"]["commit"] == BASE and document["live"]["complete"] is False
    first, *_, last = plan_lines.lines(made, "")
    assert first["since"]["commit"] == BASE and last["complete"] is False
    assert plan_file.to_json(replace(made, since=None), "")["since"] is None


def test_it_cannot_be_applied_and_not_be_made_to_look_so(made: Plan) -> None:
    """SP-07: a file without the mark is another file than the one that was written."""
    document = json.loads(json.dumps(plan_file.to_json(made, "")))
    with pytest.raises(ValueError, match="offline plan"):
        plan_file.from_json(document)
    edited = {**document, "since": None}
    assert plan_file.from_json(edited).commit == made.revision.commit
    (moved,) = plan_file.differences(edited, replace(made, since=None))
    assert "changed after it was written" in moved


def test_a_changed_folder_is_an_update_of_the_app_that_is_supposed_to_run(made: Plan) -> None:
    (update,) = [step for step in made.steps if isinstance(step.verb, UpdateApp)]
    assert update.app_id == "one" and update.why.startswith("apps/one changed") and not update.drift
