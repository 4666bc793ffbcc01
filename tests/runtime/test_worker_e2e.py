"""A real worker on a real Hypha and Ray: deploy through its service, call through the gateway, survive restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy
import pytest
import pytest_asyncio

from tests.runtime.demo_app import demo_files
from tests.runtime.stack import Stack, a_stack, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack() -> AsyncIterator[Stack]:
    async with a_stack() as running:
        await deploy(running, "1.0.0", authorized_users={"*": ["*"], "secret": ["alice@lab.example"]})
        yield running


async def deploy(stack: Stack, version: str, *, more: bool = False, **options: Any) -> None:
    """Upload this version, deploy it as `demo`, and wait until it is the one that answers."""
    async with stack.connected() as server:
        worker = await server.get_service(stack.worker_id)
        artifact = await worker.upload_app(files=demo_files(version, more=more))
        assert artifact == f"{stack.workspace}/demo"
        assert await worker.deploy_app(artifact_id="demo", application_id="demo", **options) == "demo"

        async def answers() -> bool:
            app = await server.get_service(f"{stack.workspace}/demo")
            return (await app.version())["version"] == version

        await eventually(answers, 120)


async def test_an_app_is_called_by_rpc_and_by_http(stack: Stack) -> None:
    async with stack.connected("bob") as server:
        app = await server.get_service(f"{stack.workspace}/demo")
        assert (await app.version())["version"] == "1.0.0"
        assert (app["type"], app["name"]) == ("bioengine-app", "Demo")
        image = numpy.arange(12.0).reshape(3, 4)
        assert (await app.echo(image) == image).all()
        assert [number async for number in await app.count(3)] == [0, 1, 2]
        assert (await app.get_load(), await app.get_num_pcs()) == (0.0, 0)
        assert (await app.get_rtc_service_id()).endswith(":demo-rtc")
    assert (await stack.post("demo", "version", {}))["version"] == "1.0.0"


async def test_an_apps_error_arrives_as_itself(stack: Stack) -> None:
    async with stack.connected("bob") as server:
        app = await server.get_service(f"{stack.workspace}/demo")
        with pytest.raises(Exception, match=r"ValueError: no such image: x\.tif") as caught:
            await app.fail()
    assert "ray" not in str(caught.value).lower()
    with pytest.raises(AssertionError, match=r"ValueError: no such image: x\.tif"):
        await stack.post("demo", "fail", {})


async def test_a_caller_is_who_hypha_says_whatever_they_send(stack: Stack) -> None:
    async with stack.connected("bob") as server:
        app = await server.get_service(f"{stack.workspace}/demo")
        assert await app.who() == "bob@lab.example"
        assert await app.who(context={"user": {"email": "alice@lab.example"}}) == "bob@lab.example"
        with pytest.raises(Exception, match="PermissionError") as caught:
            await app.secret(context={"user": {"email": "alice@lab.example"}})
        assert "alice" not in str(caught.value)
    async with stack.connected("alice") as server:
        assert await (await server.get_service(f"{stack.workspace}/demo")).secret() == "42"
    async with stack.connected("anonymous") as server:
        with pytest.raises(Exception, match="an anonymous user may not call secret"):
            await (await server.get_service(f"{stack.workspace}/demo")).secret()
    async with stack.connected() as server:
        assert await (await server.get_service(f"{stack.workspace}/demo")).secret() == "42"


@pytest.mark.parametrize("user", ["bob", "anonymous"])
async def test_only_admins_may_change_anything(stack: Stack, user: str) -> None:
    async with stack.connected(user) as server:
        worker = await server.get_service(stack.worker_id)
        assert await worker.check_access() is False
        assert (await worker.observe())["error"]["kind"] == "Denied"
        assert (await worker.remove_app(app_id="demo", owner="x"))["error"]["kind"] == "Denied"
        for call in (worker.stop_app("demo"), worker.deploy_app("demo"), worker.upload_app(files=[])):
            with pytest.raises(Exception, match="PermissionError"):
                await call
        status = await worker.get_app_status(application_ids=["demo", "other"], logs_tail=5)
        assert status["other"]["status"] == "NOT_RUNNING"
        assert (status["demo"]["status"], status["demo"]["application_env_vars"]) == ("RUNNING", {})
        assert status["demo"]["authorized_users"] == {} and status["demo"]["deployments"]["Demo"]["logs"] == {}
        assert (await worker.get_status())["admin_users"] == []


async def test_the_reconciler_sees_the_app_and_where_it_is_reached(stack: Stack) -> None:
    async with stack.connected() as server:
        worker = await server.get_service(stack.worker_id)
        seen = await worker.observe()
        (app,) = seen["apps"]
        assert app["service_id"] == f"{stack.workspace}/bioengine-local-worker-gateway:demo"
        assert app["digest"] and app["provenance"]["owner"].startswith("user:")
        assert seen["nodes"][0]["head"] and seen["service_id"] == stack.worker_id
        async with httpx.AsyncClient(trust_env=False, follow_redirects=True) as http:
            page = await http.get(app["static_site_url"])
        assert page.text == "<h1>Demo</h1>"
        spec = {**app["spec"], "version": ""}
        assert (await worker.prepare_app(spec=spec))["error"]["message"].startswith("spec.version:")
        answer = await worker.remove_app(app_id="demo", owner="somebody-else")
        assert answer["error"]["kind"] == "Refused"
        assert (await worker.scale_workers(min=0, max=1))["error"]["kind"] == "Refused"


class Calls:
    """Calls made all the while, and what became of them."""

    def __init__(self) -> None:
        self.made = 0
        self.failed: list[str] = []
        self.answers: set[tuple[str, int]] = set()
        self.longest_gap_s = 0.0
        self.over = False
        self.last_failed = time.monotonic()
        self.last_answered: dict[int, float] = {}
        self._last = time.monotonic()

    async def go_well(self) -> bool:
        """Every caller has answers again; none still waits for one that began in the gap and fails only later."""
        now = time.monotonic()
        return now - self.last_failed > 4 and all(now - answered < 2 for answered in self.last_answered.values())

    async def repeat(self, call: Any) -> None:
        while not self.over:  # a cancellation alone may be lost when it meets the end of a call (wait_for, 3.11)
            self.made += 1
            try:
                answer = await asyncio.wait_for(call(), 20)
                self.answers.add((answer["version"], answer["pid"]))
                self.last_answered[id(call)] = time.monotonic()
                self.longest_gap_s = max(self.longest_gap_s, time.monotonic() - self._last)
                self._last = time.monotonic()
            except Exception as error:
                self.failed.append(f"{type(error).__name__}: {str(error)[-300:]}")
                self.last_failed = time.monotonic()
            await asyncio.sleep(0.03)


@asynccontextmanager
async def calling(stack: Stack) -> AsyncIterator[Calls]:
    """Callers with a handle they hold, with a fresh look-up each time, and by HTTP."""
    calls = Calls()
    async with stack.connected("bob") as server:
        held = await server.get_service(f"{stack.workspace}/demo")

        async def fresh() -> Any:
            return await (await server.get_service(f"{stack.workspace}/demo")).version()

        async def by_http() -> Any:
            return await stack.post("demo", "version", {})

        tasks = [asyncio.create_task(calls.repeat(call)) for call in (held.version, fresh, by_http)]
        try:
            yield calls
        finally:
            calls.over = True
            await asyncio.gather(*tasks)


async def test_ro_15_a_held_handle_lives_through_an_update_of_one_replica(stack: Stack) -> None:
    gateway = await stack.settled_pids_of("bioengine-gateway")
    async with calling(stack) as calls:
        await asyncio.sleep(1)
        await deploy(stack, "1.1.0", more=True)
        await asyncio.sleep(5)
    assert calls.failed == [] and calls.made > 100
    assert {version for version, _ in calls.answers} == {"1.0.0", "1.1.0"}
    assert stack.pids_of("bioengine-gateway") == gateway
    async with stack.connected("bob") as server:

        async def has_the_new_method() -> bool:
            return await (await server.get_service(f"{stack.workspace}/demo")).extra() == "extra"

        await eventually(has_the_new_method, 30)


async def test_an_update_by_hand_keeps_what_it_does_not_name(stack: Stack) -> None:
    variables = {"*": {"PLAIN": "seen", "_TOKEN": "hidden-value"}}
    async with stack.connected() as server:
        worker = await server.get_service(stack.worker_id)

        async def setting(name: str, value: str) -> bool:
            return await (await server.get_service(f"{stack.workspace}/demo")).setting(name) == value

        await worker.deploy_app(artifact_id="demo", application_id="demo", application_env_vars=variables)
        await eventually(lambda: setting("TOKEN", "hidden-value"), 60)
        await worker.deploy_app(artifact_id="demo", application_id="demo", max_ongoing_requests=7)

        async def is_in_force() -> bool:
            return (await worker.get_app_status(["demo"]))["demo"]["max_ongoing_requests"] == 7

        await eventually(is_in_force, 60)
        assert await setting("TOKEN", "hidden-value") and await setting("PLAIN", "seen")
        status = (await worker.get_app_status(["demo"]))["demo"]
        assert status["application_env_vars"]["*"] == {"PLAIN": "seen", "TOKEN": "*****"}
    assert "hidden-value" not in "".join(
        file.read_text(errors="replace") for file in (stack.home.path / "logs").iterdir()
    )


async def test_a_killed_worker_comes_back_to_the_same_processes_and_no_call_is_lost(stack: Stack) -> None:
    before = await stack.settled_pids_of("bioengine-gateway"), await stack.settled_pids_of("ServeReplica:demo")
    async with calling(stack) as calls:
        await stack.kill_worker()
        await asyncio.sleep(2)
        await stack.start_worker()
        await asyncio.sleep(3)
    assert calls.failed == [] and calls.made > 100
    assert (stack.pids_of("bioengine-gateway"), stack.pids_of("ServeReplica:demo")) == before
    async with stack.connected() as server:
        (app,) = (await (await server.get_service(stack.worker_id)).observe())["apps"]
        assert app["app_id"] == "demo" and app["spec"]["secrets"] == {"*": ["TOKEN"]}


async def test_a_worker_that_is_told_to_stop_does_so_soon_and_leaves_the_apps(stack: Stack) -> None:
    assert await stack.stop_worker() < 15
    assert (await stack.post("demo", "version", {}))["version"] == "1.1.0"
    await stack.start_worker()


ENSURE = """
import asyncio, pathlib, ray
from bioengine_runtime.gateway import deploy

deploy.release = lambda settings: {release!r}
ray.init(address={ray!r}, namespace="bioengine", log_to_driver=False, configure_logging=False)
settings = deploy.GatewaySettings({url!r}, {workspace!r}, pathlib.Path({token!r}), {client!r}, {worker!r})
asyncio.run(deploy.ensure_gateway(settings, {admins!r}))
"""


async def ensure_gateway(stack: Stack, release: str, admins: list[str]) -> None:
    """As a worker of another release would."""
    await stack.run_beside(
        ENSURE.format(
            release=release,
            admins=admins,
            ray=stack.ray_address,
            url=stack.url,
            workspace=stack.workspace,
            token=str(stack.home.secrets.admin_token),
            client="bioengine-local-worker-gateway",
            worker=stack.worker_id,
        )
    )


async def test_a_new_release_takes_over_within_seconds_and_new_admins_need_none(stack: Stack) -> None:
    """RO-16: the old gateway and the new one are never both found under one id."""
    before = await stack.settled_pids_of("bioengine-gateway")
    await stack.kill_worker()  # it would ask for its own release again
    async with calling(stack) as calls:
        await ensure_gateway(stack, "another", ["carol@lab.example"])
        await eventually(lambda: has_changed_from(stack, before), 60)
        await eventually(calls.go_well, 60)
        after, lost = stack.pids_of("bioengine-gateway"), len(calls.failed)
        await ensure_gateway(stack, "another", ["dave@lab.example"])
        await asyncio.sleep(3)
    assert stack.pids_of("bioengine-gateway") == after
    assert calls.failed[lost:] == [] and calls.longest_gap_s < 30
    assert not [said for said in calls.failed if "Multiple services" in said]
    async with stack.connected("dave") as server:
        assert await (await server.get_service(f"{stack.workspace}/demo")).secret() == "42"
    await stack.start_worker()
    await eventually(lambda: has_changed_from(stack, after), 60)


async def has_changed_from(stack: Stack, before: set[int]) -> bool:
    return len(now := stack.pids_of("bioengine-gateway")) == 1 and not now & before


async def test_services_come_back_under_the_same_ids_after_hypha_restarts(stack: Stack) -> None:
    before = await stack.settled_pids_of("bioengine-gateway"), await stack.settled_pids_of("ServeReplica:demo")
    await stack.stop_hypha()
    await asyncio.sleep(3)
    await stack.start_hypha()

    async def answers() -> bool:
        async with stack.connected() as server:
            worker = await server.get_service(stack.worker_id)
            app = await server.get_service(f"{stack.workspace}/bioengine-local-worker-gateway:demo")
            return (await app.version())["version"] == "1.1.0" and await worker.check_access()

    await eventually(answers, 60)
    assert (stack.pids_of("bioengine-gateway"), stack.pids_of("ServeReplica:demo")) == before


async def test_an_app_that_is_stopped_loses_its_service(stack: Stack) -> None:
    async with stack.connected() as server:
        worker = await server.get_service(stack.worker_id)
        await worker.stop_app(application_id="demo")

        async def is_gone() -> bool:
            listed = await server.list_services({"workspace": stack.workspace})
            return not any(one["id"].endswith(":demo") for one in listed)

        await eventually(is_gone, 60)
        assert await worker.get_app_status() == {}
