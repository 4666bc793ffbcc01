"""The worker's door: who gets in, what is refused and how, and that no value leaves in an error or a log."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from typing import Any

import pytest

from bioengine_runtime.apps.errors import Refused
from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.status import Prepared, Provenance, WorkerState
from bioengine_runtime.rpc.access import Caller
from bioengine_runtime.rpc.callers import GONE_FOR_S, Callers
from bioengine_runtime.rpc.service import WorkerService

ADMIN = {"user": {"id": "admin", "email": "admin@lab.example", "is_anonymous": False}}
STRANGER = {"user": {"id": "bob", "email": "bob@lab.example", "is_anonymous": False}}
SPEC = {"app_id": "demo", "artifact_id": "w/demo", "version": "1", "authorized_users": ["*"]}
PROVENANCE: dict[str, Any] = {"owner": "lab", "source": "git", "commit": "c0ffee"}

FOR_ADMINS = (
    *("stop_worker", "get_logs", "run_code", "execute_python_code", "list_app_directories", "clear_app_directory"),
    *("list_apps", "list_applications", "get_app_manifest", "get_application_manifest"),
    *("delete_app", "delete_application", "delete_app_version", "deploy_app", "run_application"),
    *("stop_app", "stop_application", "stop_all_apps", "stop_all_applications"),
)
OLDER_NAMES = {
    "save_application": "upload_app",
    "run_application": "deploy_app",
    "stop_application": "stop_app",
    "stop_all_applications": "stop_all_apps",
    "get_application_status": "get_app_status",
    "get_application_manifest": "get_app_manifest",
    "list_applications": "list_apps",
    "delete_application": "delete_app",
    "execute_python_code": "run_code",
}


class FakeReconcilerSide:
    def __init__(self) -> None:
        self.applied: list[tuple[Any, ...]] = []
        self.trouble: Exception | None = None
        self.hold = asyncio.Event()
        self.hold.set()

    async def observe(self) -> WorkerState:
        return WorkerState(service_id="s", workspace="w", mode="slurm", bioengine_version="1", ray_version="2")

    async def prepare(self, spec: AppSpec, wait_s: float) -> Prepared:
        return Prepared(message=f"{spec.app_id} {wait_s}")

    async def apply(
        self, spec: AppSpec, secrets: Any, fingerprints: Any, provenance: Provenance, expected: str | None
    ) -> bool:
        await self.hold.wait()
        if self.trouble:
            raise self.trouble
        self.applied.append((spec, secrets, fingerprints, provenance, expected))
        return True

    async def remove(self, app_id: str, *, owner: str, expected: str | None) -> None:
        raise Refused(f"{app_id} belongs to lab, not to {owner} ({expected})")


class FakePeopleSide:
    def __init__(self) -> None:
        self.wishes: list[dict[str, Any]] = []
        self.trouble: Exception | None = None

    async def upload(
        self, caller: Caller, files: list[dict[str, Any]], workspace: str | None, hypha_token: str | None
    ) -> str:
        return f"w/{len(files)}-{caller.user_id}-{workspace}-{hypha_token}"

    async def all_apps(self) -> dict[str, Any]:
        return {"w/demo": {}}

    async def app_record(self, artifact_id: str) -> dict[str, Any]:
        return {"id": artifact_id}

    async def delete(self, caller: Caller, artifact_id: str) -> None: ...

    async def delete_version(self, caller: Caller, artifact_id: str, version: str) -> None: ...

    async def deploy(self, caller: Caller, wish: dict[str, Any]) -> str:  # noqa: ARG002
        self.wishes.append(wish)
        return "demo"

    async def stop(self, caller: Caller, app_id: str) -> None: ...

    async def stop_all(self, caller: Caller, timeout_s: float) -> None: ...

    async def app_status(
        self, caller: Caller, app_ids: list[str] | None, logs_tail: int, previous: int
    ) -> dict[str, Any]:
        return {"asked": [caller.user_id, app_ids, logs_tail, previous]}

    async def status(self, caller: Caller) -> dict[str, Any]:  # noqa: ARG002
        if self.trouble:
            raise self.trouble
        return {}


class FakeMachine:
    def __init__(self) -> None:
        self.ran: dict[str, Any] = {}
        self.hold = asyncio.Event()
        self.hold.set()
        self.ended = False

    async def run_code(self, **call: Any) -> dict[str, Any]:
        self.ran = call
        try:
            await self.hold.wait()
        except asyncio.CancelledError:
            self.ended = True
            raise
        return {"result": 42}

    async def logs(self, tail: int) -> list[str]:
        return [f"the last {tail}"]

    async def app_directories(self) -> list[dict[str, Any]]:
        return []

    async def clear_app_directory(self, app_id: str) -> None: ...

    async def stop_worker(self, blocking: bool) -> None: ...


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture
def reconciler() -> FakeReconcilerSide:
    return FakeReconcilerSide()


@pytest.fixture
def people() -> FakePeopleSide:
    return FakePeopleSide()


@pytest.fixture
def callers() -> Callers:
    """Of whom none that is asked is there any more."""

    async def ping(client: str) -> None:
        raise RuntimeError(f"{client} is not connected")

    return Callers(ping, clock=itertools.count(step=GONE_FOR_S).__next__)


@pytest.fixture
def service(
    reconciler: FakeReconcilerSide, people: FakePeopleSide, machine: FakeMachine, callers: Callers
) -> dict[str, Any]:
    admins = ["admin@lab.example"]
    worker = WorkerService(
        reconciler=reconciler, people=people, machine=machine, admins=lambda: admins, callers=callers
    )
    return worker.registration("bioengine-worker", "Worker", "")


def apply(service: dict[str, Any], **changes: Any) -> asyncio.Future[Any]:
    arguments = {"spec": SPEC, "secrets": {}, "fingerprints": {}, "provenance": PROVENANCE, "context": ADMIN}
    return service["apply_app"](**{**arguments, **changes})


async def test_what_is_applied_arrives_as_contract_types(
    service: dict[str, Any], reconciler: FakeReconcilerSide
) -> None:
    secrets = {"*": {"TOKEN": "s3cret"}}
    assert await apply(service, secrets=secrets, expected="") == {"changed": True}
    assert reconciler.applied == [(AppSpec(**SPEC), secrets, {}, Provenance(**PROVENANCE), "")]


async def test_a_refusal_of_the_reconcilers_methods_is_a_value_with_its_kind(service: dict[str, Any]) -> None:
    denied = await service["observe"](context=STRANGER)
    invalid = await service["prepare_app"](spec={**SPEC, "app_id": "Not_An_Id"}, context=ADMIN)
    refused = await service["remove_app"]("demo", "me", context=ADMIN)
    assert [answer["error"]["kind"] for answer in (denied, invalid, refused)] == ["Denied", "Invalid", "Refused"]
    assert refused["error"]["message"] == "demo belongs to lab, not to me (None)"
    assert invalid["error"]["message"].startswith("spec.app_id: ")


async def test_a_fault_is_raised_as_one_plain_line_without_our_stack(
    service: dict[str, Any], reconciler: FakeReconcilerSide
) -> None:
    reconciler.trouble = ConnectionError("Ray does not answer")
    with pytest.raises(Exception, match=r"^Ray does not answer$") as caught:
        await apply(service)
    assert (type(caught.value).__name__, caught.value.__cause__) == ("ConnectionError", None)


@pytest.mark.parametrize("context", [STRANGER, {}, None, {"user": None}])
async def test_who_is_no_admin_is_turned_away_before_anything_is_read(
    service: dict[str, Any], context: dict[str, Any] | None
) -> None:
    for name in ("observe", "prepare_app", "apply_app", "remove_app", "scale_workers"):
        assert (await service[name](context=context))["error"]["kind"] == "Denied"
    for name in FOR_ADMINS:
        with pytest.raises(Exception, match=f"may not call {name} of this worker; it takes an admin") as caught:
            await service[name](context=context)
        assert type(caught.value).__name__ == "PermissionError"
        assert "admin@lab.example" not in str(caught.value)


async def test_6_2_7_uploading_takes_an_admin_unless_it_goes_into_a_workspace_of_the_callers(
    service: dict[str, Any],
) -> None:
    own = {"workspace": "ws-bob", "hypha_token": "t0ken"}
    assert await service["save_application"](files=[], **own, context=STRANGER) == "w/0-bob-ws-bob-t0ken"
    assert await service["upload_app"]([], None, None, context=ADMIN) == "w/0-admin-None-None"
    for half in ({}, {"workspace": "ws-bob"}, {"hypha_token": "t0ken"}, {"workspace": "", "hypha_token": "t0ken"}):
        with pytest.raises(Exception, match="takes an admin"):
            await service["upload_app"](files=[], **half, context=STRANGER)


async def test_both_spellings_of_a_method_are_one(service: dict[str, Any]) -> None:
    for old, new in OLDER_NAMES.items():
        assert service[old].__schema__["parameters"] == service[new].__schema__["parameters"]
        assert service[old].__schema__["name"] == old
    assert await service["run_application"]("w/demo", "1", "x", context=ADMIN) == "demo"
    assert await service["get_application_manifest"]("w/demo", context=ADMIN) == {"id": "w/demo"}


async def test_none_is_as_good_as_saying_nothing(service: dict[str, Any], machine: FakeMachine) -> None:
    asked = dict.fromkeys(("application_ids", "logs_tail", "n_previous_replica"))
    assert (await service["get_app_status"](**asked, context=ADMIN))["asked"] == ["admin", None, 30, 0]
    assert await service["get_logs"](tail=None, context=ADMIN) == ["the last 100"]
    await service["run_code"](**dict.fromkeys((*machine.ran, "code", "mode", "args", "timeout")), context=ADMIN)
    assert (machine.ran["mode"], machine.ran["function_name"], machine.ran["timeout"]) == ("source", "analyze", 180)


async def test_arguments_may_come_in_the_order_they_always_had(service: dict[str, Any], people: FakePeopleSide) -> None:
    in_order = ("w/demo", "1", "x", {"A": {"b": 1}}, {"*": {"C": "d"}}, "t0ken", True, 3, True, True, [], ["bob"], 5)
    await service["deploy_app"](*in_order, context=ADMIN)
    names = list(service["deploy_app"].__schema__["parameters"]["properties"])
    assert list(people.wishes[0]) == names[: len(in_order)]
    assert tuple(people.wishes[0].values()) == in_order


async def test_callbacks_arrive_as_they_are(service: dict[str, Any], machine: FakeMachine) -> None:
    async def on_line(line: str) -> None: ...

    assert await service["execute_python_code"](code="…", write_stdout=on_line, context=ADMIN) == {"result": 42}
    assert machine.ran["write_stdout"] is on_line
    with pytest.raises(Exception, match=r"^write_stderr: "):
        await service["run_code"](code="…", write_stderr="print", context=ADMIN)


@pytest.mark.parametrize(
    ("method", "arguments", "field"),
    [
        ("stop_app", {"application_id": "../x"}, "application_id"),
        ("deploy_app", {"artifact_id": "w/demo", "application_id": "a/b"}, "application_id"),
        ("clear_app_directory", {"application_id": ".."}, "application_id"),
        ("deploy_app", {"artifact_id": "a/b/c"}, "artifact_id"),
        ("get_app_manifest", {"artifact_id": ""}, "artifact_id"),
        ("delete_app_version", {"artifact_id": "w/demo"}, "version"),
        ("delete_app_version", {"artifact_id": "w/demo", "version": "../1"}, "version"),
        ("deploy_app", {"artifact_id": "w/demo", "disable_gpu": "perhaps"}, "disable_gpu"),
        ("deploy_app", {"artifact_id": "w/demo", "ice_servers": [{"url": "stun:x"}]}, r"ice_servers\.0\.url"),
        ("get_app_status", {"application_ids": "demo"}, "application_ids"),
        ("run_code", {"mode": "eval"}, "mode"),
        ("get_status", {"verbose": True}, "verbose"),
    ],
)
async def test_6_2_8_a_wrong_argument_is_turned_away_at_the_door(
    service: dict[str, Any], method: str, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(Exception, match=rf"(^|; ){field}: ") as caught:
        await service[method](**arguments, context=ADMIN)
    assert type(caught.value).__name__ == "ValueError"


async def test_a_wrong_argument_is_named_and_its_value_is_not_shown(
    service: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = await apply(service, secrets={"*": {"TOKEN": ["s3cret-value"]}}, extra="s3cret-value")
    message = answer["error"]["message"]
    assert "secrets.*.TOKEN: " in message and "extra: " in message
    with pytest.raises(Exception, match=r"hypha_token: .*max_ongoing_requests: "):
        await service["deploy_app"](
            artifact_id="demo", hypha_token=["s3cret-value"], max_ongoing_requests=0, context=ADMIN
        )
    assert "s3cret-value" not in message + caplog.text


async def test_a_fault_that_quotes_a_secret_does_not_put_it_into_the_log(
    service: dict[str, Any], reconciler: FakeReconcilerSide, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    reconciler.trouble = RuntimeError("bad environment: TOKEN=s3cret-value")
    with pytest.raises(Exception, match="bad environment"):
        await apply(service)
    assert "event=fault method=apply_app" in caplog.text and "s3cret-value" not in caplog.text


async def test_of_a_fault_strangers_are_told_the_type_alone(service: dict[str, Any], people: FakePeopleSide) -> None:
    people.trouble = ConnectionError("no Ray head answers at 10.1.2.3:6379")
    for context in (STRANGER, None):
        with pytest.raises(Exception, match=r"^the worker could not answer; ") as caught:
            await service["get_status"](context=context)
        assert (type(caught.value).__name__, caught.value.__cause__) == ("ConnectionError", None)
    with pytest.raises(Exception, match=r"^no Ray head answers at 10\.1\.2\.3:6379$"):
        await service["get_status"](context=ADMIN)
    people.trouble = Refused("4 uploads are under way")
    with pytest.raises(Exception, match=r"^4 uploads are under way$"):
        await service["get_status"](context=STRANGER)


async def test_work_goes_on_when_the_caller_goes_away(service: dict[str, Any], reconciler: FakeReconcilerSide) -> None:
    reconciler.hold.clear()
    answer = apply(service)
    await asyncio.sleep(0)
    answer.cancel()
    reconciler.hold.set()
    await asyncio.sleep(0.01)
    assert len(reconciler.applied) == 1


async def test_a_wish_holds_only_what_was_said(service: dict[str, Any], people: FakePeopleSide) -> None:
    assert await service["deploy_app"]("demo", application_id="x", disable_gpu=False, context=ADMIN) == "demo"
    assert people.wishes == [{"artifact_id": "demo", "application_id": "x", "disable_gpu": False}]


async def test_everybody_may_ask_for_status_and_is_known_to_the_answer(service: dict[str, Any]) -> None:
    assert await service["get_app_status"](["demo"], 5, context=STRANGER) == {"asked": ["bob", ["demo"], 5, 0]}
    assert await service["check_access"](context=STRANGER) is False
    assert await service["check_access"](context=ADMIN) is True
    with pytest.raises(Exception, match="application_ids: "):
        await service["get_app_status"](application_ids=[], context=ADMIN)


def test_the_registration_is_what_clients_look_for_and_every_method_has_a_schema(service: dict[str, Any]) -> None:
    assert (service["id"], service["type"]) == ("bioengine-worker", "bioengine-worker")
    assert service["config"] == {"visibility": "public", "require_context": True}
    for name, method in service.items():
        if callable(method):
            schema = getattr(method, "__schema__")  # noqa: B009
            assert schema["name"] == name and "caller" not in schema["parameters"]["properties"]


async def test_code_ends_when_its_caller_has_left_and_a_deploy_does_not(
    service: dict[str, Any], machine: FakeMachine, reconciler: FakeReconcilerSide, callers: Callers
) -> None:
    machine.hold.clear()
    reconciler.hold.clear()
    running = service["run_code"](code="…", context={**ADMIN, "from": "w/gone"})
    deploying = apply(service, context={**ADMIN, "from": "w/gone"})
    await asyncio.sleep(0)
    for _ in range(2):
        await callers.look()
    with pytest.raises(Exception, match="the call was cancelled"):
        await asyncio.wait_for(running, 5)
    assert machine.ended
    reconciler.hold.set()
    assert await deploying == {"changed": True}


async def test_what_a_newer_client_says_of_scaling_arrives_or_names_the_field(
    service: dict[str, Any], people: FakePeopleSide
) -> None:
    deploy = functools.partial(service["deploy_app"], "demo", context=ADMIN, proxy_memory_in_gb=0.5)
    await deploy(scaling={"Demo": {"num_replicas": 2}})
    assert people.wishes[-1]["scaling"]["Demo"].num_replicas == 2
    with pytest.raises(Exception, match=r"scaling\.Demo\.autoscaling_config\.upscale_delay_s: "):
        await deploy(scaling={"Demo": {"autoscaling_config": {"max_replicas": 2, "upscale_delay_s": 1}}})
