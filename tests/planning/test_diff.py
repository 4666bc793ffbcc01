"""What differs, and how it is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.planning.diff import SECRET_VALUES, WORKERS, Difference, Kind, differences
from reconciler.planning.shown import pair
from reconciler.planning.steps import Change
from tests.builders import (
    COMMIT,
    OLD_COMMIT,
    a_desired,
    a_live,
    a_revision,
    a_secret,
    a_status,
    a_world,
    an_app,
    some_code,
)


def only(found: tuple[Difference, ...]) -> Difference:
    (difference,) = found
    return difference


def between(running: Any, wanted: Any, known: dict[str, str | None] | None = None, **desired: Any) -> Difference:
    state = a_status(running) if not hasattr(running, "status") else running
    return only(differences(a_desired(wanted, **desired), a_live(state), {wanted.app_id: known or {}}))


def test_an_app_that_runs_as_wanted_does_not_differ() -> None:
    assert differences(*a_world(an_app()), {}) == ()


def test_a_new_commit_that_leaves_the_app_as_it_was_is_no_difference() -> None:
    running = an_app(commit=OLD_COMMIT)
    assert differences(a_desired(an_app(commit=COMMIT)), a_live(a_status(running)), {}) == ()


def test_health_is_no_difference() -> None:
    assert differences(a_desired(an_app()), a_live(a_status(an_app(), status="UNHEALTHY")), {}) == ()


def test_an_app_of_somebody_else_differs_even_if_it_is_the_same() -> None:
    assert between(an_app(owner="staging"), an_app()).kind is Kind.FOREIGN


def test_an_app_that_nobody_owns_and_git_does_not_name_is_no_difference() -> None:
    state = a_status(an_app()).model_copy(update={"provenance": None})
    assert differences(a_desired(), a_live(state), {}) == ()


def test_an_app_that_is_going_already_is_not_to_be_removed() -> None:
    assert differences(a_desired(), a_live(a_status(an_app(), status="DELETING")), {}) == ()


def test_new_code_shows_versions_and_trees() -> None:
    running, wanted = an_app(code=some_code(content="v1")), an_app(code=some_code(content="v2"))
    found = between(running, wanted)
    assert found.fields == {"version"}
    assert [change.field for change in found.changes] == ["version", "files"]
    assert found.changes[1].before == f"tree {running.provenance.tree[:7]}"  # type: ignore[index]


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ({"kwargs": {"A": {"n": 1}}}, {"kwargs": {"A": {"n": 2}}}, [Change("kwargs.A.n", "1", "2")]),
        ({"kwargs": {"A": {"n": 1}}}, {}, [Change("kwargs.A.n", "1", "")]),
        ({}, {"kwargs": {"A": {"n": None}}}, [Change("kwargs.A.n", "", "null")]),
        ({"env": {"*": {"L": "a"}}}, {"env": {"*": {"L": "b"}}}, [Change("env.*.L", '"a"', '"b"')]),
        ({"replicas": {"*": 1}}, {"replicas": {"*": 2}}, [Change("replicas.*", "1", "2")]),
        ({}, {"rollout": {"surge": False}}, [Change("rollout.surge", "true", "false")]),
        (
            {"authorized_users": {"ping": ["a"]}},
            {"authorized_users": {"ping": ["b"]}},
            [Change("authorized_users.ping", '["a"]', '["b"]')],
        ),
        (
            {"autoscaling": {"*": {"max_replicas": 2}}},
            {"autoscaling": {"*": {"max_replicas": 3}}},
            [
                Change(
                    "autoscaling.*",
                    '{"max_replicas": 2, "min_replicas": 1, "target_ongoing_requests": 2.0}',
                    '{"max_replicas": 3, "min_replicas": 1, "target_ongoing_requests": 2.0}',
                )
            ],
        ),
    ],
)
def test_a_change_is_shown_by_its_entry(before: dict[str, Any], after: dict[str, Any], shown: list[Change]) -> None:
    found = list(between(an_app(**before), an_app(**after)).changes)
    assert [(c.field, *pair(c.before, c.after)) for c in shown] == [(c.field, c.before, c.after) for c in found]


def test_long_values_are_cut_where_they_part() -> None:
    before, after = pair("x" * 500 + "1", "x" * 500 + "2")
    assert before != after
    assert len(before) < 100


def test_the_value_of_a_secret_is_never_shown() -> None:
    app = an_app(secrets=a_secret("TOKEN_X"))
    found = between(app, app, {"*/TOKEN_X": "0" * 16})
    assert found.fields == {SECRET_VALUES}
    assert found.changes == (Change("env.*.TOKEN_X", "", "(secret changed)"),)


@pytest.mark.parametrize("marked", ["before", "after"])
def test_a_name_that_is_a_secret_on_one_side_is_hidden_on_both(marked: str) -> None:
    plain, secret = an_app(env={"*": {"PIN": "1234"}}), an_app(secrets=a_secret("PIN"))
    before, after = (secret, plain) if marked == "before" else (plain, secret)
    assert between(before, after).changes == (Change("env.*.PIN", "", "(secret changed)"),)


def test_a_plain_variable_that_sounds_like_a_secret_is_hidden_too() -> None:
    found = between(an_app(env={"*": {"HF_TOKEN": "hf_1"}}), an_app(env={"*": {"HF_TOKEN": "hf_2"}}))
    assert found.changes == (Change("env.*.HF_TOKEN", "", "(secret changed)"),)


@pytest.mark.parametrize("known", [{}, {"*/PIN": None}])
def test_a_secret_that_cannot_be_read_here_is_not_compared(known: dict[str, str | None]) -> None:
    app = an_app(secrets=a_secret("PIN"))
    assert differences(a_desired(app), a_live(a_status(app)), {"demo-app": known}) == ()


def test_a_runtime_that_forgot_its_fingerprints_restarts_nothing() -> None:
    app = an_app(secrets=a_secret("PIN"))
    state = a_status(app, secret_fingerprints={})
    assert differences(a_desired(app), a_live(state), {"demo-app": {"*/PIN": "0" * 16}}) == ()


@pytest.mark.parametrize(
    ("deployed_from", "changed", "drift"),
    [
        (COMMIT, None, True),  # it was deployed from this very commit
        (OLD_COMMIT, None, False),  # a commit since may explain it
        (OLD_COMMIT, {"cluster.yaml": (OLD_COMMIT, "")}, True),  # nobody touched the file since
        (OLD_COMMIT, {"cluster.yaml": (COMMIT, "")}, False),
    ],
)
def test_drift_is_what_no_commit_explains(deployed_from: str, changed: Any, drift: bool) -> None:
    running = an_app(commit=deployed_from, max_ongoing_requests=50)
    assert between(running, an_app(), changed=changed).drift is drift


@pytest.mark.parametrize("asked_then", ["the same", "something else"])
def test_a_hand_is_told_from_a_commit_by_what_was_asked_for_whatever_was_committed_since(asked_then: str) -> None:
    wanted = an_app()
    digest = wanted.spec.digest() if asked_then == "the same" else "0" * 64
    by_hand = a_status(an_app(commit=OLD_COMMIT, max_ongoing_requests=7))
    assert by_hand.provenance
    origin = by_hand.provenance.model_copy(update={"digest": digest})
    running = by_hand.model_copy(update={"provenance": origin})
    assert between(running, wanted).drift is (asked_then == "the same")


def test_uncommitted_files_make_nothing_drift() -> None:
    running = an_app(commit=COMMIT + "+worktree", max_ongoing_requests=50)
    assert not between(running, an_app(), revision=a_revision(worktree=True)).drift


def test_new_code_is_not_drift() -> None:
    running = an_app(code=some_code(content="v0"), commit=OLD_COMMIT)
    assert not between(running, an_app(), changed={"cluster.yaml": (OLD_COMMIT, "")}).drift


def test_the_bounds_of_the_workers_differ() -> None:
    desired = a_desired(compute={"mode": "slurm", "workers": {"min": 1, "max": 4}})
    found = only(differences(desired, a_live(mode="slurm", workers={"min": 0, "max": 2}), {}))
    assert (found.app_id, found.kind, found.changes) == (WORKERS, Kind.WORKERS, (Change("workers", "0…2", "1…4"),))


def test_everything_wanted_is_unseen_when_the_worker_does_not_answer() -> None:
    apps = (an_app("a"), an_app("b"))
    found = differences(a_desired(*apps), a_live(unseen=["apps"]), {})
    assert [(one.app_id, one.kind) for one in found] == [("a", Kind.UNSEEN), ("b", Kind.UNSEEN)]


def test_an_app_without_a_spec_differs_in_everything() -> None:
    state = replace(an_app()), a_status(an_app()).model_copy(update={"spec": None, "digest": "0" * 64})
    assert not between(state[1], state[0]).in_place
