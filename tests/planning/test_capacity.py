"""What a plan takes: room, time, and the order in which apps wait for each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.planning import plan_file
from reconciler.planning.planner import plan
from reconciler.planning.render_text import render
from reconciler.planning.shown import duration
from reconciler.planning.steps import Effect, Impact, Plan, Reason, UpdateApp
from reconciler.planning.timing import LongestPath, first_wave, longest_path, waves
from tests.builders import (
    GIB,
    OLD_COMMIT,
    a_class,
    a_desired,
    a_live,
    a_node,
    a_status,
    an_app,
    an_artifact,
    some_code,
)

SLURM = {"mode": "slurm", "cpus": 8, "gpus": 2, "workers": {"min": 0, "max": 4}}


def a_plan(*apps: Any, compute: Any = None, **live: Any) -> Plan:
    return plan(a_desired(*apps, compute=compute), a_live(**live), {})


def effect_of(made: Plan, app_id: str = "demo-app") -> Effect:
    return next(step.effect for step in made.steps if step.address in (f"deploy {app_id}", f"update {app_id}"))


def text_of(made: Plan) -> str:
    return render(made, command="").plain


# ── room ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_app_says_what_it_needs_and_which_node_has_it() -> None:
    app = an_app(code=some_code(classes=[a_class(num_gpus=1, memory=4 * GIB)]), replicas={"*": 2})
    big = {"CPU": 8, "GPU": 1, "memory": 64 * GIB}
    nodes = [a_node("gn07", **big), a_node("cn01", CPU=64), a_node("gn08", **big)]
    said = "Main 2 × 1 CPU, 1 GPU, 4 GiB memory: gn07 (8 CPU, 1 GPU, 64 GiB memory free) and 1 more"
    made = a_plan(app, nodes=nodes)
    assert effect_of(made).room == said
    assert f"room     {said}" in text_of(made)


def test_what_nobody_knows_is_not_said() -> None:
    assert effect_of(a_plan(an_app())).room == ""
    unknown = an_app(code=some_code(classes=[a_class(unknown=("ray_actor_options",))]))
    assert effect_of(a_plan(unknown, nodes=[a_node(CPU=1)])).room == ""


@pytest.mark.parametrize("amount", [10**400, float("inf"), float("nan"), -1], ids=["huge", "inf", "nan", "less"])
@pytest.mark.parametrize("name", ["num_cpus", "num_gpus", "memory"])
def test_an_amount_that_cannot_be_is_not_known(name: str, amount: float) -> None:
    absurd = an_app(code=some_code(classes=[replace(a_class(), options={"ray_actor_options": {name: amount}})]))
    made = a_plan(absurd, an_app("other"), nodes=[a_node(CPU=4, GPU=4)])
    assert effect_of(made).room == "" and effect_of(made, "other").room


@pytest.mark.parametrize("replicas", [10**400, -3], ids=["huge", "less"])
def test_a_number_of_replicas_that_cannot_be_is_not_known(replicas: int) -> None:
    absurd = replace(a_class(), options={"num_replicas": replicas})
    made = a_plan(an_app(code=some_code(classes=[absurd])), an_app("other"), nodes=[a_node(CPU=4)])
    assert effect_of(made).room == "" and effect_of(made, "other").room


def test_next_to_nothing_is_free_also_where_none_is_named() -> None:
    tiny = an_app(code=some_code(classes=[a_class(num_gpus=1e-12)]))
    assert effect_of(a_plan(tiny, nodes=[a_node(CPU=4)])).room.startswith("Main 1 CPU, 1e-12 GPU: gn01 (4 CPU, 0 GPU")


def test_of_slurm_the_headroom_is_said() -> None:
    nodes = [a_node("login", CPU=4).model_copy(update={"head": True}), a_node("w1", CPU=8, GPU=2)]
    made = a_plan(an_app(), compute=SLURM, mode="slurm", nodes=nodes, workers={"min": 0, "max": 4})
    assert effect_of(made).room == "Main 1 CPU; 3 of 4 SLURM workers may still start"


@pytest.mark.parametrize(("gpus", "held"), [(2, False), (3, True)])
def test_what_no_slurm_worker_could_ever_hold_is_held(gpus: int, held: bool) -> None:
    app = an_app(code=some_code(classes=[a_class(num_gpus=gpus)]))
    for nodes in ([], [a_node("login", CPU=4).model_copy(update={"head": True})]):
        made = a_plan(app, compute=SLURM, mode="slurm", nodes=nodes, workers={"min": 0, "max": 4})
        assert bool(made.held) is held
        if held:
            assert made.held[0].reason is Reason.INSUFFICIENT_CAPACITY
            assert made.held[0].message == "Main needs 1 CPU, 3 GPU; a SLURM worker has 8 CPU, 2 GPU"


def test_a_worker_that_is_larger_than_slurm_gives_now_counts() -> None:
    app = an_app(code=some_code(classes=[a_class(num_gpus=3)]))
    live: dict[str, Any] = {"mode": "slurm", "workers": {"min": 0, "max": 4}}
    assert not a_plan(app, compute=SLURM, nodes=[a_node("fat", CPU=8, GPU=4)], **live).held


# ── time ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_interruption_is_as_long_as_the_app_usually_takes_to_come_up() -> None:
    """The median, so that one slow night does not count. Caught: the last one, the mean."""
    old, new = an_app(commit=OLD_COMMIT), an_app(code=some_code(content="v2"), rollout={"surge": False})
    live: dict[str, Any] = {"artifacts": [an_artifact(old)], "seconds": {"demo-app": (240.0, 230.0, 9000.0)}}
    made = plan(a_desired(new), a_live(a_status(old), **live), {})
    assert (effect_of(made).impact, effect_of(made).interruption_s) == (Impact.INTERRUPTION, 240.0)
    assert "Interruptions: demo-app (≈ 4 min).  Longest path ≈ 4 min." in text_of(made)
    newest = a_live(a_status(old, last_deploy_s=12.0), artifacts=[an_artifact(old)])
    assert effect_of(plan(a_desired(new), newest, {})).interruption_s == 12.0
    unknown = plan(a_desired(new), a_live(a_status(old), artifacts=[an_artifact(old)]), {})
    assert "Interruptions: demo-app (time not known)." in text_of(unknown)
    assert "Longest path" not in text_of(unknown)


A_CHAIN = (an_app("base"), an_app("middle", depends_on=("base",)), an_app("top", depends_on=("middle", "base")))


def test_the_longest_path_adds_up_those_that_wait_for_each_other() -> None:
    seconds = {"base": (60.0,), "middle": (100.0,), "top": (20.0,), "beside": (150.0,)}
    made = a_plan(*A_CHAIN, an_app("beside"), seconds=seconds)
    assert longest_path(made) == LongestPath(180.0, ())
    assert "Longest path ≈ 3 min." in text_of(made)
    assert plan_file.to_json(made, "")["longest_path_s"] == 180.0


def test_what_was_never_timed_is_named() -> None:
    made = a_plan(*A_CHAIN, seconds={"base": (60.0,)})
    assert "Longest path at least 60 s (never timed: middle, top)." in text_of(made)
    assert plan_file.to_json(made, "")["longest_path_s"] is None


def test_times_are_told_in_numbers_that_people_can_use() -> None:
    assert [duration(s) for s in (0.4, 7.2, 60, 89, 200, 3600, 9000)] == [
        "0.4 s",
        "7.2 s",
        "60 s",
        "89 s",
        "3.3 min",
        "60 min",
        "2.5 h",
    ]


# ── waves ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_apps_that_wait_for_each_other_stand_in_waves() -> None:
    made = a_plan(*A_CHAIN, an_app("beside"), an_app("both", depends_on=("base", "beside")))
    assert waves(made) == {"base": 1, "beside": 1, "both": 2, "middle": 2, "top": 3}
    text = text_of(made)
    assert "create · wave 1" in text and "create · wave 3" in text
    assert {step["app_id"]: step["wave"] for step in plan_file.to_json(made, "")["steps"]}["top"] == 3


def test_where_nobody_waits_no_wave_is_told() -> None:
    assert "wave" not in text_of(a_plan(an_app("a"), an_app("b")))


def test_the_first_wave_waits_for_nobody_and_has_all_uploads() -> None:
    made = a_plan(*A_CHAIN)
    first = [step.address for step in first_wave(made).steps]
    assert [address for address in first if address.startswith("deploy")] == ["deploy base"]
    assert sum(address.startswith(("upload", "prepare")) for address in first) == 6


def test_who_only_changes_in_place_lets_nobody_wait() -> None:
    old = an_app("base", commit=OLD_COMMIT, max_ongoing_requests=3)
    live = a_live(a_status(old), artifacts=[an_artifact(old)])
    made = plan(a_desired(*A_CHAIN[:2]), live, {})
    assert isinstance(made.steps[0].verb, UpdateApp) and first_wave(made) == made


def test_a_dependency_whose_new_version_is_not_good_yet_is_waited_for() -> None:
    base = a_status(an_app("base"), updating=True)
    live = a_live(base, artifacts=[an_artifact(an_app("base"))])
    (held,) = plan(a_desired(*A_CHAIN[:2]), live, {}).held
    assert (held.app_id, held.reason) == ("middle", Reason.UPDATING)
    assert held.message == "it depends on base, whose new version is not called good yet"
