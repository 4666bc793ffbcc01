"""Four people try every method of the worker, under both its names; one table says who may.

On a worker of our own only: it takes tokens of all four.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from tests.runtime.stack import Stack, eventually
from tests.worker_contract.an_app import files
from tests.worker_contract.conftest import AnApp, Target

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

EVERYBODY = ("admin", "ann", "bob", "anonymous")
"""Ann is named by the app; bob is a stranger with a workspace of his own."""
ADMINS = ("admin",)
TABLE: dict[tuple[str, ...], tuple[tuple[str, ...], dict[str, Any]]] = {
    # methods (new name, old name): who may, and arguments that do no harm when somebody may
    ("observe",): (ADMINS, {}),
    ("prepare_app",): (ADMINS, {"spec": {}}),
    ("apply_app",): (ADMINS, {"spec": {}}),
    ("remove_app",): (ADMINS, {"app_id": "nobody", "owner": "nobody"}),
    ("scale_workers",): (ADMINS, {"min": 0, "max": 0}),
    ("get_status",): (EVERYBODY, {}),
    ("check_access",): (EVERYBODY, {}),
    ("list_datasets",): (EVERYBODY, {}),
    ("get_app_status", "get_application_status"): (EVERYBODY, {"logs_tail": 1}),
    ("get_logs",): (ADMINS, {"tail": 1}),
    ("list_app_directories",): (ADMINS, {}),
    ("clear_app_directory",): (ADMINS, {"application_id": "nobody"}),
    ("run_code", "execute_python_code"): (ADMINS, {}),
    ("upload_app", "save_application"): (ADMINS, {"files": []}),
    ("list_apps", "list_applications"): (ADMINS, {}),
    ("get_app_manifest", "get_application_manifest"): (ADMINS, {"artifact_id": "nobody"}),
    ("delete_app", "delete_application"): (ADMINS, {"artifact_id": "nobody"}),
    ("delete_app_version",): (ADMINS, {"artifact_id": "nobody", "version": "1.dev1"}),
    ("deploy_app", "run_application"): (ADMINS, {"artifact_id": "nobody"}),
    ("stop_app", "stop_application"): (ADMINS, {"application_id": "nobody"}),
    # Here whoever may is not tried: it would stop the worker, or the app that the other tests need.
    ("stop_worker",): (ADMINS, {}),
    ("stop_all_apps", "stop_all_applications"): (ADMINS, {}),
}
HARMFUL = {"stop_worker", "stop_all_apps", "stop_all_applications"}
ROWS = [(method, who, arguments) for methods, (who, arguments) in TABLE.items() for method in methods]


@pytest.fixture
def stack(target: Target) -> Stack:
    assert target.stack is not None
    return target.stack


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def people(target: Target) -> AsyncIterator[dict[str, Any]]:
    """The worker as each of them has it."""
    async with AsyncExitStack() as held:
        found: dict[str, Any] = {}
        if stack := target.stack:
            for name in EVERYBODY:
                server = await held.enter_async_context(stack.connected(None if name == "admin" else name))
                found[name] = await server.get_service(target.worker_id)
        yield found


async def outcome(method: Any, arguments: dict[str, Any]) -> str:
    """`denied`, or `allowed` whatever became of it then."""
    try:
        answer = await method(**arguments)
    except Exception as error:
        assert "ann@lab.example" not in str(error) or "user ann@lab.example" in str(error)
        return "denied" if "PermissionError" in str(error) else "allowed"
    error = answer.get("error") if isinstance(answer, dict) else None
    return "denied" if isinstance(error, dict) and error.get("kind") == "Denied" else "allowed"


def test_the_table_names_every_method(stack: Stack, people: dict[str, Any]) -> None:  # noqa: ARG001
    assert {method for method, _, _ in ROWS} == {name for name, value in people["admin"].items() if callable(value)}


@pytest.mark.parametrize(("method", "who", "arguments"), ROWS, ids=[method for method, _, _ in ROWS])
async def test_who_may(
    stack: Stack,  # noqa: ARG001
    people: dict[str, Any],
    app: AnApp,  # noqa: ARG001
    method: str,
    who: tuple[str, ...],
    arguments: dict[str, Any],
) -> None:
    trying = [name for name in EVERYBODY if not (method in HARMFUL and name in who)]
    found = {name: await outcome(people[name][method], arguments) for name in trying}
    assert found == {name: "allowed" if name in who else "denied" for name in trying}


async def test_6_2_3_only_admins_and_whom_the_app_names_see_more_than_that_it_runs(
    stack: Stack,  # noqa: ARG001
    people: dict[str, Any],
    app: AnApp,
) -> None:
    private = ("application_kwargs", "application_env_vars", "authorized_users", "last_updated_by", "message")
    for name, worker in people.items():
        status = (await worker.get_app_status(application_ids=[app.alias]))[app.alias]
        assert (status["status"], status["available_methods"]) == ("RUNNING", ["look"])
        (deployment,) = status["deployments"].values()
        shown = {field for field in private if status[field]} | ({"logs"} if deployment["logs"] else set())
        allowed = {"application_kwargs", "application_env_vars", "authorized_users", "last_updated_by", "logs"}
        assert shown == (allowed if name in ("admin", "ann") else set()), name
        assert "s3cret" not in str(status) and "t0ken" not in str(status)


async def test_6_2_3_only_admins_see_addresses_admins_and_when_the_token_ends(
    stack: Stack,  # noqa: ARG001
    people: dict[str, Any],
) -> None:
    for name, worker in people.items():
        status = await worker.get_status()
        (node,) = status["ray_cluster"]["nodes"].values()
        told = (status["ray_cluster"]["head_address"], node["node_ip"], status["token_expires_at"])
        assert (all(told), bool(status["admin_users"])) == (name == "admin", name == "admin"), name
        assert any(told) == (name == "admin")


async def test_6_2_9_no_refusal_names_those_who_may(stack: Stack, people: dict[str, Any]) -> None:  # noqa: ARG001
    admins = (await people["admin"].get_status())["admin_users"]
    with pytest.raises(Exception, match=r"user bob@lab\.example may not call deploy_app") as caught:
        await people["bob"].deploy_app(artifact_id="demo")
    assert not any(admin in str(caught.value) for admin in admins)


async def test_6_2_7_a_stranger_uploads_into_a_workspace_of_their_own_and_only_with_their_own_token(
    stack: Stack, people: dict[str, Any]
) -> None:
    folder = files("contract-own", "1.0.0")
    own = {"workspace": "ws-user-bob", "hypha_token": stack.token("bob")}
    assert await people["bob"].upload_app(files=folder, **own) == "ws-user-bob/contract-own"
    async with stack.connected("bob") as server:
        manager = await server.get_service("public/artifact-manager")
        assert (await manager.read("ws-user-bob/contract-own"))["manifest"]["created_by"] == "bob"
    for name in ("ann", "anonymous"):
        with pytest.raises(Exception, match="PermissionError: hypha_token: it is not the caller's own"):
            await people[name].upload_app(files=folder, **own)
    with pytest.raises(Exception, match="PermissionError: hypha_token: Hypha does not accept it") as caught:
        await people["bob"].upload_app(files=folder, **{**own, "workspace": stack.workspace})
    assert own["hypha_token"] not in str(caught.value)
    log = stack.home.log_file("worker-service").read_text()
    assert "event=uploaded artifact=ws-user-bob/contract-own" in log
    assert own["hypha_token"].rsplit(".", 1)[-1] not in log


async def test_an_app_that_names_nobody_is_open_to_who_deployed_it_and_the_admins_only(
    stack: Stack, people: dict[str, Any], app: AnApp
) -> None:
    assert await people["admin"].deploy_app(app.artifact_id, application_id=app.alias, authorized_users=[]) == app.alias
    async with stack.connected("ann") as server:
        service = await server.get_service((await app.status())["service_ids"][0]["websocket_service_id"])

        async def refused() -> str | None:
            """With its reason; the gateway hears of the change a moment after the worker has answered."""
            try:
                await service.look([])
            except Exception as error:
                return str(error)

        assert "may not call look" in (reason := await eventually(refused, 30))
    assert "PermissionError" in reason and "local@bioengine.example" not in reason
    assert (await app.look())["greeting"] == "good day"
