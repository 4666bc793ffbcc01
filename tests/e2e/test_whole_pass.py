"""A pushed commit becomes a running, callable app, on real parts: git, Hypha, its store, Ray Serve, the worker."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
import pytest_asyncio

from bioengine_runtime.contract.app import AppSpec
from reconciler.adapters.artifacts import MANAGER, HyphaArtifacts
from reconciler.adapters.hypha import Address, HyphaSession
from reconciler.adapters.memory import HyphaMemory
from reconciler.adapters.runtime import WorkerRuntime
from reconciler.errors import Unreachable
from reconciler.planning.steps import UploadArtifact
from reconciler.ports import Artifacts, Runtime
from tests.builders import a_worker
from tests.contracts.hypha_memory import HyphaMemoryContract
from tests.contracts.ports import ArtifactsContract, RuntimeContract, send
from tests.contracts.ports import an_upload as an_upload_of
from tests.e2e.lab import KILLED, Lab
from tests.fakes import a_repository, an_app_folder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

BASE = a_repository("alpha", "beta", cluster="policy: {removal_budget: 100%}\n")
PRUNE = "policy: {removal_budget: 100%, prune: true}\n"


@pytest_asyncio.fixture
async def base(lab: Lab) -> Lab:
    """alpha and beta run, both saying `pong`."""
    await lab.push(BASE, "Back to the base")
    done = await lab.apply()
    assert done.code == 0, done.stdout + done.stderr
    return lab


# ── the pass ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_first_apply_makes_apps_that_answer_through_hypha(base: Lab) -> None:
    apps = await base.apps()
    assert apps.keys() == {"alpha", "beta"}
    assert [await base.call(app_id) for app_id in apps] == ["pong", "pong"]
    provenance = apps["alpha"].provenance
    assert provenance and provenance.owner == "lab" and provenance.path == "apps/alpha"


async def test_a_second_pass_changes_nothing(base: Lab) -> None:
    before = {app_id: (await base.pids(app_id), app) for app_id, app in (await base.apps()).items()}
    stored = await base.artifacts.list()
    planned = await base.reconcile("plan", "--detailed-exitcode")
    assert planned.code == 0, planned.stdout + planned.stderr
    done = await base.apply(fail_at="0")  # it would die before the first write
    assert done.code == 0 and done.results == {}
    after = {app_id: (await base.pids(app_id), app) for app_id, app in (await base.apps()).items()}
    assert after == before and await base.artifacts.list() == stored


async def test_a_push_updates_only_the_app_it_changes_and_no_call_is_lost(base: Lab) -> None:
    """RO-14: eight clients call through the change of versions, by Hypha RPC and by HTTP. RO-15: those by RPC hold one
    handle all the while. RO-16: those by HTTP name the app by its short id, which is looked up for each call."""
    before, pids = await base.apps(), {app_id: await base.pids(app_id) for app_id in ("alpha", "beta")}
    await base.push(an_app_folder("alpha", says="pong 2"), "Say something else")
    async with eight_clients(base, "alpha") as said:
        done = await base.apply()
    assert done.code == 0, done.stdout
    assert done.results == {"upload alpha": "done", "prepare alpha": "done", "update alpha": "done"}
    assert [set(one) for one in said] == [{"pong", "pong 2"}] * 8 and {one[-1] for one in said} == {"pong 2"}
    after = await base.apps()
    assert after["alpha"].started_at == before["alpha"].started_at
    assert after["alpha"].service_id == before["alpha"].service_id
    assert not await base.pids("alpha") & pids["alpha"] and await base.pids("beta") == pids["beta"]


@asynccontextmanager
async def eight_clients(lab: Lab, app_id: str) -> AsyncGenerator[list[list[str]], None]:
    """They call `ping` again and again, and once more at the end; what each was answered so far, errors among it."""
    service_id = (await lab.apps())[app_id].service_id or ""
    url = (await lab.session.connection()).config.public_base_url
    over, said = asyncio.Event(), [list[str]() for _ in range(8)]

    async def by_http(http: httpx.AsyncClient) -> str:
        answer = await http.post(f"{url}/{service_id.split('/')[0]}/services/{app_id}/ping", json={})
        return answer.json() if answer.is_success else answer.text

    async def repeat(call: Callable[[], Awaitable[str]], said: list[str]) -> None:
        last = False
        while not last:
            last = over.is_set()
            try:
                said.append(await asyncio.wait_for(call(), 30))
            except Exception as error:  # whatever it is, the call is lost
                said.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.25)

    async with AsyncExitStack() as ends:
        calls: list[Callable[[], Awaitable[str]]] = []
        for _ in range(4):
            session = another_client(lab)
            ends.push_async_callback(session.close)
            http = await ends.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=30))
            calls += [(await session.service(service_id)).ping, partial(by_http, http)]
        tasks = [asyncio.create_task(repeat(call, one)) for call, one in zip(calls, said, strict=True)]
        try:
            yield said
        finally:
            over.set()
            await asyncio.gather(*tasks)


def another_client(lab: Lab) -> HyphaSession:
    return HyphaSession(lab.session._address)


async def test_a_revert_uploads_nothing(base: Lab) -> None:
    await base.push(an_app_folder("alpha", says="for a moment"))
    assert (await base.apply()).code == 0
    stored = await base.stored("alpha")
    await base.push(BASE, "Revert")
    done = await base.apply()
    assert done.code == 0 and "upload alpha" not in done.results
    assert await base.stored("alpha") == stored and await base.call("alpha") == "pong"


async def test_a_list_of_people_is_changed_without_a_new_replica(base: Lab) -> None:
    pids = await base.pids("alpha")
    await base.push(
        {"cluster.yaml": BASE["cluster.yaml"].replace("alpha\n", "alpha\n    authorized_users: [a@b.example]\n")}
    )
    done = await base.apply()
    assert done.code == 0 and done.results == {"update alpha": "done"}
    assert await base.pids("alpha") == pids


# ── what goes wrong, and what it leaves alone ──────────────────────────────────────────────────────────────────────


async def test_a_broken_manifest_leaves_its_app_alone_and_not_the_others(base: Lab) -> None:
    pids = await base.pids("alpha")
    await base.push({"apps/alpha/manifest.yaml": "id: [\n", **an_app_folder("beta", says="beta 2")})
    done = await base.apply()
    assert done.code == 1 and "--> apps/alpha/manifest.yaml:" in done.stderr
    assert await base.pids("alpha") == pids and await base.call("alpha") == "pong"
    assert await base.call("beta") == "beta 2"


async def test_an_environment_that_cannot_be_built_leaves_the_running_app_alone(base: Lab) -> None:
    pids = await base.pids("alpha")
    folder = an_app_folder("alpha", says="never")
    asks = '"runtime_env": {"pip": ["humanize==999.0.0"]}, "num_cpus": 0'
    await base.push({**folder, "apps/alpha/main.py": folder["apps/alpha/main.py"].replace('"num_cpus": 0', asks)})
    done = await base.apply()
    assert done.code == 1
    assert done.results == {"upload alpha": "done", "prepare alpha": "failed", "update alpha": "skipped"}
    said = next(o["message"] for o in done.document["outcomes"] if o["result"] == "failed")
    assert "humanize" in said
    assert await base.pids("alpha") == pids and await base.call("alpha") == "pong"


async def test_a_version_that_does_not_start_leaves_the_old_one_serving_and_is_not_tried_again(base: Lab) -> None:
    pids = await base.pids("alpha")
    folder = an_app_folder("alpha", says="never")
    broken = (
        folder["apps/alpha/main.py"] + '\n    def __init__(self) -> None:\n        raise RuntimeError("no model")\n'
    )
    await base.push({**folder, "apps/alpha/main.py": broken}, "Break it")
    done = await base.apply()
    assert done.code == 1
    verdicts = {app["id"]: app["verdict"] for app in done.document["apps"]}
    assert verdicts == {"alpha": "rejected", "beta": "healthy"}
    assert "no model" in done.stderr
    assert await base.pids("alpha") == pids and await base.call("alpha") == "pong"
    again = await base.reconcile("plan", "-o", "json")
    assert again.document["steps"] == []
    assert [(held["app_id"], held["reason"]) for held in again.document["held"]] == [("alpha", "BadCommit")]
    await base.push(an_app_folder("alpha", says="mended"), "Mend it")
    assert (await base.apply()).code == 0 and await base.call("alpha") == "mended"


async def test_an_app_that_git_no_longer_names_is_held_until_prune_is_on(base: Lab) -> None:
    await base.push({"cluster.yaml": BASE["cluster.yaml"].split("  beta:")[0]}, "Forget beta")
    held = await base.apply()
    assert held.code == 0 and held.results == {} and await base.call("beta") == "pong"
    planned = await base.reconcile("plan", "-o", "json")
    assert [(one["app_id"], one["reason"]) for one in planned.document["held"]] == [("beta", "PruneDisabled")]
    await base.push({"cluster.yaml": a_repository("alpha", cluster=PRUNE)["cluster.yaml"]}, "Prune")
    stopped = await base.apply()
    assert stopped.code == 0 and stopped.results == {"stop beta": "done"}
    assert (await base.apps()).keys() == {"alpha"}
    assert (await base.stored("beta")).versions  # code stays, so that coming back uploads nothing


# ── who is obeyed ──────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def an_offer(lab: Lab, name: str, told: list[str]) -> AsyncGenerator[str, None]:
    """Another client of the workspace offers a worker of this name; its full id, and what it is told goes to `told`."""
    session = another_client(lab)

    async def observe(**_: Any) -> Any:
        told.append("observe")
        return a_worker().model_dump(mode="json")

    try:
        config = {"visibility": "public"}
        yield await session.register({"id": name, "type": "bioengine-worker", "config": config, "observe": observe})
    finally:
        await session.close()


async def test_sp_10_another_who_offers_the_workers_short_id_is_told_nothing(lab: Lab) -> None:
    told: list[str] = []
    met, true_id = WorkerRuntime(lab.session, "bioengine-worker"), (await lab.runtime.observe()).service_id
    await met.observe()
    await lab.push(BASE)
    async with an_offer(lab, "bioengine-worker", told):
        assert (await met.observe()).service_id == true_id
        with pytest.raises(Unreachable, match="several workers answer to 'bioengine-worker'"):
            await WorkerRuntime(lab.session, "bioengine-worker").observe()
        planned, pinned = await asyncio.gather(
            lab.reconcile("plan", "-o", "json"), lab.reconcile("plan", "-o", "json", "--worker", true_id)
        )
    assert planned.document["steps"] == []
    assert [one["what"] for one in planned.document["live"]["unseen"]] == ["apps"]
    assert pinned.document["live"]["unseen"] == [] and pinned.document["worker"] == true_id
    assert told == []


async def test_sp_10_another_who_takes_the_place_of_a_worker_is_told_nothing(lab: Lab) -> None:
    told: list[str] = []
    runtime = WorkerRuntime(lab.session, "replaced-worker")
    async with an_offer(lab, "replaced-worker", []) as gone:
        await runtime.observe()
    async with an_offer(lab, "replaced-worker", told) as another:
        with pytest.raises(Unreachable):  # whom we held is gone
            await runtime.observe()
        with pytest.raises(Unreachable, match=f"was worker {gone}, which is gone; {another} offers it now"):
            await runtime.observe()
    assert told == []


# ── killed at any side effect ──────────────────────────────────────────────────────────────────────────────────────


@pytest_asyncio.fixture(scope="module")
async def both(lab: Lab) -> Lab:
    """alpha and beta run; alpha says what the test before made it say, which is the state that a test has to leave."""
    await lab.push(BASE, "Back to the base")
    done = await lab.apply()
    assert done.code == 0, done.stdout + done.stderr
    return lab


UPDATE = ("/edit", "/put_file", "/PUT main.py", "/commit", "alpha/prepare_app", "alpha/apply_app")
"""In this order; nothing is between what is after one and before the next."""


@pytest.mark.parametrize("point", ["/edit:before", *(f"{call}:after" for call in UPDATE)])
async def test_killed_while_updating_the_next_run_ends_in_the_same_state(both: Lab, point: str) -> None:
    says = f"pong after {point}"
    started, versions = (await both.apps())["alpha"].started_at, (await both.stored("alpha")).versions
    await both.push(an_app_folder("alpha", says=says))
    assert (await both.apply(fail_at=point)).code == KILLED
    done = await both.apply()
    assert done.code == 0, done.stdout + done.stderr
    artifact, apps = await both.stored("alpha"), await both.apps()
    assert len(artifact.versions) == len(versions) + 1 and artifact.versions[:-1] == versions
    assert not artifact.staged
    assert apps.keys() == {"alpha", "beta"} and apps["alpha"].started_at == started
    assert await both.call("alpha") == says and len(await both.pids("alpha")) == 1
    assert (await both.reconcile("plan", "--detailed-exitcode")).code == 0


@pytest.mark.parametrize("call", ["/create:after", "/PUT main.py:after", "/commit:after", "/apply_app:after"])
async def test_killed_while_creating_the_next_run_makes_one_app(both: Lab, call: str) -> None:
    name = f"new-{secrets.token_hex(3)}"
    cluster = a_repository("alpha", "beta", name, cluster=PRUNE)["cluster.yaml"]
    await both.push({"cluster.yaml": cluster, **an_app_folder(name)})
    assert (await both.apply(fail_at=call)).code == KILLED
    done = await both.apply()
    assert done.code == 0, done.stdout + done.stderr
    assert (await both.apps()).keys() == {"alpha", "beta", name} and await both.call(name) == "pong"
    assert len((await both.stored(name)).versions) == 1
    await both.push({"cluster.yaml": a_repository("alpha", "beta", cluster=PRUNE)["cluster.yaml"]})
    assert (await both.apply(fail_at="/remove_app:after")).code == KILLED
    done = await both.apply()
    assert done.code == 0, done.stdout + done.stderr
    assert (await both.apps()).keys() == {"alpha", "beta"}, done.stdout + done.stderr


async def test_an_upload_cut_off_twice_by_different_commits_leaves_nothing_of_the_first(both: Lab) -> None:
    await both.push({**an_app_folder("alpha", says="first"), "apps/alpha/only_in_first.txt": "x"})
    assert (await both.apply(fail_at="/PUT only_in_first.txt:after")).code == KILLED
    await both.push({**an_app_folder("alpha", says="second"), "apps/alpha/only_in_first.txt": None})
    done = await both.apply(fail_at="/discard:after")
    assert done.code == KILLED, done.stdout
    assert (await both.apply()).code == 0
    newest = (await both.stored("alpha")).versions[-1]
    assert await stored_files(both.session, "alpha", newest.name) == {"main.py", "manifest.yaml"}
    assert await both.call("alpha") == "second"


# ── the ports' contracts on the real services ──────────────────────────────────────────────────────────────────────


async def stored_files(session: HyphaSession, alias: str, version: str) -> set[str]:
    artifact_id = f"{await session.workspace()}/{alias}"
    items = await session.ask(MANAGER, "list_files", timeout_s=30.0, artifact_id=artifact_id, version=version)
    return {item["name"] for item in items}


@pytest_asyncio.fixture
async def nobody() -> AsyncGenerator[HyphaSession, None]:
    session = HyphaSession(lambda: Address("http://127.0.0.1:9"))
    yield session
    await session.close()


class TestHyphaArtifacts(ArtifactsContract):
    @pytest.fixture
    def artifacts(self, lab: Lab) -> HyphaArtifacts:
        return lab.artifacts

    @pytest.fixture
    def unreachable(self, nobody: HyphaSession) -> HyphaArtifacts:
        return HyphaArtifacts(nobody)

    async def files_of(self, artifacts: Artifacts, upload: UploadArtifact) -> dict[str, int]:
        assert isinstance(artifacts, HyphaArtifacts)
        found: dict[str, int] = {}
        for folder in ("", "frontend"):
            items = await artifacts._session.ask(
                MANAGER,
                "list_files",
                timeout_s=30.0,
                artifact_id=upload.artifact_id,
                version=upload.version,
                **({"dir_path": folder} if folder else {}),
            )
            found |= {f"{folder}/{i['name']}".lstrip("/"): i["size"] for i in items if i["type"] == "file"}
        return found


class TestHyphaMemory(HyphaMemoryContract):
    @pytest.fixture
    def session(self, lab: Lab) -> HyphaSession:
        return lab.session

    @pytest.fixture
    def unreachable(self, nobody: HyphaSession) -> HyphaMemory:
        return HyphaMemory(nobody, "lab", lambda: self.key)


class TestWorkerRuntime(RuntimeContract):
    @pytest.fixture
    def runtime(self, lab: Lab) -> WorkerRuntime:
        return lab.runtime

    @pytest.fixture
    def unreachable(self, nobody: HyphaSession) -> WorkerRuntime:
        return WorkerRuntime(nobody, "bioengine-worker")

    @pytest_asyncio.fixture
    async def spec(self, lab: Lab) -> AsyncGenerator[AppSpec, None]:
        files = {name.removeprefix("apps/contract/"): text.encode() for name, text in an_app_folder("contract").items()}
        upload = an_upload_of(await lab.artifacts.workspace(), files, name="contract")
        await send(lab.artifacts, upload, files)
        app_id = f"contract-{secrets.token_hex(3)}"
        yield AppSpec(app_id=app_id, artifact_id=upload.artifact_id, version=upload.version, authorized_users=["*"])
        await self._stop(lab.runtime, app_id)

    async def _stop(self, runtime: Runtime, app_id: str) -> None:
        await runtime.remove(app_id, owner=self.owner, expected=None)
        for _ in range(100):
            if app_id not in {app.app_id for app in (await runtime.observe()).apps}:
                return
            await asyncio.sleep(0.2)
