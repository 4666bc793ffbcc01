"""App folders on their way to Hypha: what is refused, under which name they are kept, and what a failure leaves."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from bioengine_runtime.apps.errors import BadApp, Refused, UnknownApp
from bioengine_runtime.contract.limits import MAX_FILES
from bioengine_runtime.rpc.access import Caller
from bioengine_runtime.rpc.door import Invalid
from bioengine_runtime.stored import app_folder, artifacts, transfer
from bioengine_runtime.stored.app_folder import SentFolder, read_folder
from bioengine_runtime.stored.artifacts import HyphaArtifacts
from bioengine_runtime.stored.shelf import Shelf, comment, content_in, version_for
from tests.runtime.demo_app import demo_files


class FakeManager:
    """An artifact manager that keeps what it is told, as Hypha 0.21 does where it matters here."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.files: dict[tuple[str, int], dict[str, int]] = {}
        self.said: list[str] = []
        self.listing = 0
        self.most_at_once = 0
        self.lose: str | None = None

    async def read(
        self, artifact_id: str, *, silent: bool, stage: bool = False, version: str | None = None
    ) -> dict[str, Any]:
        assert silent
        if version is not None:
            return next(one for one in self.records[artifact_id]["versions"] if one["version"] == version)
        if artifact_id not in self.records:
            raise KeyError(f"Artifact with ID '{artifact_id}' does not exist.")
        record = self.records[artifact_id]
        return {**record, "staging": [{"_intent": record["staging"]}] if stage and record["staging"] else None}

    async def create(self, *, alias: str, workspace: str, type: str, stage: bool = False, **more: Any) -> None:
        self.said.append("create")
        staging, record_id = "new_version" if stage else None, f"{workspace}/{alias}"
        self.records[record_id] = {"id": record_id, "type": type, "versions": [], "staging": staging, **more}

    async def edit(
        self, artifact_id: str, *, manifest: Any, config: Any, version: str | None = None, stage: bool = False
    ) -> None:
        assert (version, stage) in (("new", True), (None, False))
        self.said.append("edit" if stage else "edit in place")
        self.records[artifact_id] |= {"manifest": manifest, "config": config}
        if stage:
            self.records[artifact_id]["staging"] = "new_version"

    async def set_parent(self, artifact_id: str, *, new_parent_id: str) -> None:
        self.records[artifact_id]["parent_id"] = new_parent_id

    async def put_file(self, artifact_id: str, *, file_path: list[str]) -> dict[str, str]:
        return {path: f"http://store/{artifact_id}/{path}" for path in file_path}

    async def list_files(self, artifact_id: str, **_: Any) -> list[dict[str, Any]]:
        self.listing += 1
        self.most_at_once = max(self.most_at_once, self.listing)
        await asyncio.sleep(0)
        self.listing -= 1
        staged = self.files.get((artifact_id, len(self.records[artifact_id]["versions"])), {})
        return [{"name": path, "type": "file", "size": size} for path, size in staged.items()]

    async def commit(self, artifact_id: str, *, version: str, comment: str) -> None:
        self.said.append(f"commit {version}")
        record = self.records[artifact_id]
        then = {"manifest": record["manifest"], "config": record["config"]}
        record["versions"].append({"version": version, "comment": comment, **then})
        record["staging"] = None

    async def discard(self, artifact_id: str) -> None:
        self.said.append("discard")
        self.records[artifact_id]["staging"] = None

    async def delete(self, artifact_id: str, *, delete_files: bool, version: str | None = None) -> None:
        assert delete_files
        self.said.append(f"delete {version or ''}".strip())
        if version is None:
            del self.records[artifact_id]
            return
        versions = self.records[artifact_id]["versions"]
        place = [one["version"] for one in versions].index(version)
        del versions[place]
        self.files.pop((artifact_id, place), None)

    async def list(self, parent_id: str, *, offset: int, limit: int, **_: Any) -> dict[str, Any]:
        if parent_id not in self.records:
            raise KeyError(f"Artifact with ID '{parent_id}' does not exist.")
        found = [one for one in self.records.values() if one.get("parent_id") == parent_id]
        return {"items": found[offset : offset + min(limit, 100)], "total": len(found)}


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> FakeManager:
    """Files that are put arrive in it; the one it is told to lose does not."""
    fake = FakeManager()

    def take(request: httpx.Request) -> httpx.Response:
        workspace, alias, path = request.url.path.lstrip("/").split("/", 2)
        if path == fake.lose:
            return httpx.Response(403, text="signed for somebody else")
        artifact_id = f"{workspace}/{alias}"
        version = len(fake.records[artifact_id]["versions"])
        fake.files.setdefault((artifact_id, version), {})[path] = len(request.content)
        return httpx.Response(200)

    client = httpx.AsyncClient
    monkeypatch.setattr(
        transfer.httpx, "AsyncClient", lambda **_: client(transport=httpx.MockTransport(take), base_url="http://store")
    )
    return fake


def a_folder(version: str = "1.0.0", **more: str) -> SentFolder:
    return read_folder([*demo_files(version), *({"name": name, "content": text} for name, text in more.items())])


def versions(manager: FakeManager) -> list[str]:
    return [one["version"] for one in manager.records["w/demo"]["versions"]]


async def test_a_new_app_is_made_in_its_collection_with_who_made_it(manager: FakeManager) -> None:
    assert await Shelf(manager, "w").store(a_folder(), "ann") == "w/demo"
    record = manager.records["w/demo"]
    assert (record["parent_id"], record["type"]) == ("w/applications", "application")
    assert (record["manifest"]["created_by"], record["staging"]) == ("ann", None)
    assert record["config"]["view_config"]["index"] == "index.html"
    assert manager.records["w/applications"]["config"] == {"permissions": {"*": "r"}}


async def test_the_same_folder_again_is_nothing_new_and_another_one_is_kept_beside_it(manager: FakeManager) -> None:
    shelf = Shelf(manager, "w")
    for folder in (a_folder(), a_folder(), a_folder(a="x"), a_folder(a="x"), a_folder(a="y"), a_folder("1.1.0")):
        await shelf.store(folder, "ann")
    assert versions(manager) == ["1.0.0", "1.0.0-2", "1.0.0-3", "1.1.0"]
    with pytest.raises(BadApp, match=r"1\.0\.0 exists, and 1\.1\.0 came after it; raise `version`"):
        await shelf.store(a_folder(), "ann")


async def test_6_1_6_an_upload_that_fails_takes_back_what_it_staged(manager: FakeManager) -> None:
    shelf, manager.lose = Shelf(manager, "w"), "demo.py"
    with pytest.raises(RuntimeError, match=r"^the artifact store failed: HTTP 403$"):
        await shelf.store(a_folder(), "ann")
    assert "w/demo" not in manager.records  # it had no version, so nothing of it stays
    manager.lose = None
    await shelf.store(a_folder(), "ann")
    manager.lose = "demo.py"
    with pytest.raises(RuntimeError, match="HTTP 403"):
        await shelf.store(a_folder("1.1.0"), "ann")
    assert (versions(manager), manager.records["w/demo"]["staging"]) == (["1.0.0"], None)


async def test_a_file_that_did_not_arrive_is_seen_before_anything_is_committed(manager: FakeManager) -> None:
    manager.files["w/demo", 0] = {"of-somebody-else.txt": 3}
    with pytest.raises(RuntimeError, match="did not arrive as it was sent"):
        await Shelf(manager, "w").store(a_folder(), "ann")
    assert not any(said.startswith("commit") for said in manager.said)


async def test_what_somebody_edits_in_place_is_left_alone(manager: FakeManager) -> None:
    shelf = Shelf(manager, "w")
    await shelf.store(a_folder(), "ann")
    manager.records["w/demo"]["staging"] = "edit_version"
    with pytest.raises(Refused, match="somebody edits the newest version of w/demo; commit or discard that first"):
        await shelf.store(a_folder("1.1.0"), "ann")
    assert (versions(manager), manager.records["w/demo"]["staging"]) == (["1.0.0"], "edit_version")


async def test_6_1_7_an_artifact_elsewhere_is_moved_with_its_versions_and_what_is_no_app_is_refused(
    manager: FakeManager,
) -> None:
    await manager.create(alias="demo", workspace="w", type="application", parent_id="w/other", config={"a": 1})
    manager.records["w/demo"]["versions"] = [{"version": "0.9"}]
    await Shelf(manager, "w").store(a_folder(), "ann")
    assert (versions(manager), manager.records["w/demo"]["parent_id"]) == (["0.9", "1.0.0"], "w/applications")
    assert manager.records["w/demo"]["config"]["a"] == 1
    manager.records["w/demo"]["type"] = "dataset"
    with pytest.raises(Refused, match="w/demo is a dataset and no app"):
        await Shelf(manager, "w").store(a_folder("1.1.0"), "ann")


async def test_6_1_7_more_apps_than_a_page_are_all_listed_and_few_asked_at_once(manager: FakeManager) -> None:
    shelf = Shelf(manager, "w")
    assert await shelf.all() == {}
    await manager.create(alias="applications", workspace="w", type="collection")
    for number in range(250):
        await manager.create(alias=f"app-{number}", workspace="w", type="application", parent_id="w/applications")
    found = await shelf.all()
    assert len(found) == 250 and found["w/app-7"]["manifest"]["id"] == "w/app-7"
    assert 1 < manager.most_at_once <= transfer.AT_ONCE


async def test_only_apps_of_the_own_workspace_are_deleted(manager: FakeManager) -> None:
    shelf = Shelf(manager, "w")
    await shelf.store(a_folder(), "ann")
    for artifact, kind in {"v/demo": Invalid, "w/nothing": UnknownApp, "w/applications": Refused}.items():
        with pytest.raises(kind):
            await shelf.delete(artifact)
    await shelf.delete("w/demo")
    assert "w/demo" not in manager.records


async def test_the_newest_development_version_can_be_deleted_and_the_app_is_as_it_was_before(
    manager: FakeManager,
) -> None:
    shelf = Shelf(manager, "w")
    await shelf.store(a_folder(), "ann")
    before = await shelf.record("w/demo")
    manager.records["w/demo"]["config"]["permissions"] = {"bob": "r"}  # said since, and not of one version
    await shelf.store(a_folder("1.1.0.dev1", a="x"), "bob")
    await shelf.delete_version("w/demo", "1.1.0.dev1")
    after = await shelf.record("w/demo")
    assert before and after and (after["versions"], after["manifest"]) == (before["versions"], before["manifest"])
    assert after["config"] == {**before["config"], "permissions": {"bob": "r"}}
    await shelf.store(a_folder("1.1.0.dev1", a="y"), "bob")
    assert versions(manager) == ["1.0.0", "1.1.0.dev1"]


async def test_other_versions_are_not_deleted_and_it_is_said_why(manager: FakeManager) -> None:
    shelf = Shelf(manager, "w")
    await shelf.store(a_folder("0.1.dev1"), "ann")
    with pytest.raises(Refused, match=r"w/demo has no version but 0\.1\.dev1; delete_app deletes the app"):
        await shelf.delete_version("w/demo", "0.1.dev1")
    for number in ("0.1.0", "0.2.dev1"):
        await shelf.store(a_folder(number), "ann")
    for artifact, version, kind, words in (
        ("v/demo", "1", Invalid, "v/demo is not in w"),
        ("w/nothing", "1", UnknownApp, "does not exist"),
        ("w/applications", "1", Refused, "no app"),
        ("w/demo", "7.dev1", UnknownApp, r"has no version 7\.dev1; there are 0\.1\.dev1, 0\.1\.0, 0\.2\.dev1"),
        ("w/demo", "0", UnknownApp, "has no version 0"),
        ("w/demo", "0.1.0", Refused, "is kept for ever; only development versions"),
        ("w/demo", "0.1.dev1", Refused, r"0\.2\.dev1 came after w/demo 0\.1\.dev1; only the newest"),
    ):
        with pytest.raises(kind, match=words):
            await shelf.delete_version(artifact, version)
    manager.records["w/demo"]["staging"] = "new_version"
    with pytest.raises(Refused, match="a new version of w/demo is being uploaded, or edited"):
        await shelf.delete_version("w/demo", "0.2.dev1")
    assert versions(manager) == ["0.1.dev1", "0.1.0", "0.2.dev1"]
    assert not any(said.startswith("delete") for said in manager.said)


@pytest.mark.parametrize(
    ("kept", "wanted", "name"),
    [
        ([], "1", "1"),
        (["0.9"], "1", "1"),
        (["1"], "1", "1-2"),
        (["1", "1-2"], "1", "1-3"),
        (["1", "1-3"], "1", "1-2"),
        (["1x0"], "1.0", "1.0"),
        (["1-g0123456789ab"], "1", "1"),
    ],
)
def test_a_version_gets_a_name_that_no_other_has(kept: list[str], wanted: str, name: str) -> None:
    assert version_for("w/demo", wanted, [{"version": one} for one in kept], "c" * 64) == name


def test_a_version_says_what_is_in_it() -> None:
    digest = a_folder().digest()
    assert content_in(comment(digest)) == digest != a_folder(a="x").digest()
    assert content_in(None) is content_in("bioengine/v1 tree=0 commit=1") is None


def test_everything_that_is_wrong_with_a_folder_is_said_at_once() -> None:
    manifest = demo_files("1.0.0")[0]["content"].replace("name: Demo", "").replace("ray-serve", "x")
    items: list[Mapping[str, Any]] = [
        {"name": "manifest.yaml", "content": manifest},
        {"name": "../up.py", "content": ""},
        {"name": "/abs.py", "content": ""},
        {"name": "a//b.py", "content": ""},
        {"name": "b.bin", "content": "not base64!", "type": "base64"},
        {"name": "c.py", "content": 3},
        {"name": "d.py", "content": ""},
        {"name": "d.py", "content": ""},
    ]
    with pytest.raises(BadApp) as caught:
        read_folder(items)
    for word in ("../up.py", "/abs.py", "a//b.py", "b.bin: content", "c.py: needs", "d.py", "name: Field", "type: "):
        assert word in str(caught.value)


def test_a_manifest_that_names_files_that_are_not_there_is_wrong() -> None:
    with pytest.raises(BadApp, match=r"there is no demo\.py; .*there is no frontend/index\.html"):
        read_folder(demo_files("1.0.0")[:1])


BOMB = "a: &a [1, 1]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (BOMB, "anchor &a; write the value out"),
        ("tag: !!set {x}", "tag tag:yaml.org,2002:set; remove it"),
        ("deep: " + "[" * 60 + "]" * 60, "nested deeper than 50 levels"),
        ("large: " + "x" * 2**20, "larger than 1024 KiB"),
        ("day: 2026-02-31", "not YAML: day is out of range"),
    ],
)
def test_6_2_7_a_manifest_that_would_cost_more_than_it_is_long_is_refused(more: str, said: str) -> None:
    manifest, *rest = demo_files("1.0.0")
    with pytest.raises(BadApp, match=f"manifest.yaml: .*{re.escape(said)}"):
        read_folder([{**manifest, "content": manifest["content"] + more}, *rest])


def test_6_2_7_what_is_too_large_is_not_even_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_folder, "MAX_FOLDER_BYTES", 100)
    read: list[object] = []
    monkeypatch.setattr(app_folder, "content_of", read.append)
    with pytest.raises(BadApp, match="larger than"):
        read_folder([{"name": "a", "content": "A" * 200, "type": "base64"}])
    with pytest.raises(BadApp, match="larger than"):
        read_folder([{"name": str(number), "content": ""} for number in range(MAX_FILES + 1)])
    assert read == []


async def test_6_2_7_few_strangers_upload_at_once_and_none_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def nobody_answers(config: dict[str, Any]) -> None:
        asked.append(config["workspace"])
        await asyncio.Event().wait()

    monkeypatch.setattr(artifacts, "connect_to_server", nobody_answers)
    session = SimpleNamespace(address=SimpleNamespace(server_url="http://h"))
    store = HyphaArtifacts(session)  # type: ignore[arg-type]

    async def upload(name: str, *, anonymous: bool = False) -> str:
        who = Caller(name, None, anonymous=anonymous)
        return await store.upload_as(who, demo_files("1.0.0"), workspace=f"ws-{name}", token="t0ken")

    with pytest.raises(PermissionError, match="hypha_token: it is not the caller's own"):
        await upload("nobody", anonymous=True)
    guests = [asyncio.create_task(upload(name)) for name in "abcd"]
    await asyncio.sleep(0.01)
    with pytest.raises(Refused, match="4 uploads into other workspaces are under way; try again"):
        await upload("e")
    guests[0].cancel()
    await asyncio.wait(guests[:1])
    guests.append(asyncio.create_task(upload("f")))
    await asyncio.sleep(0.01)
    assert asked == ["ws-a", "ws-b", "ws-c", "ws-d", "ws-f"]
    for guest in guests:
        guest.cancel()
    await asyncio.wait(guests)


def test_contents_may_come_as_text_bytes_or_base64_with_a_data_prefix() -> None:
    more = [
        {"name": "a", "content": "data:text/plain;base64,aGk=", "type": "base64"},
        {"name": "b", "content": "aGk=", "type": "base64"},
        {"name": "c", "content": b"hi"},
        {"name": "d", "content": "hi", "type": None},
    ]
    one, *rest = demo_files("1.0.0")
    files = read_folder([{**one, "name": "Manifest.yaml"}, *rest, *more]).files
    assert [files[name] for name in "abcd"] == [b"hi"] * 4 and "manifest.yaml" in files
