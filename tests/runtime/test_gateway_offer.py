"""What the gateway offers, from what Serve says."""

from __future__ import annotations

from typing import Any

import pytest

from bioengine_runtime.apps.record import AppRecord, DeploymentState, Replica, Running
from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.status import Provenance
from bioengine_runtime.gateway.offer import offer

WORKER = "w/client:bioengine-worker"


def a_record(*methods: str, previous: AppRecord | None = None, users: list[str] | None = None) -> AppRecord:
    spec = AppSpec(app_id="demo", artifact_id="w/demo", version="1", authorized_users=users or ["*"])
    return AppRecord(
        spec=spec,
        digest=spec.digest(),
        code_digest=spec.code_digest(),
        provenance=Provenance(owner="lab", source="git", commit="c"),
        name="Demo",
        entry="Entry",
        methods=[{"name": name, "schema": a_schema(name)} for name in methods],
        started_at=1.0,
        last_updated_at=1.0,
        blueprint="b",
        worker=WORKER,
        previous=previous,
    )


def a_schema(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": "", "parameters": parameters}


def a_running(record: AppRecord | None, status: Any = "RUNNING", replicas: int = 1) -> Running:
    one = Replica("Entry", "r", "RUNNING", 1, "n", 1.0, "w")
    deployment = DeploymentState("Entry", "HEALTHY", "", 1, (one,) * replicas)
    return Running("demo", status, "", record, (deployment,), 1.0)


def test_an_app_is_offered_once_its_entry_has_a_replica() -> None:
    assert offer(a_running(a_record("run"), "DEPLOYING", replicas=0), worker=WORKER, offered=False) is None
    assert offer(a_running(a_record("run")), worker=WORKER, offered=False) is not None


@pytest.mark.parametrize("status", ["DEPLOYING", "UNHEALTHY", "DEPLOY_FAILED", "RUNNING"])
def test_an_app_that_was_offered_stays_offered_whatever_happens_to_its_replicas(status: str) -> None:
    assert offer(a_running(a_record("run"), status, replicas=0), worker=WORKER, offered=True) is not None


def test_what_is_not_ours_or_of_another_worker_or_is_being_deleted_is_not_offered() -> None:
    assert offer(a_running(None), worker=WORKER, offered=True) is None
    assert offer(a_running(a_record("run")), worker="w/other:bioengine-worker", offered=True) is None
    assert offer(a_running(a_record("run"), "DELETING"), worker=WORKER, offered=True) is None


def test_while_a_new_version_comes_up_the_old_ones_methods_hold_for_whom_both_let_in() -> None:
    new = a_record("run", "extra", users=["eve", "alice"], previous=a_record("run", users=["alice", "bob"]))
    during, after = (
        offer(a_running(new, "DEPLOYING"), worker=WORKER, offered=True),
        offer(a_running(new), worker=WORKER, offered=True),
    )
    assert during is not None and after is not None
    assert ([one.name for one in during.methods], during.authorized_users) == (["run"], ["alice"])
    assert ([one.name for one in after.methods], after.authorized_users) == (["run", "extra"], ["eve", "alice"])


def test_who_was_shut_out_stays_out_while_the_new_version_waits_for_room() -> None:
    new = a_record("run", users=["alice"], previous=a_record("run", users=["*"]))
    offered = offer(a_running(new, "DEPLOYING"), worker=WORKER, offered=True)
    assert offered is not None and offered.authorized_users == ["alice"]


def test_callers_do_not_see_the_context_that_hypha_adds() -> None:
    record = a_record().model_copy(
        update={"methods": [{"name": "who", "schema": a_schema("who", context={"type": "object"}, x={})}]}
    )
    offered = offer(a_running(record), worker=WORKER, offered=False)
    assert offered is not None
    (method,) = offered.methods
    assert method.wants_context
    assert method.schema["parameters"] == {"type": "object", "properties": {"x": {}}, "required": ["x"]}
    assert "context" in record.methods[0]["schema"]["parameters"]["properties"]  # the record itself is left as it is


def test_hypha_is_told_only_when_what_callers_see_has_changed() -> None:
    before = offer(a_running(a_record("run", users=["alice"])), worker=WORKER, offered=True)
    users = offer(a_running(a_record("run", users=["bob"])), worker=WORKER, offered=True)
    methods = offer(a_running(a_record("run", "more")), worker=WORKER, offered=True)
    assert before is not None and users is not None and methods is not None
    assert users != before and users.looks_like(before)
    assert not methods.looks_like(before)


def test_a_method_named_like_a_field_of_the_service_does_not_replace_it() -> None:
    offered = offer(a_running(a_record("id", "config", "run")), worker=WORKER, offered=False)
    assert offered is not None and [one.name for one in offered.methods] == ["run"]


@pytest.mark.parametrize(("long", "offered_as"), [("x" * 1024, "x" * 1024), ("x" * 1025, "x" * 1023 + "…")])
def test_hypha_is_told_as_much_of_a_description_as_it_takes(long: str, offered_as: str) -> None:
    record = a_record("run").model_copy(update={"description": long})
    offered = offer(a_running(record), worker=WORKER, offered=False)
    assert offered is not None and offered.description == offered_as
