"""Apps on a real Ray: every promise about deploying, updating, failing and coming back."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import serve

from bioengine_runtime.apps import store
from bioengine_runtime.apps.errors import BadApp, PrepareFailed, Refused
from bioengine_runtime.apps.logs import logs_of
from bioengine_runtime.apps.record import read_records
from bioengine_runtime.apps.supervisor import Supervisor, WorkerEnvironment
from tests.runtime.apps_world import (
    OWNER,
    Artifacts,
    a_provenance,
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

BROKEN_INIT = """
from hypha_rpc.utils.schema import schema_method
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Main:
    def __init__(self):
        print("about to break")
        raise RuntimeError("no model today")

    @schema_method
    async def ping(self):
        return 1
"""
FAILING_TEST = BROKEN_INIT.replace("def __init__", "async def test_deployment").replace("no model today", "bad answer")
BAD_PIN = BROKEN_INIT.replace('"num_cpus": 0.1', '"num_cpus": 0.1, "runtime_env": {"pip": ["humanize==99.9"]}')
HANGING = """
import asyncio
from hypha_rpc.utils.schema import schema_method
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Main:
    async def async_init(self):
        await asyncio.sleep(1000)

    @schema_method
    async def ping(self):
        return 1
"""
OWN_VERSION = """
import os
import packaging
from hypha_rpc.utils.schema import schema_method
from ray import serve

def pins():
    return ["packaging==25.0"]

@serve.deployment(ray_actor_options={"num_cpus": 0.1, "runtime_env": {"pip": pins()}}, health_check_period_s=1)
class Main:
    @schema_method
    async def version(self):
        return packaging.__version__, os.getpid()
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    os.environ["HYPHA_TOKEN"] = "the-workers-own"
    try:
        with a_ray() as home:
            yield home
    finally:
        del os.environ["HYPHA_TOKEN"]


@pytest.fixture(scope="module")
def artifacts() -> Artifacts:
    artifacts = Artifacts()
    artifacts.add("plain", "1")
    artifacts.add("plain", "2", helper="VERSION = 2")
    artifacts.add("plain", "3", helper="VERSION = 3")
    artifacts.add("plain", "broken-init", main=BROKEN_INIT)
    artifacts.add("plain", "failing-test", main=FAILING_TEST)
    artifacts.add("plain", "bad-pin", main=BAD_PIN)
    artifacts.add("plain", "hanging", main=HANGING)
    artifacts.add("plain", "own-version", main=OWN_VERSION)
    artifacts.add("composed", "1")
    return artifacts


@pytest.fixture(scope="module")
def environment(home: Path) -> WorkerEnvironment:
    return an_environment(home)


@pytest.fixture(scope="module")
async def supervisor(artifacts: Artifacts, environment: WorkerEnvironment) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(reader=artifacts, environment=environment)
    await supervisor.start()
    yield supervisor
    await supervisor.stop()


async def test_an_app_comes_up_and_finds_what_the_guide_promises(supervisor: Supervisor, home: Path):
    spec = a_spec(kwargs={"Main": {"greeting": "salut", "size": 2}}, env={"*": {"PLAIN": "visible"}})
    prepared = await supervisor.prepare(spec, wait_s=60)
    assert (prepared.done, prepared.ok, prepared.message) == (True, True, "")

    assert await apply(supervisor, spec, expected="")
    state = await until(supervisor, "plain", is_up)

    assert await call("plain", "ping", name="welt") == {
        "pid": pids(state)["Main"],
        "version": 1,
        "text": "salut welt",
    }
    inside = await call("plain", "inside")
    assert inside["steps"] == ["__init__", "async_init", "test_deployment"]
    assert (inside["humanize"], inside["thousand"]) == ("4.9.0", "1,000")
    assert inside["home"] == inside["cwd"] == str(home / "apps" / "plain")
    assert inside["tmpdir"] is True
    assert inside["env"] == {
        "AUTHOR": "yes",
        "PLAIN": "visible",
        "SECRET": None,
        "HYPHA_TOKEN": None,
        "HYPHA_SERVER_URL": "http://127.0.0.1:9520",
        "HYPHA_WORKSPACE": "ws",
        "HYPHA_ARTIFACT_ID": "ws/plain",
        "HYPHA_ARTIFACT_VERSION": "1",
        "BIOENGINE_ARTIFACT_ID": "ws/plain",
        "BIOENGINE_ARTIFACT_VERSION": "1",
        "BIOENGINE_WORKER_SERVICE_ID": "ws/worker:bioengine-worker",
        "BIOENGINE_APP_DIR": inside["code"],
    }
    assert inside["datasets"] == {}
    assert state.methods == ["ping", "inside", "count"]
    assert [replica.code_digest for replica in state.replicas] == [spec.code_digest()]
    assert state.provenance == a_provenance()
    stream: Any = serve.get_app_handle("plain").options(stream=True).count.remote(3)
    assert [number async for number in stream] == [0, 1, 2]


async def test_the_same_again_writes_nothing(supervisor: Supervisor):
    spec = (await state_of(supervisor, "plain")).spec
    before = await state_of(supervisor, "plain")
    assert spec is not None
    assert await apply(supervisor, spec) is False
    assert await state_of(supervisor, "plain") == before


async def test_who_may_call_and_how_many_at_once_change_without_a_new_replica(supervisor: Supervisor):
    before = await state_of(supervisor, "plain")
    assert before.spec
    spec = before.spec.model_copy(update={"authorized_users": ["me@lab"], "max_ongoing_requests": 3})
    assert await apply(supervisor, spec, expected=before.digest)
    after = await until(supervisor, "plain", runs(spec.digest()))
    await asyncio.sleep(1)
    after = await until(supervisor, "plain", runs(spec.digest()))
    assert pids(after) == pids(before)
    assert after.spec == spec
    assert after.started_at == before.started_at


async def test_an_update_under_calls_loses_none_of_them(supervisor: Supervisor):
    before = await state_of(supervisor, "plain")
    assert before.spec
    spec = before.spec.model_copy(update={"version": "2", "max_ongoing_requests": 10})
    answers: list[tuple[float, int]] = []
    done = asyncio.Event()

    async def keep_calling() -> None:
        while not done.is_set():
            started = time.monotonic()
            version = (await call("plain", "ping"))["version"]
            answers.append((time.monotonic() - started, version))
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(keep_calling())
        assert await apply(supervisor, spec)
        updating = await state_of(supervisor, "plain")
        after = await until(supervisor, "plain", runs(spec.digest()))
        await asyncio.sleep(2)
        done.set()

    assert updating.updating
    assert {version for _, version in answers} == {1, 2}
    assert answers[-1][1] == 2
    assert max(seconds for seconds, _ in answers) < 10
    assert after.started_at == before.started_at
    assert after.last_updated_at and before.last_updated_at and after.last_updated_at > before.last_updated_at
    assert pids(after) != pids(before)


@pytest.mark.parametrize(
    ("version", "reason"),
    [("broken-init", "RuntimeError: no model today"), ("failing-test", "RuntimeError: bad answer")],
)
async def test_a_version_that_does_not_start_leaves_the_old_one_serving(
    supervisor: Supervisor, version: str, reason: str
):
    """RO-02."""
    before = await state_of(supervisor, "plain")
    assert before.spec
    spec = before.spec.model_copy(update={"version": version, "kwargs": {}})
    assert await apply(supervisor, spec, expected=before.digest)
    after = await until(supervisor, "plain", lambda state: state.rejected is not None and is_up(state))

    assert after.rejected and after.rejected.digest == spec.digest()
    assert after.rejected.reason == reason
    assert any("about to break" in line for line in after.rejected.log_lines)
    assert (after.digest, pids(after)) == (before.digest, pids(before))
    assert after.started_at == before.started_at
    assert (await call("plain", "ping"))["version"] == 2


async def test_a_version_that_hangs_is_given_up_in_time(supervisor: Supervisor):
    """RO-02: one that never ends its start."""
    before = await state_of(supervisor, "plain")
    assert before.spec
    rollout = before.spec.rollout.model_copy(update={"health_timeout_s": 4.0})
    spec = before.spec.model_copy(update={"version": "hanging", "kwargs": {}, "rollout": rollout})
    assert await apply(supervisor, spec)
    after = await until(
        supervisor,
        "plain",
        lambda state: state.rejected is not None and state.rejected.digest == spec.digest() and is_up(state),
    )
    assert after.rejected and "did not come up within 4 s" in after.rejected.reason
    assert pids(after) == pids(before)


async def test_a_bad_pin_is_told_in_plain_words_and_touches_nothing(supervisor: Supervisor):
    """RO-07."""
    before = await state_of(supervisor, "plain")
    assert before.spec
    spec = before.spec.model_copy(update={"version": "bad-pin", "kwargs": {}})
    prepared = await supervisor.prepare(spec, wait_s=60)
    assert not prepared.ok
    assert "no version of humanize==99.9" in prepared.message
    assert "Traceback" not in prepared.message
    with pytest.raises(PrepareFailed, match=r"no version of humanize==99\.9"):
        await apply(supervisor, spec)
    assert pids(await state_of(supervisor, "plain")) == pids(before)


async def test_wrong_kwargs_are_named(supervisor: Supervisor):
    before = await state_of(supervisor, "plain")
    assert before.spec
    spec = before.spec.model_copy(update={"kwargs": {"Main": {"sise": 2, "size": "wide"}}})
    prepared = await supervisor.prepare(spec, wait_s=60)
    assert not prepared.ok
    assert 'Main.__init__ has no parameter "sise"; it takes greeting, size' in prepared.message
    assert 'parameter "size": Input should be a valid number' in prepared.message
    with pytest.raises(BadApp, match="kwargs names Other"):
        await apply(supervisor, before.spec.model_copy(update={"kwargs": {"Other": {}}}))


async def test_a_secret_reaches_the_replica_and_nothing_else(supervisor: Supervisor, home: Path):
    before = await state_of(supervisor, "plain")
    assert before.spec
    spec = before.spec.model_copy(update={"secrets": {"*": ["HYPHA_TOKEN", "SECRET"]}})
    value, token = "correct-horse-battery", "the-apps-own-token"
    secrets = {"*": {"SECRET": value, "HYPHA_TOKEN": token}}
    assert await apply(supervisor, spec, secrets=secrets, fingerprints={"*/SECRET": "f1"})
    after = await until(supervisor, "plain", runs(spec.digest()))
    env = (await call("plain", "inside"))["env"]
    assert (env["SECRET"], env["HYPHA_TOKEN"]) == (value, token)
    assert after.secret_fingerprints == {"*/SECRET": "f1"}

    everything = await asyncio.to_thread(_all_of_rays_state)
    assert b"greeting" in everything  # the dump does see what is deployed
    for secret in (value.encode(), token.encode()):
        assert secret not in everything
        assert base64.b64encode(secret) not in everything
        assert not _files_with(home / "apps", secret)
        assert not _files_with(home / "ray", secret)
    assert _files_with(home / "ray", b"async_init took")  # the logs are among them


async def test_a_new_value_of_a_secret_makes_a_new_replica(supervisor: Supervisor):
    before = await state_of(supervisor, "plain")
    assert before.spec
    fields: dict[str, Any] = {
        "secrets": {"*": {"SECRET": "second-value"}},
        "fingerprints": {"*/SECRET": "f2"},
    }
    assert await apply(supervisor, before.spec, **fields)
    after = await until(supervisor, "plain", lambda state: is_up(state) and pids(state) != pids(before))
    assert after.digest == before.digest
    assert (await call("plain", "inside"))["env"]["SECRET"] == "second-value"
    assert await apply(supervisor, before.spec, **fields) is False


async def test_a_secret_that_is_not_given_is_inherited(supervisor: Supervisor):
    before = await state_of(supervisor, "plain")
    assert before.spec
    spec = before.spec.model_copy(update={"version": "3"})
    assert await apply(supervisor, spec, fingerprints={"*/SECRET": "f2"})
    await until(supervisor, "plain", runs(spec.digest()))
    assert (await call("plain", "inside"))["env"]["SECRET"] == "second-value"


async def test_an_app_of_three_deployments_is_put_together(supervisor: Supervisor):
    spec = a_spec("composed", "composed", kwargs={"Adder": {"amount": 5}, "Entry": {"start": 1}})
    assert await apply(supervisor, spec)
    state = await until(supervisor, "composed", is_up)
    assert await call("composed", "compute", 4) == 20
    assert set(pids(state)) == {"Entry", "Adder", "Doubler"}
    assert state.methods == ["compute"]


async def test_an_app_brings_its_own_version_of_what_the_worker_has(supervisor: Supervisor):
    spec = a_spec("own", version="own-version")
    assert await apply(supervisor, spec)
    state = await until(supervisor, "own", is_up)
    assert await call("own", "version") == ("25.0", pids(state)["Main"])


async def test_a_node_without_the_apps_packages_gets_them_when_a_replica_starts(supervisor: Supervisor, home: Path):
    """RO-06: a replica that was killed is replaced."""
    before = await state_of(supervisor, "own")
    pid = pids(before)["Main"]
    assert pid
    shutil.rmtree(home / "apps" / ".cache" / "layers")
    os.kill(pid, signal.SIGKILL)
    after = await until(supervisor, "own", lambda state: is_up(state) and pids(state).get("Main") not in (None, pid))
    assert await call("own", "version") == ("25.0", pids(after)["Main"])


async def test_another_worker_object_reads_everything_back(
    supervisor: Supervisor, artifacts: Artifacts, environment: WorkerEnvironment
):
    second = Supervisor(reader=artifacts, environment=environment)
    await second.start()
    try:
        for _ in range(60):  # what was deployed a moment ago is still being called good, by the one or the other
            read, known = await second.states(), await supervisor.states()
            if read == known:
                break
            await asyncio.sleep(0.5)
        assert read == known and {state.app_id for state in read} >= {"plain", "own"}
    finally:
        await second.stop()


async def test_a_new_worker_goes_on_with_an_update_that_fails(
    supervisor: Supervisor, artifacts: Artifacts, environment: WorkerEnvironment
):
    """RO-02, with a worker that ends in between."""
    await supervisor.stop()
    before = await state_of(supervisor, "plain")
    assert before.spec
    first = Supervisor(reader=artifacts, environment=environment)
    spec = before.spec.model_copy(update={"version": "failing-test", "kwargs": {}})
    await apply(first, spec, fingerprints={"*/SECRET": "f2"})  # and is never started: nobody watches
    await asyncio.sleep(1)
    second = Supervisor(reader=artifacts, environment=environment)
    await second.start()
    try:
        after = await until(second, "plain", lambda state: state.rejected is not None and is_up(state))
        assert (after.digest, pids(after)) == (before.digest, pids(before))
    finally:
        await second.stop()
        supervisor.__init__(reader=artifacts, environment=environment)
        await supervisor.start()


async def test_a_first_version_that_fails_stays_failed(supervisor: Supervisor):
    spec = a_spec("first", version="broken-init")
    assert await apply(supervisor, spec)
    state = await until(supervisor, "first", lambda state: state.rejected is not None)
    assert state.status == "DEPLOY_FAILED"
    assert state.rejected and state.rejected.reason == "RuntimeError: no model today"
    assert await apply(supervisor, spec)  # what failed and stays is tried again when somebody asks for it
    good = a_spec("first", version="1")
    assert await apply(supervisor, good, expected=spec.digest())
    state = await until(supervisor, "first", runs(good.digest()))
    assert state.rejected is None


async def test_an_app_of_format_0_6_0_is_composed_by_its_annotations(supervisor: Supervisor, artifacts: Artifacts):
    artifacts.add("annotated", "1")
    spec = a_spec("annotated", folder="annotated", kwargs={"Entry": {"mark": "?"}})
    assert await apply(supervisor, spec)
    state = await until(supervisor, "annotated", is_up)
    assert set(pids(state)) == {"Entry", "Words"} and state.methods == ["greet", "whoami"]
    answer = await call("annotated", "greet", "abc")
    assert answer["text"] == "CBA?" and answer["steps"] == ["init", "test"]
    assert answer["datasets"] == [{}, {}] and answer["version"]
    assert await call("annotated", "whoami", context={"user": {"id": "anna"}}) == "anna"
    await supervisor.remove("annotated", owner=OWNER)


@pytest.mark.usefixtures("supervisor")
async def test_logs_are_read_per_replica():
    found = (await logs_of([(await read_records())["plain"]], tail=20, previous=1))["plain"]
    assert set(found) == {"Main"}
    assert len(found["Main"]) == 2


async def test_what_is_not_ours_or_not_as_expected_is_refused(supervisor: Supervisor):
    before = await state_of(supervisor, "plain")
    assert before.spec
    spec = before.spec.model_copy(update={"version": "2"})
    fingerprints = {"*/SECRET": "f2"}
    with pytest.raises(Refused, match="belongs to test-cluster, not to somebody"):
        await apply(supervisor, spec, provenance=a_provenance(owner="somebody"), fingerprints=fingerprints)
    with pytest.raises(Refused, match="not as expected"):
        await apply(supervisor, spec, expected="0" * 64, fingerprints=fingerprints)
    with pytest.raises(Refused, match="not as expected"):
        await apply(supervisor, spec, expected="", fingerprints=fingerprints)
    with pytest.raises(Refused):
        await supervisor.remove("plain", owner="somebody")
    assert await state_of(supervisor, "plain") == before


async def test_many_at_once_go_out_together(supervisor: Supervisor):
    specs = [a_spec(f"many-{number}", "composed", kwargs={"Adder": {"amount": number}}) for number in range(3)]
    assert all(await asyncio.gather(*(apply(supervisor, spec) for spec in specs)))
    for spec in specs:
        await until(supervisor, spec.app_id, is_up)
    assert await asyncio.gather(*(call(spec.app_id, "compute", 1) for spec in specs)) == [2, 4, 6]


async def test_removed_apps_are_gone(supervisor: Supervisor):
    apps = [state.app_id for state in await supervisor.states()]
    for app_id in apps:
        await supervisor.remove(app_id, owner="test-cluster")
        await supervisor.remove(app_id, owner="test-cluster")
    deadline = time.monotonic() + 90
    while await read_records():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.5)
    assert await supervisor.states() == []


def _all_of_rays_state() -> bytes:
    """Ray's key-value store, all namespaces that Serve and we write to, and Serve's own answer."""
    from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    found = json.dumps(ray.get(controller.get_serve_instance_details.remote()), default=str).encode()
    for namespace in (store.NAMESPACE, SERVE_NAMESPACE.encode(), b"serve", None):
        for key in _internal_kv_list(b"", namespace=namespace):
            content = _internal_kv_get(key, namespace=namespace) or b""
            found += content
            if content and key.startswith(b"blueprint/"):
                found += b"".join(base64.b64decode(one) for one in json.loads(content)["deployments"])
    return found


def _files_with(folder: Path, text: bytes) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]
