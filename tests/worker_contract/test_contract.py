"""What every client of a worker may count on, and that the faults of the first worker are not there."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

from tests.runtime.stack import eventually
from tests.worker_contract.an_app import files
from tests.worker_contract.conftest import AnApp, Target, removed_afterwards

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

OLDER_AND_NEWER = {
    "run_application": "deploy_app",
    "stop_application": "stop_app",
    "stop_all_applications": "stop_all_apps",
    "get_application_status": "get_app_status",
    "get_application_manifest": "get_app_manifest",
    "list_applications": "list_apps",
    "save_application": "upload_app",
    "delete_application": "delete_app",
    "execute_python_code": "run_code",
}
METHODS = {
    *OLDER_AND_NEWER,
    *OLDER_AND_NEWER.values(),
    *("get_status", "stop_worker", "check_access", "get_logs", "list_datasets"),
    *("list_app_directories", "clear_app_directory", "delete_app_version"),
}
WORKER_STATUS = {
    *("service_start_time", "service_uptime", "bioengine_version", "ray_version", "worker_mode", "workspace"),
    *("client_id", "ray_cluster", "admin_users", "geo_location", "is_ready"),
}
NODE = {
    *("node_ip", "head", "total_cpu", "used_cpu", "total_gpu", "used_gpu", "total_gpu_memory", "used_gpu_memory"),
    *("total_memory", "used_memory", "total_object_store_memory", "used_object_store_memory", "accelerator_type"),
    "slurm_job_id",
}
APP_STATUS = {
    *("display_name", "description", "artifact_id", "version", "recovered_app", "status", "message", "deployments"),
    *("application_kwargs", "application_env_vars", "gpu_enabled", "application_resources", "authorized_users"),
    *("available_methods", "max_ongoing_requests", "static_site_url", "service_ids", "start_time", "last_updated_at"),
    *("last_updated_by", "auto_redeploy"),
}


async def test_every_method_is_there_under_both_its_names(target: Target) -> None:
    assert METHODS - {name for name in METHODS if callable(target.worker.get(name))} == set()
    assert (target.worker["type"], target.worker["config"]["visibility"]) == ("bioengine-worker", "public")


async def test_the_status_of_the_worker_has_the_known_shape(target: Target) -> None:
    status = await target.worker.get_status()
    assert status.keys() >= WORKER_STATUS
    assert status["is_ready"] is True and status["service_uptime"] > 0
    assert status["worker_mode"] in ("slurm", "single-machine", "external-cluster")
    assert status["workspace"] == target.workspace
    assert f"{status['workspace']}/{status['client_id']}:" in target.worker_id
    assert isinstance(status["admin_users"], list) and len(status["admin_users"]) > 0
    geo = {"region", "country_name", "country_code", "latitude", "longitude", "timezone"}
    assert status["geo_location"].keys() == geo
    cluster = status["ray_cluster"]
    assert {"head_address", "start_time", "mode", "cluster", "nodes"} <= cluster.keys()
    assert {"total_cpu", "used_cpu", "total_gpu", "used_gpu"} <= cluster["cluster"].keys()
    if target.stack:  # of another worker only in mode slurm
        pending = cluster["cluster"]["pending_resources"]
        assert pending.keys() == {"actors", "jobs", "tasks", "total"} and pending["total"] >= 0
    assert all(node.keys() >= NODE for node in cluster["nodes"].values()) and cluster["nodes"]


async def test_the_admin_is_one_and_there_are_no_datasets(target: Target) -> None:
    assert await target.worker.check_access() is True
    assert isinstance(await target.worker.list_datasets(), dict)


async def test_the_status_of_an_app_has_the_known_shape(app: AnApp) -> None:
    status = await app.status(logs_tail=-1, n_previous_replica=1)
    assert status.keys() >= APP_STATUS
    assert (status["status"], status["artifact_id"], status["version"]) == ("RUNNING", app.artifact_id, "1.0.0")
    assert (status["gpu_enabled"], status["max_ongoing_requests"], status["auto_redeploy"]) == (True, 7, True)
    assert (status["display_name"], status["available_methods"]) == ("Contract", ["look"])
    assert status["application_kwargs"] == {"ContractApp": {"greeting": "good day"}}
    assert status["application_env_vars"] == {"*": {"HIDDEN": "*****", "HYPHA_TOKEN": "*****", "PLAIN": "everywhere"}}
    assert status["authorized_users"] == {"*": ["ann@lab.example"]}
    assert status["application_resources"].keys() == {"num_cpus", "num_gpus", "memory"}
    assert status["application_resources"]["num_cpus"] == 0
    assert (status["recovered_app"], status["static_site_url"]) == (False, None)
    assert status["start_time"] <= status["last_updated_at"] <= time.time() + 60
    (ids,) = status["service_ids"]
    assert ids["websocket_service_id"].startswith(f"{app.target.workspace}/")
    assert ids["websocket_service_id"].endswith(f":{app.alias}")
    deployment = status["deployments"]["ContractApp"]
    assert deployment["status"] == "HEALTHY" and deployment["replica_states"] == {"RUNNING": 1}
    (lines,) = deployment["logs"].values()
    assert "greeting is good day" in "\n".join(lines["stdout"] + lines["stderr"])


async def test_an_app_is_reached_by_webrtc_under_the_id_its_status_tells(app: AnApp) -> None:
    async def offered() -> str | None:
        return (await app.status())["service_ids"][0]["webrtc_service_id"]

    assert (await eventually(offered, 30)).endswith(f":{app.alias}-rtc")


async def test_status_is_keyed_by_id_for_any_number_of_ids(app: AnApp) -> None:
    worker = app.target.worker
    none_of_it = await worker.get_app_status(application_ids=["nobody"])
    assert none_of_it["nobody"].keys() == {"status", "message"} and none_of_it["nobody"]["status"] == "NOT_RUNNING"
    both = await worker.get_application_status([app.alias, "nobody"], 1, 0)
    assert {app_id: one["status"] for app_id, one in both.items()} == {app.alias: "RUNNING", "nobody": "NOT_RUNNING"}
    assert app.alias in await worker.get_app_status()
    for wrong in ([], "demo"):
        with pytest.raises(Exception, match=r"ValueError: application_ids: "):
            await worker.get_app_status(application_ids=wrong)


async def test_what_can_be_deployed_is_listed_whole(app: AnApp) -> None:
    listed = await app.target.worker.list_apps()
    record = listed[app.artifact_id]["manifest"]
    assert (record["id"], record["parent_id"]) == (app.artifact_id, f"{app.target.workspace}/applications")
    assert (record["type"], record["manifest"]["name"]) == ("application", "Contract")
    assert record["manifest"]["created_by"]
    assert set(listed[app.artifact_id]["files"]) == {"manifest.yaml", "contract_app.py", "notes.txt"}
    one = await app.target.worker.get_app_manifest(app.alias)
    assert (one["id"], one["manifest"]["version"]) == (app.artifact_id, "1.0.0")
    with pytest.raises(Exception, match="does not exist"):
        await app.target.worker.get_application_manifest("no-such-app")


async def test_6_1_4_an_identical_call_changes_nothing(app: AnApp) -> None:
    before, seen = await app.status(), await app.look()
    assert await app.target.worker.run_application(app.artifact_id, None, app.alias) == app.alias
    assert await app.target.worker.deploy_app(app.alias, application_id=app.alias, hypha_token="t0ken") == app.alias
    after = await app.status()
    assert (after["last_updated_at"], after["status"]) == (before["last_updated_at"], "RUNNING")
    assert (await app.look())["pid"] == seen["pid"]


async def test_6_1_1_and_6_1_2_and_6_1_3_an_update_deploys_the_newest_and_keeps_everything_else(app: AnApp) -> None:
    assert await app.look("PLAIN", "HIDDEN", "HYPHA_TOKEN") == {
        **{"version": "1.0.0", "greeting": "good day", "pid": (first := await app.look())["pid"]},
        **{"PLAIN": "everywhere", "HIDDEN": "s3cret", "HYPHA_TOKEN": "t0ken"},
    }
    before = await app.status()
    await app.upload("1.1.0")
    await app.deploy("1.1.0")
    seen = await app.look("PLAIN", "HIDDEN", "HYPHA_TOKEN")
    assert {**seen, "version": "1.0.0", "pid": first["pid"]} == {
        **first,
        **{"PLAIN": "everywhere", "HIDDEN": "s3cret", "HYPHA_TOKEN": "t0ken"},
    }
    after = await app.status()
    changed = {"version", "last_updated_at", "deployments", "message"}
    assert {key: before[key] for key in APP_STATUS - changed} == {key: after[key] for key in APP_STATUS - changed}
    assert after["version"] == "1.1.0" and after["last_updated_at"] > before["last_updated_at"]
    assert after["last_updated_by"]


async def test_6_1_5_a_file_that_was_removed_is_gone_from_the_new_version_only(app: AnApp) -> None:
    manager = await app.target.manager()
    names = [
        {item["name"] for item in await manager.list_files(app.artifact_id, version=version)}
        for version in ("1.0.0", "1.1.0")
    ]
    assert names == [{"manifest.yaml", "contract_app.py", "notes.txt"}, {"manifest.yaml", "contract_app.py"}]


async def test_a_folder_sent_again_under_the_same_version_is_what_is_deployed_and_spoils_no_version(app: AnApp) -> None:
    record = await app.target.worker.get_app_manifest(app.artifact_id)
    await app.upload(record["manifest"]["version"])
    assert (await app.target.worker.get_app_manifest(app.artifact_id))["versions"] == record["versions"]
    await app.upload("1.1.0", says="1.1.0 mended")
    await app.deploy("1.1.0 mended")
    assert (await app.status())["version"] == "1.1.0-2"
    await app.deploy("1.1.0", version="1.1.0")
    with pytest.raises(Exception, match=r"1\.0\.0 exists, and 1\.1\.0-2 came after it"):
        await app.upload("1.0.0")
    with pytest.raises(Exception, match=r"has no version 9; there are 1\.0\.0, 1\.1\.0, 1\.1\.0-2"):
        await app.target.worker.deploy_app(app.artifact_id, "9", app.alias)


async def test_6_1_6_what_an_upload_that_was_cut_off_has_staged_is_in_no_version(app: AnApp) -> None:
    manager = await app.target.manager()
    await manager.edit(app.artifact_id, version="new", stage=True)
    await manager.write_file(app.artifact_id, "leftover.txt", content="half of it")
    await app.upload("1.2.0")
    assert {item["name"] for item in await manager.list_files(app.artifact_id, version="1.2.0")} == {
        *("manifest.yaml", "contract_app.py")
    }


async def test_6_1_7_an_artifact_elsewhere_is_taken_in_with_all_its_versions(target: Target) -> None:
    alias = f"contract-{os.urandom(4).hex()}"
    manager = await target.manager()
    async with removed_afterwards(target, artifacts=(f"{target.workspace}/{alias}",)):
        await manager.create(
            alias=alias, workspace=target.workspace, type="application", manifest={"name": "x"}, version="0.9"
        )
        before = (await target.worker.get_app_manifest(alias))["versions"]
        await target.worker.upload_app(files=files(alias, "1.0.0"))
        after = await target.worker.get_app_manifest(alias)
        assert [one["version"] for one in after["versions"]] == [*(one["version"] for one in before), "1.0.0"]
        assert after["parent_id"] == f"{target.workspace}/applications"


async def test_what_is_wrong_with_an_upload_is_said_all_at_once_and_nothing_is_stored(target: Target) -> None:
    alias = f"contract-{os.urandom(4).hex()}"
    items = files(alias, "1.0.0")
    bad = [
        {**items[0], "content": items[0]["content"].replace("ray-serve", "x").replace("name: ", "nom: ")},
        *items[1:],
    ]
    bad.append({"name": "../x", "content": "", "type": "text"})
    with pytest.raises(Exception, match=r"\.\./x.*; .*name: Field required; .*type: ") as caught:
        await target.worker.save_application(files=bad)
    assert "BadApp" in str(caught.value)
    with pytest.raises(Exception, match="does not exist"):
        await target.worker.get_app_manifest(alias)


async def test_several_apps_of_one_artifact_with_ids_of_their_own(app: AnApp) -> None:
    worker = app.target.worker
    ids = await asyncio.gather(*(worker.deploy_app(app.artifact_id, "1.0.0") for _ in range(2)))
    async with removed_afterwards(app.target, *ids, artifacts=()):
        assert len({*ids, app.alias}) == 3
        status = await worker.get_app_status(application_ids=ids)
        assert [one["artifact_id"] for one in status.values()] == [app.artifact_id] * 2
        assert status[ids[0]]["authorized_users"] == {"*": []}  # open to who deployed it, and the admins
        assert await worker.stop_app(ids[0]) is None

        async def gone() -> bool:
            return (await worker.get_app_status(application_ids=[ids[0]]))[ids[0]]["status"] == "NOT_RUNNING"

        await eventually(gone, 60)
        with pytest.raises(Exception, match=f"{ids[0]} is not currently deployed"):
            await worker.stop_application(ids[0])


@pytest.mark.parametrize(
    "app_id", ["../x", "a/b", "x:y", "", "X", "bioengine-worker", "demo-rtc", "bioengine-gateway-1"]
)
async def test_6_2_8_an_id_that_would_be_taken_for_something_else_is_refused(app: AnApp, app_id: str) -> None:
    with pytest.raises(Exception, match=r"application_id: |give the app another id"):
        await app.target.worker.deploy_app(artifact_id=app.artifact_id, application_id=app_id)


async def test_what_is_not_of_the_workspace_or_no_app_is_not_deleted(target: Target) -> None:
    for artifact, reason in {
        "somewhere-else/demo": "ValueError: artifact_id: somewhere-else/demo is not in",
        "no-such-app": "does not exist",
        "applications": "is no app|and no app",
    }.items():
        with pytest.raises(Exception, match=reason):
            await target.worker.delete_app(artifact)


async def test_an_app_that_is_deleted_is_listed_no_more(target: Target) -> None:
    alias = f"contract-{os.urandom(4).hex()}"
    artifact = await target.worker.upload_app(files=files(alias, "1.0.0"))
    assert artifact in await target.worker.list_applications()
    assert await target.worker.delete_application(alias) is None
    assert artifact not in await target.worker.list_apps()


async def test_a_development_version_that_nothing_runs_can_be_deleted_and_leaves_the_others_whole(app: AnApp) -> None:
    worker, manager = app.target.worker, await app.target.manager()
    before = await worker.get_app_manifest(app.alias)
    newest = before["versions"][-1]["version"]

    async def names(version: str | None = None) -> set[str]:
        return {item["name"] for item in await manager.list_files(app.artifact_id, version=version)}

    files_before = await names(newest)
    await app.upload("9.0.0.dev1", notes="draft")
    with pytest.raises(Exception, match=f"Refused: .*{newest} is (kept for ever|what .* runs)"):
        await worker.delete_app_version(app.alias, newest)
    with pytest.raises(Exception, match=r"UnknownApp: .*has no version 8\.0\.dev1; there are "):
        await worker.delete_app_version(artifact_id=app.alias, version="8.0.dev1")
    other = await worker.deploy_app(app.artifact_id)
    async with removed_afterwards(app.target, other, artifacts=()):
        with pytest.raises(Exception, match=rf"Refused: .*9\.0\.0\.dev1 is what {other} runs"):
            await worker.delete_app_version(app.artifact_id, "9.0.0.dev1")
        await worker.stop_app(other)

        async def deleted() -> bool:
            """Refused until the app is gone."""
            return await worker.delete_app_version(app.artifact_id, "9.0.0.dev1") is None

        await eventually(deleted, 60)
    after = await worker.get_app_manifest(app.alias)
    assert (after["versions"], after["manifest"]) == (before["versions"], before["manifest"])
    assert await names(newest) == await names() == files_before
    await app.upload("9.0.0.dev1")
    assert await names() == {"manifest.yaml", "contract_app.py"}
    await worker.delete_app_version(app.artifact_id, "9.0.0.dev1")


async def test_code_runs_on_the_cluster_and_answers(target: Target) -> None:
    lines: list[str] = []
    code = "def analyze(a, b):\n    print('adding')\n    return a + b"
    answer: dict[str, Any] = await target.worker.run_code(
        code=code, args=[1], kwargs={"b": 2}, remote_options={"num_cpus": 0}, write_stdout=lines.append
    )
    assert (answer["result"], answer["stdout"].strip()) == (3, "adding")
    with pytest.raises(Exception, match="ValueError"):
        await target.worker.execute_python_code()


async def test_folders_and_logs_are_there_for_admins(app: AnApp) -> None:
    folders = {one["name"]: one for one in await app.target.worker.list_app_directories()}
    assert folders[app.alias]["is_running"] is True and folders[app.alias].keys() >= {"path", "size_bytes"}
    with pytest.raises(Exception, match=app.alias):
        await app.target.worker.clear_app_directory(application_id=app.alias)
    if app.target.stack:
        assert len(await app.target.worker.get_logs(tail=3)) == 3
