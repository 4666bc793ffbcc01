"""A pushed commit becomes a running, callable app, on real parts: git, Hypha, its store, Ray Serve, the worker."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from bioengine_runtime.contract.app import AppSpec
from reconciler.adapters.artifacts import MANAGER, HyphaArtifacts
from reconciler.adapters.hypha import Address, HyphaSession
from reconciler.adapters.memory import HyphaMemory
from reconciler.adapters.runtime import WorkerRuntime
from reconciler.planning.steps import UploadArtifact
from reconciler.ports import Artifacts, Runtime
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


async def test_a_push_updates_only_the_app_it_changes(base: Lab) -> None:
    before, pids = await base.apps(), {app_id: await base.pids(app_id) for app_id in ("alpha", "beta")}
    held = await base.session.service(before["alpha"].service_id or "")
    await base.push(an_app_folder("alpha", says="pong 2"), "Say something else")
    done = await base.apply()
    assert done.code == 0, done.stdout
    assert done.results == {"upload alpha": "done", "prepare alpha": "done", "update alpha": "done"}
    after = await base.apps()
    assert await base.call("alpha") == "pong 2" and await held.ping() == "pong 2"
    assert after["alpha"].started_at == before["alpha"].started_at
    assert after["alpha"].service_id == before["alpha"].service_id
    assert not await base.pids("alpha") & pids["alpha"] and await base.pids("beta") == pids["beta"]


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


# ── killed at any side effect ──────────────────────────────────────────────────────────────────────────────────────

UPDATE = ("/edit", "/put_file", "/PUT main.py", "/commit", "alpha/prepare_app", "alpha/apply_app")


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("call", UPDATE)
async def test_killed_while_updating_the_next_run_ends_in_the_same_state(base: Lab, call: str, side: str) -> None:
    says = f"pong after {call}:{side}"
    started, versions = (await base.apps())["alpha"].started_at, (await base.stored("alpha")).versions
    await base.push(an_app_folder("alpha", says=says))
    assert (await base.apply(fail_at=f"{call}:{side}")).code == KILLED
    done = await base.apply()
    assert done.code == 0, done.stdout + done.stderr
    artifact, apps = await base.stored("alpha"), await base.apps()
    assert len(artifact.versions) == len(versions) + 1 and artifact.versions[:-1] == versions
    assert not artifact.staged
    assert apps.keys() == {"alpha", "beta"} and apps["alpha"].started_at == started
    assert await base.call("alpha") == says and len(await base.pids("alpha")) == 1
    assert (await base.reconcile("plan", "--detailed-exitcode")).code == 0


@pytest.mark.parametrize("call", ["/create:after", "/PUT main.py:after", "/commit:after", "/apply_app:after"])
async def test_killed_while_creating_the_next_run_makes_one_app(base: Lab, call: str) -> None:
    name = f"new-{secrets.token_hex(3)}"
    await base.push(a_repository("alpha", "beta", name, cluster=PRUNE))
    assert (await base.apply(fail_at=call)).code == KILLED
    done = await base.apply()
    assert done.code == 0, done.stdout + done.stderr
    assert (await base.apps()).keys() == {"alpha", "beta", name} and await base.call(name) == "pong"
    assert len((await base.stored(name)).versions) == 1
    await base.push({"cluster.yaml": a_repository("alpha", "beta", cluster=PRUNE)["cluster.yaml"]})
    assert (await base.apply(fail_at="/remove_app:after")).code == KILLED
    done = await base.apply()
    assert done.code == 0, done.stdout + done.stderr
    assert (await base.apps()).keys() == {"alpha", "beta"}, done.stdout + done.stderr


async def test_an_upload_cut_off_twice_by_different_commits_leaves_nothing_of_the_first(base: Lab) -> None:
    await base.push({**an_app_folder("alpha", says="first"), "apps/alpha/only_in_first.txt": "x"})
    assert (await base.apply(fail_at="/PUT only_in_first.txt:after")).code == KILLED
    await base.push({**an_app_folder("alpha", says="second"), "apps/alpha/only_in_first.txt": None})
    done = await base.apply(fail_at="/discard:after")
    assert done.code == KILLED, done.stdout
    assert (await base.apply()).code == 0
    newest = (await base.stored("alpha")).versions[-1]
    assert await stored_files(base.session, "alpha", newest.name) == {"main.py", "manifest.yaml"}
    assert await base.call("alpha") == "second"


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
