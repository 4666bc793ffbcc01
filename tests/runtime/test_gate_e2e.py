"""The gate after the switch, on a real Ray: what passes, what goes back, what stays, and what is told of it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from bioengine_runtime.apps import marks
from bioengine_runtime.apps.disks import KEPT_S, named_by, sweep_nodes
from bioengine_runtime.apps.logs import logs_of
from bioengine_runtime.apps.record import read_records
from bioengine_runtime.apps.supervisor import Supervisor, WorkerEnvironment
from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.status import AppState
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
    state_of,
    until,
)

pytestmark = pytest.mark.e2e

MAIN = '''
import asyncio
import os
from pathlib import Path

from hypha_rpc.utils.schema import schema_method
from ray import serve


@serve.deployment(ray_actor_options={"num_cpus": 0.1}, health_check_period_s=0.5, health_check_timeout_s=0.5)
class Main:
    def __init__(self, mode: str = "good"):
        if mode == "good" and Path("broken").exists():
            raise RuntimeError("the disk is full")
        self.mode, self.checks = mode, 0

    async def async_init(self):
        if self.mode == "crashes":
            asyncio.get_running_loop().call_later(1.5, os._exit, 1)

    async def test_deployment(self):
        if self.mode == "fails its test":
            raise RuntimeError("a bad answer")

    async def check_health(self):
        self.checks += 1
        if self.mode == "ill" and self.checks > 1 or self.mode == "flaps" and self.checks % 3 == 0:
            raise RuntimeError("not well")
        if self.mode == "hangs" and self.checks > 1:
            await asyncio.sleep(1000)

    @schema_method
    async def ping(self, name: str, context: dict = None) -> dict:
        """Who asks, and what answers."""
        if self.mode == "slow":
            await asyncio.sleep(1000)
        print("asked by", context["user"]["id"])
        mode = "good" if Path("mended").exists() else self.mode
        return {"mode": mode, "name": name, "who": context["user"]["id"], "size": 1}
'''
PROBE = {"method": "ping", "args": {"name": "probe"}, "expected": {"mode": "good", "who": OWNER, "size": 1.0}}
ME: Any = {"user": {"id": "me"}}


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with a_ray() as home:
        yield home


@pytest.fixture(scope="module")
def artifacts() -> Artifacts:
    artifacts = Artifacts()
    artifacts.add("plain", "1", main=MAIN)
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


def in_mode(mode: str, app_id: str = "gated", **rollout: Any) -> AppSpec:
    rollout = {"drain_timeout_s": 1, **rollout}
    return a_spec(app_id, kwargs={"Main": {"mode": mode}}, rollout=rollout)


def rejected(spec: AppSpec) -> Any:
    def seen(state: AppState) -> bool:
        done = state.rejected is not None and state.rejected.rollback != "under way"
        return done and state.rejected is not None and state.rejected.digest == spec.digest()

    return seen


async def test_first_versions_that_fail_their_gate_stay_and_are_told(supervisor: Supervisor):
    """RO-03 (hangs, always), RO-04, RO-05 (no answer), RO-06, RO-13 (flaps): side by side, each with its reason."""
    specs = {
        "ill": in_mode("ill", "ill", stable_s=60),
        "hangs": in_mode("hangs", "hangs", stable_s=60),
        "killed": in_mode("good", "killed", stable_s=60),
        "slow": in_mode("slow", "slow", probe={**PROBE, "timeout_s": 1}),
        "beside": in_mode("fails its test", "beside", stable_s=60, test="background"),
        "flaps": in_mode("flaps", "flaps", stable_s=3),
    }
    await asyncio.gather(*(apply(supervisor, spec) for spec in specs.values()))
    up = await until(supervisor, "killed", lambda state: state.status == "RUNNING")
    assert up.updating  # so whoever depends on it waits
    pid = pids(up)["Main"]
    assert pid
    while not await asyncio.to_thread(marks.read_gate, "killed"):  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    os.kill(pid, signal.SIGKILL)

    good = await until(supervisor, "flaps", is_up)
    assert good.rejected is None and good.last_deploy_s and good.last_deploy_s > 3
    said = {app_id: await until(supervisor, app_id, rejected(specs[app_id])) for app_id in specs if app_id != "flaps"}
    for app_id, state in said.items():
        assert state.rejected and state.digest == state.rejected.digest
        assert (state.updating, state.last_deploy_s) == (False, None), app_id
        assert state.rejected.rollback == "none"
    reasons = {app_id: (state.rejected.gate, state.rejected.reason) for app_id, state in said.items() if state.rejected}
    assert reasons["slow"] == ("probe", "the probe ping gave no answer within 1 s")
    assert reasons["ill"][0] == "stable" and reasons["ill"][1].endswith(": check_health: RuntimeError: not well")
    assert reasons["hangs"][0] == "stable" and "became unhealthy" in reasons["hangs"][1]
    assert reasons["killed"][0] == "stable"
    assert reasons["beside"][1].endswith("test_deployment failed: RuntimeError: a bad answer")
    assert "Main: test_deployment failed: RuntimeError: a bad answer" in said["beside"].message
    await asyncio.gather(*(supervisor.remove(app_id, owner=OWNER) for app_id in specs))


async def test_a_gate_goes_on_through_an_update_in_place_and_a_restart_of_the_worker(
    supervisor: Supervisor, artifacts: Artifacts, environment: WorkerEnvironment
):
    token = jwt.encode({"exp": 4e9}, "k" * 32)
    spec = in_mode("good", stable_s=4, probe=PROBE)
    spec = spec.model_copy(update={"secrets": {"*": ["HYPHA_TOKEN"]}})
    assert await apply(supervisor, spec, secrets={"*": {"HYPHA_TOKEN": token}})
    up = await until(supervisor, "gated", lambda state: state.status == "RUNNING")
    up_at = time.monotonic()
    assert up.updating
    assert up.token_expires_at == 4e9
    await supervisor.stop()
    await asyncio.sleep(2)
    second = Supervisor(reader=artifacts, environment=environment)
    changed = spec.model_copy(update={"max_ongoing_requests": 5})
    await apply(second, changed)
    supervisor.__init__(reader=artifacts, environment=environment)
    await supervisor.start()
    good = await until(supervisor, "gated", lambda state: is_up(state) and state.digest == changed.digest())
    assert pids(good) == pids(up)
    assert good.last_deploy_s and 4 <= good.last_deploy_s < time.monotonic() - up_at + 30
    assert token not in str(good)


async def test_ro_05_an_answer_that_is_wrong_brings_the_last_good_version_back(supervisor: Supervisor):
    before = await state_of(supervisor, "gated")
    spec = in_mode("odd", stable_s=60, probe=PROBE)
    assert await apply(supervisor, spec)
    after = await until(supervisor, "gated", rejected(spec))
    assert after.rejected
    assert (after.rejected.gate, after.rejected.rollback) == ("probe", "done")
    assert after.rejected.reason == "the probe ping answer.mode is 'odd', expected 'good'"
    assert f"asked by {OWNER}" in after.rejected.log_lines
    assert is_up(after) and (after.digest, after.last_deploy_s) == (before.digest, before.last_deploy_s)
    assert (await call("gated", "ping", "you", context=ME))["mode"] == "good"


async def test_ro_04_one_that_is_to_stay_stays_says_why_and_can_be_tried_again(supervisor: Supervisor, home: Path):
    spec = in_mode("odd", stable_s=0.5, probe=PROBE, rollback=False)
    assert await apply(supervisor, spec)
    state = await until(supervisor, "gated", rejected(spec))
    assert state.rejected and state.rejected.rollback == "none"
    assert (state.status, state.digest, state.updating) == ("RUNNING", spec.digest(), False)
    (home / "apps" / "gated" / "mended").touch()
    assert await apply(supervisor, spec)
    good = await until(supervisor, "gated", lambda seen: is_up(seen) and seen.rejected is None)
    assert pids(good) == pids(state), "nothing was wrong with its processes"
    assert not await apply(supervisor, spec)
    (home / "apps" / "gated" / "mended").unlink()


async def test_ro_13_a_way_back_that_fails_is_told_once_and_not_tried_again(supervisor: Supervisor, home: Path):
    good = in_mode("good", stable_s=1)
    assert await apply(supervisor, good)
    await until(supervisor, "gated", lambda state: is_up(state) and state.digest == good.digest())
    (home / "apps" / "gated" / "broken").touch()
    spec = in_mode("crashes", stable_s=60)
    assert await apply(supervisor, spec)
    state = await until(supervisor, "gated", rejected(spec))
    assert state.rejected and (state.rejected.gate, state.rejected.rollback) == ("stable", "failed")
    assert "cannot be brought back: RuntimeError: the disk is full" in state.rejected.reason
    assert (state.digest, state.updating, state.status) == (good.digest(), False, "DEPLOY_FAILED")
    await asyncio.sleep(2)
    assert (await state_of(supervisor, "gated")).rejected == state.rejected
    (home / "apps" / "gated" / "broken").unlink()
    assert await apply(supervisor, good)
    await until(supervisor, "gated", lambda seen: is_up(seen) and seen.rejected is None)

    app = (await read_records())["gated"]
    found = (await logs_of([app], tail=-1, previous=1))["gated"]["Main"]
    assert any("RuntimeError: the disk is full" in line for one in found.values() for line in one["stderr"])


@pytest.mark.usefixtures("supervisor")
async def test_the_nodes_disks_are_swept_of_what_no_app_needs(environment: WorkerEnvironment):
    places = environment.places()
    code, long_ago = Path(places.code), time.time() - KEPT_S - 1
    (code / "nobodys").mkdir()
    for folder in code.iterdir():  # noqa: ASYNC240
        os.utime(folder, (long_ago, long_ago))
    named = named_by(await read_records())
    await sweep_nodes(places, *named)
    assert {folder.name for folder in code.iterdir()} == named[0]  # noqa: ASYNC240
