"""The life of an app on a real Ray: its test, its health, its capacity, its size, and what is done when it fails."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray import serve
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve.exceptions import BackPressureError

from bioengine_runtime.apps.errors import BadApp
from bioengine_runtime.apps.logs import logs_of
from bioengine_runtime.apps.record import read_records
from bioengine_runtime.apps.redeploying import read_tries
from bioengine_runtime.apps.supervisor import Supervisor
from bioengine_runtime.worker.pending import Waiting, pending
from tests.runtime.apps_world import (
    OWNER,
    Artifacts,
    a_ray,
    a_spec,
    an_environment,
    apply,
    call,
    is_up,
    pids,
    runs,
    state_of,
    until,
)

pytestmark = pytest.mark.e2e

HEAD = """
import asyncio
import logging
import os
import threading
import time
from pathlib import Path

import httpx
from hypha_rpc.utils.schema import schema_method
from ray import serve

log = logging.getLogger("ray.serve")
"""
ONE_LOOP = (
    HEAD
    + '''
async def answer(reader, writer):
    while await reader.readuntil(b"\\r\\n\\r\\n"):
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
        await writer.drain()


@serve.deployment(ray_actor_options={"num_cpus": 0.1}, health_check_period_s=0.5)
class Main:
    async def async_init(self):
        self.lock, self.asked = asyncio.Lock(), []
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await self.ask("async_init")

    async def ask(self, who):
        """The one connection of the client, made in the first call, belongs to the loop of that call."""
        async with self.lock:
            response = await self.client.get("/")
            self.asked.append((who, response.text, id(asyncio.get_running_loop())))

    async def test_deployment(self):
        await asyncio.gather(self.ask("test"), self.ask("test"))

    async def check_health(self):
        if len(self.asked) < 9:
            await self.ask("health")

    @schema_method
    async def told(self, word: str) -> list:
        """Who asked, over which loop."""
        log.debug("a detail")
        await self.ask("method")
        return self.asked
'''
)
BESIDE = (
    HEAD
    + '''
@serve.deployment(ray_actor_options={"num_cpus": 0.1}, health_check_period_s=0.5)
class Main:
    async def async_init(self):
        self.loop = asyncio.get_running_loop()

    async def test_deployment(self):
        self.same_loop = asyncio.get_running_loop() is self.loop
        while not Path("answer-badly").exists():
            await asyncio.sleep(0.05)
        Path("answer-badly").unlink()
        raise RuntimeError("a bad answer")

    @schema_method
    async def ping(self) -> list:
        """Whether the test began on our loop, and who answers."""
        return [self.same_loop, os.getpid()]
'''
)
BLOCKING_TEST = (
    BESIDE[: BESIDE.index("    async def test_deployment")]
    + '''
    def test_deployment(self):
        time.sleep(1000)

    @schema_method
    async def ping(self) -> int:
        """Who answers."""
        return os.getpid()
'''
)
MODELS = (
    HEAD
    + '''
@serve.deployment(
    ray_actor_options={"num_cpus": 0.1},
    autoscaling_config={"min_replicas": 1, "max_replicas": 3, "target_ongoing_requests": 4},
)
class Main:
    def __init__(self):
        self.loaded = []

    @serve.multiplexed(max_num_models_per_replica=2)
    async def model(self, name: str) -> str:
        self.loaded.append(name)
        return name.upper()

    @schema_method
    async def predict(self, name: str = None) -> list:
        """With the model of this name, or of the call."""
        return [await self.model(name or serve.get_multiplexed_model_id()), self.loaded]

    @schema_method
    def hold(self, seconds: float) -> int:
        """Keep a thread."""
        time.sleep(seconds)
        return threading.active_count()
'''
)
GPU = (
    HEAD
    + '''
@serve.deployment(ray_actor_options={"num_cpus": 0.1, "num_gpus": 1})
class Main:
    @schema_method
    def ping(self) -> int:
        """Nothing."""
        return 1
'''
)
BREAKS = (
    HEAD
    + '''
@serve.deployment(ray_actor_options={"num_cpus": 0.1}, health_check_period_s=0.5)
class Main:
    def __init__(self):
        if Path("broken").exists():
            raise RuntimeError("the disk is full")

    def check_health(self):
        if Path("ill").exists():
            Path("ill").unlink(missing_ok=True)
            self.ill = True
        if getattr(self, "ill", False):
            raise RuntimeError("not well")

    @schema_method
    async def ping(self) -> int:
        """Who answers."""
        return os.getpid()
'''
)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with a_ray() as home:
        yield home


@pytest.fixture(scope="module")
async def supervisor(home: Path) -> AsyncIterator[Supervisor]:
    artifacts = Artifacts()
    for version, code in (("loop", ONE_LOOP), ("beside", BESIDE), ("blocking-test", BLOCKING_TEST), ("models", MODELS)):
        artifacts.add("plain", version, main=code)
    for version, code in (("gpu", GPU), ("half", GPU.replace('"num_gpus": 1', '"num_gpus": 0.5')), ("breaks", BREAKS)):
        artifacts.add("plain", version, main=code)
    artifacts.add("plain", "large", main=GPU.replace('"num_cpus": 0.1, "num_gpus": 1', '"num_cpus": 3'))
    supervisor = Supervisor(reader=artifacts, environment=an_environment(home), redeploy_pause_s=1.0)
    await supervisor.start()
    yield supervisor
    await supervisor.stop()


async def remove(supervisor: Supervisor, *apps: str) -> None:
    for app_id in apps:
        await supervisor.remove(app_id, owner=OWNER)


async def logged(app_id: str, previous: int = 0) -> str:
    found = (await logs_of([(await read_records())[app_id]], tail=-1, previous=previous))[app_id]
    return "\n".join(line for replicas in found.values() for one in replicas.values() for line in one["stderr"])


async def test_6_1_15_all_that_is_async_runs_on_one_loop(supervisor: Supervisor):
    spec = a_spec("loop", version="loop", debug=True)
    assert await apply(supervisor, spec)
    await until(supervisor, "loop", is_up)
    told = await call("loop", "told", word="canary")
    assert {who for who, _, _ in told} == {"async_init", "test", "health", "method"}
    assert {answer for _, answer, _ in told} == {"ok"}
    assert len({loop for _, _, loop in told}) == 1


async def test_debug_logs_calls_and_the_apps_own_details_without_arguments(supervisor: Supervisor):
    said = await logged("loop")
    assert "call method=told seconds=" in said
    assert "a detail" in said
    assert "canary" not in said
    await remove(supervisor, "loop")


async def test_a_test_in_the_background_takes_no_time_and_its_failure_is_one_of_health(
    supervisor: Supervisor, home: Path
):
    spec = a_spec("beside", version="beside", rollout={"test": "background"})
    assert await apply(supervisor, spec)
    await until(supervisor, "beside", is_up)
    same_loop, pid = await call("beside", "ping")
    assert same_loop is True
    (home / "apps" / "beside" / "answer-badly").touch()
    state = await until(supervisor, "beside", lambda state: state.status == "UNHEALTHY")
    assert "health check failed" in state.message
    assert "Main: test_deployment failed: RuntimeError: a bad answer" in state.message
    await until(supervisor, "beside", lambda state: is_up(state) and pids(state).get("Main") not in (None, pid))
    assert "RuntimeError: a bad answer" in await logged("beside", previous=-1)


async def test_a_test_in_the_background_ends_with_its_replica(supervisor: Supervisor):
    spec = a_spec("beside", version="blocking-test", rollout={"test": "background", "drain_timeout_s": 5})
    assert await apply(supervisor, spec)
    await until(supervisor, "beside", runs(spec.digest()))
    pid = await call("beside", "ping")
    await remove(supervisor, "beside")
    for _ in range(150):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        await asyncio.sleep(0.1)
    pytest.fail("the replica lives on for its test")


async def test_models_are_multiplexed(supervisor: Supervisor):
    assert await apply(supervisor, a_spec("models", version="models"))
    await until(supervisor, "models", is_up)
    assert await call("models", "predict", "a") == ["A", ["a"]]
    handle = serve.get_app_handle("models")
    assert await handle.options(multiplexed_model_id="b").predict.remote() == ["B", ["a", "b"]]
    assert await handle.options(multiplexed_model_id="a").predict.remote() == ["A", ["a", "b"]]
    await call("models", "predict", "c")
    assert await call("models", "predict", "b") == ["B", ["a", "b", "c", "b"]]  # b was used least recently


async def test_the_bounds_of_the_author_and_of_the_instance_reach_the_autoscaler(supervisor: Supervisor):
    before = await state_of(supervisor, "models")
    assert before.spec
    assert scaling_of("models") == (1, 3, 4)
    bounds = {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 9}
    spec = a_spec("models", version="models", autoscaling={"Main": bounds})
    assert await apply(supervisor, spec)
    after = await until(supervisor, "models", runs(spec.digest()))
    assert scaling_of("models") == (1, 2, 9)
    assert pids(after) == pids(before)


def scaling_of(app_id: str) -> tuple[int, int, float]:
    controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    details: Any = ray.get(controller.get_serve_instance_details.remote())
    scaling = details["applications"][app_id]["deployments"]["Main"]["deployment_config"]["autoscaling_config"]
    return scaling["min_replicas"], scaling["max_replicas"], scaling["target_ongoing_requests"]


async def test_calls_beyond_the_capacity_are_refused_and_it_changes_in_place(supervisor: Supervisor):
    before = await state_of(supervisor, "models")
    assert all(isinstance(one, int) for one in await calls_at_once(8))

    spec = a_spec("models", version="models", replicas={"*": 1}, max_ongoing_requests=2, max_queued_requests=1)
    assert await apply(supervisor, spec)
    after = await until(supervisor, "models", runs(spec.digest()))
    assert pids(after) == pids(before)
    answers: list[Any] = []
    for _ in range(20):  # the handle is told of it a moment later
        answers = await calls_at_once(8)
        if sum(isinstance(one, int) for one in answers) < 8:
            break
    assert {type(one) for one in answers} == {int, BackPressureError}
    assert 2 <= sum(isinstance(one, int) for one in answers) <= 4
    await remove(supervisor, "models")


async def calls_at_once(number: int) -> list[Any]:
    calls = [call("models", "hold", seconds=0.5) for _ in range(number)]
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_what_can_never_run_here_is_refused_before_anything_is_touched(supervisor: Supervisor):
    """RO-09, RO-10."""
    node = ray.nodes()[0]["NodeID"][:8]
    with pytest.raises(BadApp, match=rf"Main fits on no node: node {node} \(.+\): needs 1 GPU, has 0"):
        await apply(supervisor, a_spec("gpu", version="gpu"))
    prepared = await supervisor.prepare(a_spec("gpu", version="half"), wait_s=60)
    assert not prepared.ok
    assert "Main asks for 0.5 GPU" in prepared.message
    with pytest.raises(BadApp, match="2 replicas of Main do not fit, at 3 CPU each"):
        await apply(supervisor, a_spec("gpu", version="large", replicas={"Main": 2}))
    assert [state for state in await supervisor.states() if state.app_id == "gpu"] == []


async def test_without_gpu_it_runs_and_a_larger_one_is_told_to_wait_for_room(supervisor: Supervisor):
    assert await apply(supervisor, a_spec("gpu", version="gpu", disable_gpu=True))
    await until(supervisor, "gpu", is_up)
    assert await call("gpu", "ping") == 1
    assert await apply(supervisor, a_spec("gpu", version="large"))
    await until(supervisor, "gpu", is_up)
    prepared = await supervisor.prepare(a_spec("gpu", version="large", kwargs={"Main": {}}), wait_s=60)
    assert prepared.ok
    assert "no room at the moment to bring up 1 of 1 Main" in prepared.message
    assert "surge: false" in prepared.message
    assert await apply(supervisor, a_spec("gpu", version="large", env={"*": {"A": "1"}}))
    waiting = Waiting({"CPU": 3.0}, 1, ("ServeReplica:gpu:Main",))
    deadline = time.monotonic() + 30
    while (found := await asyncio.to_thread(pending)).actors != (waiting,):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.2)
    await remove(supervisor, "gpu")


async def test_a_failing_check_of_health_replaces_the_replica(supervisor: Supervisor, home: Path):
    """RO-03: of a version that was good."""
    assert await apply(supervisor, a_spec("breaks", version="breaks", auto_redeploy=True))
    await until(supervisor, "breaks", is_up)
    pid = await call("breaks", "ping")
    (home / "apps" / "breaks" / "ill").touch()
    await until(supervisor, "breaks", lambda state: is_up(state) and pids(state).get("Main") not in (None, pid))


async def test_6_1_11_an_app_that_serve_gave_up_is_sent_again(supervisor: Supervisor, home: Path):
    """RO-06: of a version that was good, and does not come back by itself."""
    broken = home / "apps" / "breaks" / "broken"
    before = await state_of(supervisor, "breaks")
    broken.touch()
    pid = pids(before)["Main"]
    assert pid
    os.kill(pid, signal.SIGKILL)
    failed = await until(supervisor, "breaks", lambda state: state.status == "DEPLOY_FAILED")
    assert "deployed again" in failed.message
    assert failed.rejected is None
    broken.unlink()
    after = await until(supervisor, "breaks", is_up)
    assert after.digest == before.digest
    assert after.last_updated_at == before.last_updated_at
    assert 1 < read_tries("breaks").count <= 5
    await remove(supervisor, "breaks")
    assert read_tries("breaks").count == 0
