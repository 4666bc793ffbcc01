"""The folders of apps: listed over all disks, and cleared only when nobody lives in them. How their nodes are asked."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from bioengine_runtime.apps.errors import PrepareFailed, Refused
from bioengine_runtime.apps.prepare import Builders, Places, prepare
from bioengine_runtime.on_node import NodeFailed, alive_nodes, on_node
from bioengine_runtime.worker import app_disks
from bioengine_runtime.worker.folders import AppFolders
from tests.runtime.apps_world import Artifacts, a_ray, a_spec
from tests.runtime.stack import eventually

APPS_DIR = "/worker/apps"


class FakeNodes:
    """Each node has its own folder under the same path, or shares that of another."""

    def __init__(self, disks: dict[str, Path]) -> None:
        self.disks = disks
        self.silent: set[str] = set()
        self.after: Callable[[str, Callable[..., Any]], None] = lambda _node, _work: None

    async def alive(self) -> list[str]:
        return list(self.disks)

    async def run(self, node: str, work: Callable[..., Any], *given: Any, within_s: float) -> Any:
        assert given[0] == APPS_DIR and within_s > 0
        if node in self.silent:
            raise RuntimeError(f"node {node} did not answer")
        answer = work(str(self.disks[node]), *given[1:])
        self.after(node, work)
        return answer


class World:
    """Two nodes that share a disk, and one with a disk of its own."""

    def __init__(self, folder: Path) -> None:
        self.shared, self.own = folder / "shared", folder / "own"
        for disk in (self.shared, self.own):
            disk.mkdir()
        self.nodes = FakeNodes({"a": self.shared, "b": self.shared, "c": self.own})
        self.running: set[str] = set()
        self.folders = AppFolders(APPS_DIR, self._running, self.nodes)

    async def _running(self) -> Collection[str]:
        return self.running

    def write(self, disk: Path, name: str, size: int) -> Path:
        file = disk / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * size)
        return file


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def visible(disk: Path) -> list[str]:
    return sorted(path.name for path in disk.iterdir() if path.name != app_disks.MARK)


async def test_a_folder_is_counted_once_per_disk_and_not_once_per_node(world: World) -> None:
    world.write(world.shared, "cells/data/deep.bin", 100)
    world.write(world.own, "cells/data.bin", 20)
    (world.own / "empty").mkdir()
    world.running = {"cells"}
    assert await world.folders.list() == [
        {"name": "cells", "path": f"{APPS_DIR}/cells", "is_running": True, "size_bytes": 120},
        {"name": "empty", "path": f"{APPS_DIR}/empty", "is_running": False, "size_bytes": 0},
    ]


async def test_what_is_hidden_or_no_folder_is_no_app(world: World) -> None:
    world.write(world.shared, ".cache/code/x", 5)
    world.write(world.shared, "note.txt", 5)
    (world.shared / "link").symlink_to(world.own)
    assert await world.folders.list() == []


async def test_sizes_follow_no_link_and_count_a_file_of_two_names_once(world: World) -> None:
    file = world.write(world.shared, "cells/one", 10)
    (world.shared / "cells" / "two").hardlink_to(file)
    huge = world.write(world.own, "huge", 10_000)
    (world.shared / "cells" / "link").symlink_to(huge)
    (world.shared / "cells" / "self").symlink_to(world.shared)
    (only,) = await world.folders.list()
    assert only["size_bytes"] == 10 + len(str(huge)) + len(str(world.shared))  # a link is as long as what it says


async def test_a_worker_that_has_no_apps_yet_has_no_folders(world: World) -> None:
    world.nodes.disks = {"a": world.shared / "not-there"}
    assert await world.folders.list() == []
    assert not (world.shared / "not-there").exists()


async def test_a_silent_node_is_said_and_not_left_out(world: World) -> None:
    world.nodes.silent = {"c"}
    with pytest.raises(RuntimeError, match="node c did not answer"):
        await world.folders.list()


async def test_clearing_reaches_every_disk_and_nothing_else(world: World) -> None:
    outside = world.write(world.own, "other/kept", 1)
    world.write(world.shared, "cells/a", 1)
    world.write(world.own, "cells/b", 1)
    (world.own / "cells" / "link").symlink_to(outside.parent)
    await world.folders.clear("cells")
    assert (visible(world.shared), visible(world.own)) == ([], ["other"])
    assert outside.exists()


@pytest.mark.parametrize("app_id", ["../cells", "a/b", ".", "..", "", ".cache", "a\\b", "a\0", "/etc"])
async def test_an_id_that_leads_elsewhere_is_a_value_error(world: World, app_id: str) -> None:
    world.write(world.shared, ".cache/x", 1)
    with pytest.raises(ValueError, match="application_id"):
        await world.folders.clear(app_id)
    assert visible(world.shared) == [".cache"]


async def test_what_is_missing_a_file_or_a_link_is_a_value_error(world: World) -> None:
    target = world.write(world.own, "elsewhere/kept", 1)
    world.write(world.shared, "file", 1)
    (world.shared / "link").symlink_to(target.parent)
    for app_id, why in (("missing", "none on any node"), ("file", "no folder but a file"), ("link", "but a link")):
        with pytest.raises(ValueError, match=why):
            await world.folders.clear(app_id)
    assert target.exists() and visible(world.shared) == ["file", "link"]


async def test_a_folder_that_became_a_link_meanwhile_leads_nowhere(world: World) -> None:
    target = world.write(world.own, "elsewhere/kept", 1)
    world.write(world.shared, "cells/a", 1)

    def swap(_node: str, work: Callable[..., Any]) -> None:
        if work is app_disks.kind_here and not (world.shared / "cells").is_symlink():
            (world.shared / "cells").rename(world.shared / "aside")
            (world.shared / "cells").symlink_to(target.parent)

    world.nodes.after = swap
    with pytest.raises(RuntimeError, match="not all of it is deleted"):
        await world.folders.clear("cells")
    assert target.exists()


async def test_the_folder_of_a_running_app_stays(world: World) -> None:
    file = world.write(world.shared, "cells/a", 1)
    world.running = {"cells"}
    done: list[Any] = []
    world.nodes.after = lambda _node, work: done.append(work)
    with pytest.raises(Refused, match="cells runs"):
        await world.folders.clear("cells")
    assert file.exists() and app_disks.move_away_here not in done  # it was not even out of sight for a moment


@pytest.mark.parametrize("made_anew", ["not", "empty", "in use"])
async def test_an_app_started_while_its_folder_is_cleared_keeps_it(world: World, made_anew: str) -> None:
    """`made_anew`: the replica was quick enough to find its folder gone and to make it again."""
    files = [world.write(world.shared, "cells/a", 1), world.write(world.own, "cells/b", 1)]

    def start(node: str, work: Callable[..., Any]) -> None:
        if work is app_disks.move_away_here:
            world.running = {"cells"}
            if node == "c" and made_anew == "empty":
                (world.own / "cells").mkdir()
            if node == "c" and made_anew == "in use":
                files[1] = world.write(world.own, "cells/new", 1)

    world.nodes.after = start
    with pytest.raises(Refused, match="cells runs"):
        await world.folders.clear("cells")
    assert all(file.exists() for file in files)
    assert visible(world.shared) == ["cells"] and "cells" in visible(world.own)


async def test_a_node_that_fails_half_way_leaves_every_folder_as_it_was(world: World) -> None:
    files = [world.write(world.shared, "cells/a", 1), world.write(world.own, "cells/b", 1)]

    def fail(node: str, work: Callable[..., Any]) -> None:
        if node == "c" and work is app_disks.move_away_here:
            raise RuntimeError("node c did not answer")

    world.nodes.after = fail
    with pytest.raises(RuntimeError, match="node c"):
        await world.folders.clear("cells")
    assert all(file.exists() for file in files)


async def test_what_an_interrupted_clearing_has_left_goes_with_a_later_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write(world.shared, f"{app_disks.AWAY}old-1/a", 1)
    world.write(world.shared, "cells/a", 1)
    await world.folders.clear("cells")
    assert visible(world.shared) == [f"{app_disks.AWAY}old-1"]  # it may be another's, who has just begun
    world.write(world.shared, "cells/a", 1)
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + app_disks.STALE_S + 1)
    await world.folders.clear("cells")
    assert visible(world.shared) == []


@pytest.fixture(scope="module")
def ray_home() -> Iterator[Path]:
    with a_ray() as home:
        yield home


@pytest.mark.e2e
async def test_folders_on_a_real_ray_whose_cpus_are_all_taken(ray_home: Path) -> None:
    async def nothing_runs() -> Collection[str]:
        return ()

    apps = ray_home / "apps"
    (apps / "cells").mkdir(parents=True)
    (apps / "cells" / "model").write_bytes(b"x" * 100)
    begun, release = ray_home / "begun", ray_home / "release"

    def hold() -> None:
        begun.touch()
        while not release.exists():
            time.sleep(0.05)

    holding = ray.remote(num_cpus=4)(hold).remote()
    await eventually(lambda: asyncio.to_thread(begun.exists))
    folders = AppFolders(str(apps), nothing_runs)
    (only,) = await folders.list()
    assert (only["name"], only["size_bytes"]) == ("cells", 100)
    await folders.clear("cells")
    assert await folders.list() == []
    with pytest.raises(ValueError, match="none on any node"):
        await folders.clear("cells")
    release.touch()
    await asyncio.wait_for(asyncio.wrap_future(holding.future()), 30)


@pytest.mark.e2e
async def test_what_nobody_waits_for_any_more_is_ended_on_its_node(ray_home: Path) -> None:
    begun = ray_home / "pid"

    def hang() -> None:
        begun.with_suffix(".part").write_text(str(os.getpid()))
        begun.with_suffix(".part").rename(begun)
        time.sleep(600)

    waiting = asyncio.create_task(on_node(None, hang, within_s=None))
    await eventually(lambda: asyncio.to_thread(begun.exists))
    waiting.cancel()
    pid = int(begun.read_text())
    await eventually(lambda: asyncio.to_thread(lambda: not psutil.pid_exists(pid)), 20)
    with pytest.raises(NodeFailed, match="a node did not answer: TimeoutError"):
        await on_node(None, hang, within_s=0.01)


@pytest.mark.e2e
async def test_an_app_that_cannot_be_prepared_for_want_of_a_disk_says_what_its_node_said(ray_home: Path) -> None:
    """The task fails, and the node is as well as ever."""
    artifacts = Artifacts()
    artifacts.add("plain", "1")
    artifact = await artifacts.fetch("ws/plain", "1")
    (ray_home / "full").touch()
    places = Places(code=f"{ray_home}/full/code", layers=f"{ray_home}/layers")
    (node,) = await alive_nodes()
    said = f"node {node['NodeID'][:8]}: NotADirectoryError: .*Not a directory"
    with pytest.raises(PrepareFailed, match=said) as caught:
        await prepare(a_spec(), artifact, {}, places, Builders())
    assert "Traceback" not in str(caught.value)


async def test_a_question_to_the_cluster_does_not_hold_up_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_in: list[threading.Thread] = []

    def nodes() -> list[dict[str, Any]]:
        asked_in.append(threading.current_thread())
        return [{"NodeID": "a", "Alive": True}, {"NodeID": "b", "Alive": False}]

    monkeypatch.setattr(ray, "nodes", nodes)
    assert [node["NodeID"] for node in await alive_nodes()] == ["a"]
    assert asked_in != [threading.current_thread()]
