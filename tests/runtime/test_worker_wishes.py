"""What a person says, made total."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from bioengine_runtime.contract.app import AppSpec, fingerprint
from bioengine_runtime.contract.base import is_app_id
from bioengine_runtime.contract.status import AppState
from bioengine_runtime.rpc.door import Invalid
from bioengine_runtime.rpc.wishes import Resolved, Scaling, readable_id, resolve

KEY = b"k" * 32


def a_wish(running: AppState | None = None, **wish: Any) -> Resolved:
    return resolve(
        wish,
        app_id="demo",
        artifact_id="w/demo",
        version="2",
        manifest_users=None if running else ["*"],
        running=running,
        key=KEY,
    )


def what_runs() -> AppState:
    spec = AppSpec(
        app_id="demo",
        artifact_id="w/demo",
        version="1",
        kwargs={"Demo": {"size": 3}},
        env={"*": {"PLAIN": "x"}},
        secrets={"*": ["TOKEN"]},
        authorized_users=["alice"],
        disable_gpu=True,
        max_ongoing_requests=7,
        replicas={"*": 2},
    )
    return AppState(app_id="demo", status="RUNNING", spec=spec, secret_fingerprints={"*/TOKEN": "abc"})


def test_a_new_app_gets_the_defaults() -> None:
    wanted = a_wish()
    assert wanted.spec == AppSpec(app_id="demo", artifact_id="w/demo", version="2", authorized_users=["*"])


def test_an_update_keeps_everything_it_does_not_name_secrets_included() -> None:
    wanted, before = a_wish(what_runs()), what_runs().spec
    assert before is not None and wanted.spec == before.model_copy(update={"version": "2"})
    assert (wanted.secrets, wanted.fingerprints) == ({}, {"*/TOKEN": "abc"})


def test_scaling_replaces_what_held_for_a_class_and_leaves_the_others() -> None:
    bounds = {"min_replicas": 0, "max_replicas": 3}
    wanted = a_wish(what_runs(), scaling={"Demo": Scaling.model_validate({"autoscaling_config": bounds})})
    assert wanted.spec.replicas == {"*": 2}
    assert wanted.spec.autoscaling["Demo"].max_replicas == 3
    running = what_runs().model_copy(update={"spec": wanted.spec})
    fixed = a_wish(running, scaling={"Demo": Scaling(num_replicas=4)}).spec
    assert (fixed.replicas, fixed.autoscaling) == ({"*": 2, "Demo": 4}, {})
    assert a_wish(running).spec.autoscaling == wanted.spec.autoscaling


@pytest.mark.parametrize(
    "scaling",
    [
        {},
        {"num_replicas": 1, "autoscaling_config": {"max_replicas": 2}},
        {"num_replicas": 0},
        {"autoscaling_config": {"max_replicas": 2, "speed": 1}},
    ],
)
def test_scaling_says_one_thing_that_there_is(scaling: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Scaling.model_validate(scaling)


def test_false_and_empty_are_said_and_nothing_is_not() -> None:
    wanted = a_wish(what_runs(), disable_gpu=False, application_kwargs={}, authorized_users=[])
    assert (wanted.spec.disable_gpu, wanted.spec.kwargs, wanted.spec.authorized_users) == (False, {}, [])
    assert wanted.spec.env == {"*": {"PLAIN": "x"}}


def test_secrets_leave_the_spec_and_are_known_by_name_and_fingerprint() -> None:
    wanted = a_wish(what_runs(), application_env_vars={"Demo": {"_KEY": "s3cret", "A": "b"}}, hypha_token="t0ken")
    assert wanted.spec.env == {"Demo": {"A": "b"}}
    assert wanted.spec.secrets == {"*": ["HYPHA_TOKEN", "TOKEN"], "Demo": ["KEY"]}
    assert wanted.secrets == {"Demo": {"KEY": "s3cret"}, "*": {"HYPHA_TOKEN": "t0ken"}}
    assert wanted.fingerprints["Demo/KEY"] == fingerprint(KEY, "s3cret")
    assert "s3cret" not in repr(wanted) and "s3cret" not in wanted.spec.model_dump_json()


def test_a_secret_as_status_shows_it_is_left_as_it_is() -> None:
    wanted = a_wish(what_runs(), application_env_vars={"*": {"TOKEN": "*****", "PLAIN": "y"}})
    assert (wanted.spec.env, wanted.spec.secrets) == ({"*": {"PLAIN": "y"}}, {"*": ["TOKEN"]})
    assert (wanted.secrets, wanted.fingerprints) == ({}, {"*/TOKEN": "abc"})


@pytest.mark.parametrize("name", ["_API_KEY", "API_KEY", "HYPHA_TOKEN"])
def test_ss_08_what_status_shows_for_a_secret_is_no_value_where_there_is_none(name: str) -> None:
    for running, place in ((None, "*"), (what_runs(), "*"), (what_runs(), "Demo")):
        with pytest.raises(Invalid, match=rf"application_env_vars\.{re.escape(place)}\.{name}: .*give its value"):
            a_wish(running, application_env_vars={place: {name: "*****"}})


def test_a_secret_can_become_a_plain_variable_and_be_taken_away() -> None:
    plain = a_wish(what_runs(), application_env_vars={"*": {"TOKEN": "known to all"}})
    assert (plain.spec.env, plain.spec.secrets, plain.fingerprints) == ({"*": {"TOKEN": "known to all"}}, {}, {})
    running = what_runs()
    assert running.spec is not None
    with_token = running.model_copy(
        update={"spec": running.spec.model_copy(update={"secrets": {"*": ["HYPHA_TOKEN", "TOKEN"]}})}
    )
    assert a_wish(with_token, application_env_vars={}).spec.secrets == {"*": ["HYPHA_TOKEN"]}
    assert a_wish(with_token, hypha_token="").spec.secrets == {"*": ["TOKEN"]}
    assert a_wish(with_token).spec.secrets == {"*": ["HYPHA_TOKEN", "TOKEN"]}


def test_what_json_cannot_say_is_no_parameter() -> None:
    for value in (object(), b"\xff"):
        with pytest.raises(Invalid, match="application_kwargs: only text"):
            a_wish(application_kwargs={"Demo": {"x": value}})


def test_everything_that_can_be_asked_for_reaches_the_spec_and_is_kept_by_an_update() -> None:
    asked = {
        **{"max_ongoing_requests": 3, "max_queued_requests": 4, "auto_redeploy": True, "debug": True},
        "ice_servers": [{"urls": "stun:x"}],
    }
    wanted = a_wish(**asked).spec
    assert {name: wanted.model_dump(exclude_none=True)[name] for name in asked} == asked
    assert a_wish(AppState(app_id="demo", status="RUNNING", spec=wanted)).spec == wanted


def test_what_cannot_be_said_names_the_field() -> None:
    with pytest.raises(Invalid, match=r"env\.\*"):
        a_wish(application_env_vars={"*": {"NOT-A-NAME": "x"}})


def test_an_id_that_is_made_up_is_readable_free_and_allowed() -> None:
    made = {readable_id(()) for _ in range(50)}
    assert all(is_app_id(app_id) for app_id in made) and len(made) > 45
