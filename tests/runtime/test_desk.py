"""What people ask for and are told, on fakes of everything behind the desk."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from bioengine_runtime.apps.errors import Refused, UnknownApp
from bioengine_runtime.apps.record import AppRecord, DeploymentState, Replica, Running
from bioengine_runtime.apps.rollout import check
from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.manifest import AppManifest
from bioengine_runtime.contract.status import AppState, NodeState, Prepared, Provenance
from bioengine_runtime.rpc.access import Caller
from bioengine_runtime.rpc.desk import Desk
from bioengine_runtime.rpc.door import Invalid
from bioengine_runtime.rpc.operations import Operations, WorkerFacts
from bioengine_runtime.worker.pending import Pending, Waiting

ADMIN = Caller("admin", "admin@lab.example")
ANN = Caller("ann", "ann@lab.example")
BOB = Caller("bob", "bob@lab.example")
STARTED_AT = 1000.0
MANIFEST = AppManifest(id="demo", name="Demo", id_emoji="D", description="", type="ray-serve", deployments=["a:A"])


class FakeApps:
    """What runs, by id; takes time to go when told so."""

    def __init__(self) -> None:
        self.here: dict[str, Running] = {}
        self.forgotten: list[str] = []
        self.given: list[tuple[AppSpec, Provenance]] = []
        self.now = STARTED_AT + 1
        self.stay = False
        self.looks = 0
        self.meanwhile: list[Callable[[], Awaitable[object]]] = []
        """What others do between a look and what is asked for then."""

    async def prepare(self, spec: AppSpec, wait_s: float) -> Prepared:
        raise NotImplementedError

    async def apply(
        self,
        spec: AppSpec,
        secrets: Any,  # noqa: ARG002
        fingerprints: Mapping[str, str],
        provenance: Provenance,
        expected: str | None,
    ) -> bool:
        if self.meanwhile:
            await self.meanwhile.pop()()
        before = self.here.get(spec.app_id)
        if before and before.record and before.record.runs(spec.digest(), fingerprints):
            return False
        check(spec.app_id, before, owner=provenance.owner, expected=expected, worker="")
        self.given.append((spec, provenance))
        self.here[spec.app_id] = a_running(spec, provenance, dict(fingerprints), self.now)
        return True

    async def remove(self, app_id: str, *, owner: str, expected: str | None) -> None:  # noqa: ARG002
        if not self.stay:
            del self.here[app_id]

    async def states(self, running: Mapping[str, Running]) -> list[AppState]:
        return [a_state(one) for one in running.values()]

    async def running(self) -> Mapping[str, Running]:
        self.looks += 1
        return dict(self.here)

    def forget(self, artifact_id: str) -> None:
        self.forgotten.append(artifact_id)

    async def logs(self, apps: Collection[Running], tail: int, previous: int) -> dict[str, dict[str, Any]]:
        if any(app.app_id == "silent" for app in apps):
            raise ConnectionError("node 10.0.0.7 is gone")
        lines = {"replica-1": {"stdout": [f"{tail} {previous}"], "stderr": []}}
        return {app.app_id: {"A": lines} for app in apps}


class FakeStore:
    """Versions by artifact."""

    def __init__(self) -> None:
        self.versions = {"w/demo": ["1", "2"], "v/other": ["7"]}
        self.uploads: list[tuple[Any, ...]] = []
        self.manifest_now = MANIFEST

    def manifest_says(self, users: list[str]) -> None:
        self.manifest_now = MANIFEST.model_copy(update={"authorized_users": users})

    async def manifest(self, artifact_id: str, version: str) -> AppManifest:  # noqa: ARG002
        return self.manifest_now

    async def version(self, artifact_id: str, wanted: str | None) -> str:
        return wanted or self.versions[artifact_id][-1]

    async def record(self, artifact_id: str) -> dict[str, Any]:
        return {"id": artifact_id}

    async def all(self) -> dict[str, dict[str, Any]]:
        return {}

    async def delete(self, artifact_id: str) -> None:
        del self.versions[artifact_id]

    async def delete_version(self, artifact_id: str, version: str) -> None:
        self.versions[artifact_id].remove(version)

    async def upload(self, items: Sequence[Mapping[str, Any]], created_by: str) -> str:
        self.uploads.append((len(items), created_by))
        return "w/demo"

    async def upload_as(self, caller: Caller, items: Sequence[Mapping[str, Any]], *, workspace: str, token: str) -> str:
        self.uploads.append((len(items), caller.user_id, workspace, token))
        return f"{workspace}/demo"


def a_running(spec: AppSpec, provenance: Provenance, prints: dict[str, str], now: float) -> Running:
    record = AppRecord(
        spec=spec,
        digest=spec.digest(),
        code_digest=spec.code_digest(),
        provenance=provenance,
        secret_fingerprints=prints,
        name="Demo",
        entry="A",
        frontend_entry="index.html",
        started_at=now,
        last_updated_at=now,
        blueprint="b",
        resources={"num_cpus": 1, "num_gpus": 0.0, "memory": 5.0},
    )
    replica = Replica("A", "replica-1", "RUNNING", 1, "node", now, "w")
    deployment = DeploymentState("A", "HEALTHY", "said on 10.0.0.7", 1, (replica,))
    return Running(spec.app_id, "RUNNING", "", record, (deployment,), now)


def a_state(running: Running) -> AppState:
    record = running.record
    assert record is not None
    return AppState(
        app_id=running.app_id,
        status=running.status,
        message="said on 10.0.0.7",
        spec=record.spec,
        digest=record.digest,
        secret_fingerprints=record.secret_fingerprints,
        provenance=record.provenance,
        started_at=record.started_at,
        last_updated_at=record.last_updated_at,
    )


class World:
    def __init__(self) -> None:
        self.apps = FakeApps()
        self.store = FakeStore()
        self.facts: dict[str, Any] = {}
        self.offered: dict[str, str] = {}
        self.trouble: Exception | None = None
        self.waiting = Pending()
        self.asked_nodes = 0
        operations = Operations(apps=self.apps, facts=self._facts, nodes=self._nodes, service_ids=self._offered)
        self.desk = Desk(
            operations=operations,
            logs=self.apps.logs,
            store=self.store,
            facts=self._facts,
            nodes=self._nodes,
            pending=lambda: self.waiting,
            admins=lambda: ["admin@lab.example"],
            key=b"k" * 32,
        )

    async def status(self, app_id: str = "demo", caller: Caller = ADMIN) -> dict[str, Any]:
        return (await self.desk.app_status(caller, [app_id], 5, 1))[app_id]

    async def deploy(self, caller: Caller = ADMIN, **wish: Any) -> str:
        return await self.desk.deploy(caller, {"artifact_id": "demo", "application_id": "demo", **wish})

    def _facts(self) -> WorkerFacts:
        known = ("w/me:bioengine-worker", "w", "me", "single-machine", "http://h", "10.0.0.1:6379", STARTED_AT)
        return WorkerFacts(*known, **self.facts)

    def _nodes(self) -> list[NodeState]:
        self.asked_nodes += 1
        if self.trouble:
            raise self.trouble
        return [NodeState(node_id="n", address="10.0.0.7", head=True, total={"CPU": 2}, free={"CPU": 0.5})]

    async def _offered(self) -> dict[str, str]:
        return self.offered


@pytest.fixture
def world() -> World:
    return World()


async def test_6_1_3_an_update_without_version_deploys_the_newest(world: World) -> None:
    await world.deploy(version="1")
    await world.deploy(max_ongoing_requests=3)
    assert [spec.version for spec, _ in world.apps.given] == ["1", "2"]
    await world.deploy(artifact_id="v/other")
    assert (await world.status())["artifact_id"] == "v/other"


async def test_6_1_4_an_identical_call_changes_nothing_and_says_so(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await world.deploy(application_env_vars={"*": {"_KEY": "s3cret"}}, hypha_token="t0ken")
    before = await world.status()
    world.apps.now += 60
    assert await world.deploy(application_env_vars={"*": {"_KEY": "s3cret"}}, hypha_token="t0ken") == "demo"
    assert await world.status() == before
    assert "event=deployed app=demo" in caplog.text and "event=unchanged app=demo" in caplog.text
    assert "s3cret" not in caplog.text and "t0ken" not in caplog.text


async def test_without_an_id_every_call_makes_an_app_of_its_own(world: World) -> None:
    ids = {await world.desk.deploy(ADMIN, {"artifact_id": "demo"}) for _ in range(3)}
    assert len(ids) == 3 == len(world.apps.here)


async def test_an_update_by_hand_of_what_git_deployed_still_says_its_commit(world: World) -> None:
    await world.deploy()
    spec, _ = world.apps.given[0]
    from_git = Provenance(owner="lab", source="https://git.example/lab/apps", commit="c0ffee", tree="7ee")
    world.apps.here["demo"] = a_running(spec, from_git, {}, world.apps.now)
    await world.deploy(ADMIN, debug=True)
    assert world.apps.given[-1][1] == from_git.model_copy(update={"by": ADMIN.name()})


async def test_an_update_by_hand_says_who_and_leaves_the_owner(world: World) -> None:
    await world.deploy(ANN)
    first = world.apps.given[0][1]
    await world.deploy(ADMIN, debug=True)
    second = world.apps.given[1][1]
    assert (first.owner, first.by, second.owner, second.by) == ("user:ann", ANN.email, "user:ann", ADMIN.email)
    assert (await world.status())["last_updated_by"] == ADMIN.email


async def test_6_2_4_an_app_that_names_nobody_is_open_to_its_deployer_and_admins_only(world: World) -> None:
    await world.deploy(ANN)
    assert world.apps.given[0][0].authorized_users == []
    world.store.manifest_says(["bob"])
    await world.deploy(ANN, application_id="other")
    assert world.apps.given[1][0].authorized_users == ["bob"]


async def test_who_may_call_is_what_the_new_manifest_says_unless_it_was_said_otherwise(world: World) -> None:
    def users() -> Any:
        return world.apps.given[-1][0].authorized_users

    world.store.manifest_says(["*"])
    await world.deploy(version="1")
    world.store.manifest_says(["alice"])
    await world.deploy(debug=True)
    assert users() == ["alice"], "tightened in the manifest, which is the only place for it in a command"
    await world.deploy(authorized_users=["bob"])
    world.store.manifest_says(["*"])
    await world.deploy(debug=False)
    assert users() == ["bob"], "said at a deploy, so it is kept as everything that is left out"
    spec, _ = world.apps.given[-1]
    from_git = Provenance(owner="lab", source="https://git.example/lab/apps", commit="c0ffee")
    world.apps.here["demo"] = a_running(spec, from_git, {}, world.apps.now)
    await world.deploy(debug=True)
    assert users() == ["bob"], "what git says of an app that it deployed is not for a manifest to change"


async def test_two_who_update_one_app_at_once_both_get_what_they_asked_for(world: World) -> None:
    await world.deploy()
    secret = {"application_env_vars": {"*": {"_KEY": "s3cret"}}}
    world.apps.meanwhile = [lambda: world.deploy(ANN, application_kwargs={"A": {"size": 3}})]
    await world.deploy(ADMIN, **secret)
    spec, _ = world.apps.given[-1]
    assert (spec.kwargs, spec.secrets) == ({"A": {"size": 3}}, {"*": ["KEY"]})


async def test_two_who_make_one_app_at_once_make_one(world: World) -> None:
    world.apps.meanwhile = [lambda: world.deploy(ANN, debug=True)]
    await world.deploy(ANN, max_ongoing_requests=3)
    spec, provenance = world.apps.given[-1]
    assert (spec.debug, spec.max_ongoing_requests, provenance.owner) == (True, 3, "user:ann")


async def test_an_app_that_is_about_to_be_gone_leaves_nothing_to_the_next_of_its_name(world: World) -> None:
    await world.deploy(application_env_vars={"*": {"_KEY": "s3cret"}}, debug=True)
    world.apps.here["demo"] = replace(world.apps.here["demo"], status="DELETING")
    await world.deploy(BOB)
    spec, provenance = world.apps.given[-1]
    assert (spec.secrets, spec.debug, provenance.owner) == ({}, False, "user:bob")


async def test_strangers_cost_one_look_at_the_cluster_however_often_they_ask(world: World) -> None:
    await world.deploy(ANN)
    before = world.apps.looks
    for _ in range(5):
        await world.status(caller=BOB)
        await world.desk.status(BOB)
    assert (world.apps.looks - before, world.asked_nodes) == (1, 1)
    await world.status()
    await world.desk.status(ADMIN)
    assert (world.apps.looks - before, world.asked_nodes) == (2, 2), "an admin sees what is so now, in one look"


async def test_an_id_that_somebody_else_is_found_by_is_refused(world: World) -> None:
    for app_id in ("bioengine-worker", "demo-rtc", "bioengine-gateway-0123abcd", "built-in", "default"):
        with pytest.raises(Refused, match=f"{app_id} (is|ends).*give the app another id"):
            await world.deploy(application_id=app_id)


async def test_where_an_upload_goes(world: World) -> None:
    assert await world.desk.upload(ADMIN, [], None, None) == "w/demo"
    assert await world.desk.upload(ADMIN, [], "w", None) == "w/demo"
    assert await world.desk.upload(BOB, [], "ws-bob", "t0ken") == "ws-bob/demo"
    assert world.store.uploads == [(0, "admin"), (0, "admin"), (0, "bob", "ws-bob", "t0ken")]
    with pytest.raises(Invalid, match="hypha_token: needed for the workspace v"):
        await world.desk.upload(ADMIN, [], "v", None)
    with pytest.raises(Invalid, match="workspace: say into which one"):
        await world.desk.upload(ADMIN, [], None, "t0ken")


async def test_a_version_that_an_app_runs_or_may_go_back_to_is_not_deleted(world: World) -> None:
    await world.deploy(version="1")
    before = world.apps.here["demo"].record
    await world.deploy(version="2", application_id="theirs")
    now = world.apps.here["theirs"]
    assert now.record
    theirs = now.record.model_copy(update={"previous": before, "worker": "w/another:worker"})
    world.apps.here = {"theirs": replace(now, record=theirs), "foreign": replace(now, record=None)}
    for version in ("1", "2"):
        with pytest.raises(Refused, match=f"w/demo {version} is what theirs runs, or may go back to; stop it first"):
            await world.desk.delete_version(ADMIN, "demo", version)
    world.apps.here.clear()
    await world.desk.delete_version(ADMIN, "demo", "2")
    assert world.store.versions["w/demo"] == ["1"]
    await world.desk.delete(ADMIN, "demo")
    assert world.apps.forgotten == ["w/demo", "w/demo"], "what was built from it is not what its name means next"


async def test_stopping_an_app_that_does_not_run_is_a_clear_error(world: World) -> None:
    with pytest.raises(UnknownApp, match=r"^demo is not currently deployed$"):
        await world.desk.stop(ADMIN, "demo")
    await world.deploy(ANN)
    await world.desk.stop(ADMIN, "demo")
    assert (await world.status())["status"] == "NOT_RUNNING"


async def test_stopping_all_waits_until_they_are_gone_and_names_those_that_stay(world: World) -> None:
    for app_id in ("one", "two"):
        await world.deploy(application_id=app_id)
    world.apps.stay = True
    with pytest.raises(TimeoutError, match="one, two: told to stop, and not gone within 0 s"):
        await world.desk.stop_all(ADMIN, 0)
    world.apps.stay = False
    await world.desk.stop_all(ADMIN, 0)
    assert world.apps.here == {}


async def test_status_tells_where_an_app_is_reached_and_what_it_takes(world: World) -> None:
    await world.deploy(auto_redeploy=True)
    assert (await world.status())["service_ids"] == [{"websocket_service_id": None, "webrtc_service_id": None}]
    world.offered = {"demo": "w/g:demo", "demo-rtc": "w/g:demo-rtc"}
    status = await world.status()
    assert status["service_ids"] == [{"websocket_service_id": "w/g:demo", "webrtc_service_id": "w/g:demo-rtc"}]
    assert status["static_site_url"] == (
        "http://h/w/view/demo/?server=http%3A%2F%2Fh&ws_service_id=w%2Fg%3Ademo&webrtc_service_id=w%2Fg%3Ademo-rtc"
    )
    assert status["application_resources"] == {"num_cpus": 1, "num_gpus": 0.0, "memory": 5.0}
    assert (status["auto_redeploy"], status["recovered_app"]) == (True, False)
    assert status["deployments"]["A"]["logs"] == {"replica-1": {"stdout": ["5 1"], "stderr": []}}


async def test_an_app_that_ran_before_this_worker_was_recovered(world: World) -> None:
    world.apps.now = STARTED_AT - 1
    await world.deploy()
    assert (await world.status())["recovered_app"] is True


async def test_logs_that_cannot_be_read_do_not_keep_the_status(world: World) -> None:
    await world.deploy(application_id="silent")
    status = await world.status("silent")
    assert status["deployments"]["A"]["logs"] == {"error": "the logs could not be read: ConnectionError"}
    assert status["status"] == "RUNNING"


@pytest.mark.parametrize(
    ("users", "insiders"),
    [
        (["*"], {ADMIN, ANN}),
        ([], {ADMIN, ANN}),
        (["bob@lab.example"], {ADMIN, ANN, BOB}),
        ({"*": ["bob"], "train": []}, {ADMIN, ANN, BOB}),
        ({"train": ["bob"]}, {ADMIN, ANN}),
    ],
)
async def test_6_2_3_strangers_see_that_an_app_runs_and_no_more(
    world: World, users: Any, insiders: set[Caller]
) -> None:
    variables = {"*": {"PLAIN": "plain-value", "_KEY": "s3cret"}}
    kwargs = {"A": {"path": "/somewhere"}}
    await world.deploy(ANN, authorized_users=users, application_env_vars=variables, application_kwargs=kwargs)
    private = ("plain-value", "/somewhere", "@lab.example", "10.0.0.7", "stdout", "ann")
    for caller in (ADMIN, ANN, BOB, Caller("bob", None, anonymous=True), Caller(None, None, anonymous=True)):
        shown = str(await world.status(caller=caller))
        seen = [word for word in private if word in shown]
        assert bool(seen) == (caller in insiders), (caller, seen)
        assert "s3cret" not in shown and "RUNNING" in shown


async def test_the_worker_answers_while_ray_is_away(world: World) -> None:
    assert (await world.desk.status(BOB))["is_ready"] is True
    for facts, trouble in (({"ray_reachable": False}, None), ({}, ConnectionError("no GCS"))):
        world.facts, world.trouble = facts, trouble
        status = await world.desk.status(ADMIN)
        assert (status["is_ready"], status["ray_cluster"]["nodes"]) == (False, {})
        assert status["ray_cluster"]["cluster"]["total_cpu"] == 0


async def test_the_worker_tells_admins_more_than_others(world: World) -> None:
    world.facts = {"token_expires_at": 5.0, "ray_started_at": 7.0, "geo": {"region": "X", "surprise": 1}}
    world.facts["startup_failures"] = {"cells": "no such artifact"}
    admin, bob = await world.desk.status(ADMIN), await world.desk.status(BOB)
    assert (admin["token_expires_at"], bob["token_expires_at"]) == (5.0, None)
    assert (admin["startup_failures"], bob["startup_failures"]) == ({"cells": "no such artifact"}, {})
    assert (admin["admin_users"], bob["admin_users"]) == (["admin@lab.example"], [])
    assert "10.0.0" in str(admin) and "10.0.0" not in str(bob)
    for status in (admin, bob):
        assert status["ray_cluster"]["start_time"] == 7.0
        assert (status["geo_location"]["region"], status["geo_location"]["country_name"]) == ("X", None)
        assert "surprise" not in status["geo_location"]


async def test_what_waits_for_resources_is_told_and_its_names_to_admins_only(world: World) -> None:
    replicas = Waiting({"GPU": 1.0}, 2, ("ServeReplica:demo:A",))
    world.waiting = Pending(actors=(replicas,), tasks=(Waiting({"CPU": 4.0}, 3),))
    admin, bob = [(await world.desk.status(one))["ray_cluster"]["cluster"] for one in (ADMIN, BOB)]
    two, three = {"required_resources": {"GPU": 1.0}, "count": 2}, {"required_resources": {"CPU": 4.0}, "count": 3}
    names = {"names": ["ServeReplica:demo:A"]}
    assert bob["pending_resources"] == {"actors": [two], "jobs": [], "tasks": [three], "total": 5}
    assert admin["pending_resources"]["actors"] == [{**two, **names}]
