"""A worker from its start to its end: when it may take apps along, and what it says while it has no Ray."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bioengine_runtime.worker.ray_link import Head, HeadWatch, RayAway
from bioengine_runtime.worker.serving import serve_until_told
from bioengine_runtime.worker.waiting import until_there

INSTEAD_OF_SERVING = """
import asyncio, runpy

def show(coroutine):
    coroutine.close()
    from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
    print(get_auth_headers_if_auth_enabled({}))

asyncio.run = show
runpy.run_module("bioengine_runtime.worker", run_name="__main__")
"""


class AWorker:
    """Starts when it is let, or fails; remembers how it was stopped."""

    def __init__(self, *, fails: bool = False) -> None:
        self.may_start, self.started = asyncio.Event(), asyncio.Event()
        self.stopped: list[bool] = []
        self._fails = fails

    async def start(self) -> None:
        await self.may_start.wait()
        if self._fails:
            raise TimeoutError("Hypha is slow")
        self.started.set()

    async def stop(self, *, told: bool) -> None:
        self.stopped.append(told)


async def test_told_to_stop_a_worker_takes_its_apps_along() -> None:
    worker, stopping = AWorker(), asyncio.Event()
    serving = asyncio.create_task(serve_until_told(worker, stopping, lambda: None))
    worker.may_start.set()
    await worker.started.wait()
    assert worker.stopped == []
    stopping.set()
    await serving
    assert worker.stopped == [True]


async def test_a_worker_that_cannot_start_stops_no_app() -> None:
    worker = AWorker(fails=True)
    worker.may_start.set()
    with pytest.raises(TimeoutError, match="Hypha is slow"):
        await serve_until_told(worker, asyncio.Event(), lambda: None)
    assert worker.stopped == [False]


async def test_a_worker_that_is_told_to_stop_before_it_is_ready_stops_no_app() -> None:
    worker, stopping = AWorker(), asyncio.Event()
    stopping.set()
    await serve_until_told(worker, stopping, lambda: None)
    assert worker.stopped == [False]


def test_ray_shows_the_token_of_the_file_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "ray.token").write_text(token := "sesame" * 8)
    options = ["--server-url", "http://127.0.0.1:1", "--workspace", "lab", "--client-id", "worker", "--ray-address"]
    options += ["127.0.0.1:2", "--home", str(tmp_path), "--ray-auth-token-file", "ray.token"]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INSTEAD_OF_SERVING, *options],
        cwd=tmp_path,
        env={**environment, "HYPHA_TOKEN": "t", "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert token in ended.stdout


async def test_a_worker_that_cannot_say_that_it_waits_for_ray_ends() -> None:
    async def say() -> None:
        raise PermissionError("seal.key is readable by others")

    async def look() -> RayAway:
        return RayAway("127.0.0.1:1", "UNAVAILABLE")

    saying = asyncio.create_task(say())
    await asyncio.wait({saying})
    with pytest.raises(PermissionError, match="readable by others"):
        await asyncio.wait_for(until_there(look, saying, asyncio.Event()), 5)


@pytest.mark.parametrize("stops", [False, True])
def test_a_head_that_is_lost_while_the_worker_is_told_to_stop_does_not_start_it_anew(stops: bool) -> None:
    looking, go_on, lost = threading.Event(), threading.Event(), list[str]()

    def find(_address: str) -> Head:
        looking.set()
        go_on.wait(5)
        return Head("another", None)

    watch = HeadWatch("127.0.0.1:1", Head("known", None), lost.append, find=find, every_s=0.01)
    watch.start()
    assert looking.wait(5)
    if stops:
        watch.stop()
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "ray-head-watch":
            thread.join(5)
    assert lost == ([] if stops else ["another head is there"])
