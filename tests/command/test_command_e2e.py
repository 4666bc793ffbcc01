"""The real command against a real worker: from a folder to a running app, its update, its lines and its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.runtime.stack import Stack, a_stack, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

COMMAND = Path(sys.executable).parent / "bioengine"
SECRET = "xK9-canary-value-77"

MANIFEST = """id: shell
name: Shell
id_emoji: "🐚"
description: Called from a shell.
type: ray-serve
version: {version}
authorized_users: ["*"]
deployments: ["shell:Shell"]
"""

CODE = '''import logging
import os

import numpy
from hypha_rpc.utils.schema import schema_method
from pydantic import Field
from ray import serve

logger = logging.getLogger("ray.serve")


@serve.deployment(ray_actor_options={{"num_cpus": 0}})
class Shell:
    async def test_deployment(self) -> None:
        if {broken}:
            raise RuntimeError("this version cannot start")

    @schema_method
    async def settings(self, names: list = Field(..., description="Which variables.")) -> list:
        """The version that answers, and variables of the app's environment."""
        return ["{version}", *(os.environ.get(name) for name in names)]

    @schema_method
    async def ramp(self, to: int) -> dict:
        """Numbers up to one."""
        logger.info("ramp to %d", to)
        return {{"values": numpy.arange(to)}}

    @schema_method
    async def fail(self) -> None:
        """Raises."""
        raise ValueError("no such image: x.tif")
'''


@dataclass(frozen=True, slots=True)
class Ended:
    """One run of the command."""

    code: int
    out: str
    err: str


class Shell:
    """Somebody at a shell whose environment names the worker and holds a token."""

    def __init__(self, stack: Stack, token: str) -> None:
        self.environment = {
            **os.environ,
            "BIOENGINE_SERVER_URL": stack.url,
            "BIOENGINE_WORKER_SERVICE_ID": f"{stack.workspace}/bioengine-worker",
            "HYPHA_TOKEN": token,
            "COLUMNS": "200",
        }

    async def start(self, *words: str, stdout: int = asyncio.subprocess.PIPE) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            COMMAND,
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
            # A shell in the background hands down an ignored SIGINT; somebody at a terminal does not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    async def run(self, *words: str) -> Ended:
        process = await self.start(*words)
        try:
            out, err = await asyncio.wait_for(process.communicate(), 120)
        except BaseException:
            process.kill()
            raise
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    async def does(self, *words: str) -> Ended:
        ended = await self.run(*words)
        assert ended.code == 0, f"{words}: {ended}"
        return ended


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack() -> AsyncIterator[Stack]:
    async with a_stack() as running:
        yield running


@pytest.fixture
def shell(stack: Stack) -> Shell:
    return Shell(stack, stack.home.secrets.admin_token.read_text())


def write(folder: Path, version: str, *, broken: bool = False) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.yaml").write_text(MANIFEST.format(version=version))
    (folder / "shell.py").write_text(CODE.format(version=version, broken=broken))
    return str(folder)


async def test_the_life_of_an_app_from_a_shell(stack: Stack, shell: Shell, tmp_path: Path) -> None:
    folder, app = tmp_path / "app", f"{stack.workspace}/shell"

    uploaded = await shell.does("apps", "upload", write(folder, "1.0.0"))
    assert uploaded.out == f"Application created successfully!\nArtifact ID: {app}\n"
    shell.environment["PASS"] = SECRET
    begun = await shell.does("apps", "run", "shell", "--app-id", "shell", "--env", "A=1", "--env", "_PASS", "--wait")
    assert f"shell is up: {stack.workspace}/" in begun.out
    assert f"Next:  bioengine call {app} --list-methods" in begun.err

    status = await shell.does("apps", "status")
    assert "● RUNNING" in status.out and "1.0.0" in status.out and "1 of 1" in status.out
    assert SECRET not in (await shell.does("apps", "status", "shell", "--json")).out

    methods = (await shell.does("call", app, "--list-methods")).out
    assert "settings(names: list)" in methods and "names: Which variables." in methods
    settings = ("call", app, "settings", "--arg", 'names=["A", "PASS"]')
    assert json.loads((await shell.does(*settings)).out) == ["1.0.0", "1", SECRET]
    assert json.loads((await shell.does("call", app, "ramp", "--arg", "to=100", "--json")).out)["values"][99] == 99
    failed = await shell.run("call", app, "fail")
    assert failed.code == 1 and failed.err.startswith("Error: ValueError: no such image: x.tif\n")

    updated = await shell.does("apps", "deploy", write(folder, "2.0.0"), "--app-id", "shell", "--wait")
    assert "shell runs 1.0.0; this updates it." in updated.err
    kept = json.loads((await shell.does(*settings)).out)
    assert kept == ["2.0.0", "1", SECRET], "an update keeps what it does not name"


async def test_lines_are_followed_until_ctrl_c(stack: Stack, shell: Shell) -> None:
    process = await shell.start("apps", "logs", "shell", "--follow", "--tail", "5")
    assert process.stdout is not None
    try:
        for number in (41, 42):
            await shell.does("call", f"{stack.workspace}/shell", "ramp", "--arg", f"to={number}")
            async with asyncio.timeout(60):
                while f"ramp to {number}" not in (line := (await process.stdout.readline()).decode()):
                    assert line, "it ended"
            assert line.startswith("Shell#")
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
    assert "ramp to 42" in (await shell.does("apps", "logs", "shell", "-n", "50")).out


async def test_a_version_that_does_not_come_up_is_told_and_the_old_one_serves(
    stack: Stack, shell: Shell, tmp_path: Path
) -> None:
    broken = write(tmp_path / "app", "3.0.0", broken=True)
    ended = await shell.run("apps", "deploy", broken, "--app-id", "shell", "--wait", "--timeout", "90")
    assert ended.code == 1 and "this version cannot start" in ended.err, ended
    answer = await shell.does("call", f"{stack.workspace}/shell", "settings", "--args", '{"names": []}')
    assert json.loads(answer.out) == ["2.0.0"]


async def test_a_stranger_is_refused_and_told_what_to_do(stack: Stack, tmp_path: Path) -> None:
    tries = (["upload", write(tmp_path / "app", "9.0.0")], ["run", "shell"], ["stop", "shell", "-y"])
    # One stranger each: Hypha makes a new user's workspace at the first connection, and two at once trip over it.
    strangers = [Shell(stack, stack.token(f"mallory-{words[0]}")).run("apps", *words) for words in tries]
    for ended in await asyncio.gather(*strangers):
        assert ended.code == 1 and "may not call" in ended.err and "Hint:  Use a token of somebody who may" in ended.err
        assert "Traceback" not in ended.err
    wrong = await Shell(stack, "not-a-token").run("cluster", "status")
    assert wrong.code == 1 and "The token was refused" in wrong.err and "not-a-token" not in wrong.err


async def test_the_cluster_and_the_end_of_an_app(stack: Stack, shell: Shell) -> None:
    cluster = await shell.does("cluster", "status")
    assert "(head)" in cluster.out and f"Workspace: {stack.workspace}" in cluster.out

    reading, writing = os.pipe()
    os.close(reading)
    unread = await shell.start("cluster", "status", "--json", stdout=writing)
    os.close(writing)
    _, complaints = await asyncio.wait_for(unread.communicate(), 60)
    assert complaints == b"", "a reader that went away is no fault"

    stopped = await shell.does("apps", "stop", "shell", "--yes", "--wait")
    assert stopped.out == "shell is stopped.\n"
    assert "NOT_RUNNING" in (await shell.does("apps", "status", "shell")).out

    async def gone() -> bool:
        ended = await shell.run("call", f"{stack.workspace}/shell", "ramp", "--arg", "to=1")
        return ended.code == 1 and f"There is no service {stack.workspace}/shell" in ended.err

    await eventually(gone, 30)


async def test_the_uploaded_folders_are_listed(shell: Shell) -> None:
    assert "shell" in (await shell.does("apps", "list")).out
