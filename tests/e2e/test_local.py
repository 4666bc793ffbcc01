"""The embedded default, for real: what it starts it stops, what it keeps it finds again, and it keeps its secrets."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest
from hypha_rpc import connect_to_server

from bioengine_runtime.local.embedded import Embedded, embedded
from bioengine_runtime.local.errors import HomeBusy, LocalError
from bioengine_runtime.local.home import Home, open_home
from bioengine_runtime.local.hypha_env import PYTHON_VARIABLE
from bioengine_runtime.local.leftovers import find_leftovers
from bioengine_runtime.local.process import kill_all
from bioengine_runtime.local.progress import StartEvent
from bioengine_runtime.local.state import ProcessRecord, read_state
from bioengine_runtime.local.workspace import WORKSPACE

pytestmark = pytest.mark.e2e

# What the command line does: start on the home given, say so, wait to be stopped.
STARTER = """
import asyncio, signal, sys
from pathlib import Path
from bioengine_runtime.local.embedded import embedded

async def main():
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asyncio.current_task().cancel)
    async with embedded(Path(sys.argv[1]), progress=lambda event: None, with_worker=False):
        print("ready", flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "home"
    yield path
    await kill_all(left_on(path))


@pytest.fixture(scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Embedded]:
    """One that runs, for the tests that only look."""
    async with embedded(tmp_path_factory.mktemp("local") / "home", progress=quiet, with_worker=False) as running:
        yield running


def left_on(path: Path) -> list[ProcessRecord]:
    if not (path / "id").exists():
        return []
    place = Home(path.resolve())
    return find_leftovers(place, read_state(place.state_file))


def is_there(path: Path) -> bool:
    return path.exists()


def quiet(event: StartEvent) -> None:
    del event


async def test_a_second_start_finds_workspace_token_and_artifact_bytes_again(home: Path) -> None:
    async with embedded(home, progress=quiet, with_worker=False) as first:
        token = first.token_file.read_text()
        await publish(first, b"the bytes")
    assert left_on(home) == []

    async with embedded(home, progress=quiet, with_worker=False) as second:
        assert second.server_url == first.server_url
        assert second.ray_address == first.ray_address
        assert second.token_file.read_text() == token
        assert await read_back(second) == b"the bytes"
    assert left_on(home) == []


async def test_a_driver_with_the_token_gets_in_and_one_without_does_not(here: Embedded) -> None:
    code, said = await drive(here, dict(here.ray_environment))
    assert code == 0, said
    without_token = {name: text for name, text in here.ray_environment.items() if not name.startswith("RAY_AUTH")}
    code, said = await drive(here, {**without_token, "RAY_gcs_server_port_wait_time_s": "2"})  # else it asks for 20 s
    assert code != 0 and "AuthenticationError" in said


async def test_everything_listens_on_loopback_only(here: Embedded) -> None:
    listening = [
        connection.laddr.ip
        for process in started_on(here.home)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


async def test_a_second_holder_is_told_who_has_the_home(here: Embedded) -> None:
    with pytest.raises(HomeBusy) as refusal:
        async with embedded(here.home, progress=quiet, with_worker=False):
            pass
    assert refusal.value.pid == os.getpid()
    assert refusal.value.since is not None
    assert str(here.home) in str(refusal.value)


async def test_secrets_are_private_and_in_no_list_of_processes(here: Embedded) -> None:
    files = [here.seal_key_file, *(here.home / "secrets").iterdir()]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    secrets = [file.read_text() for file in files]

    arguments = "\n".join(" ".join(process.cmdline()) for process in started_on(here.home))
    assert not [secret for secret in secrets if secret in arguments]

    # Ray's processes run other people's code: they know where Ray's token lies, and nothing else.
    ray = next(record.pid for record in read_state(here.home / "state.json").processes if record.what == "ray")
    family = [psutil.Process(ray), *psutil.Process(ray).children(recursive=True)]
    environments = "\n".join(str(process.environ()) for process in family)
    assert here.ray_auth_token_file.name in environments
    assert not [secret for secret in secrets if secret in environments]


async def test_another_users_token_names_that_user(here: Embedded) -> None:
    token = here.mint_token(user_id="guest", email="guest@lab.example", grants={WORKSPACE: "r"})
    async with connect_to_server({**client_config(here), "token": token}) as server:
        assert server.config.user["email"] == "guest@lab.example"
        assert server.config.workspace == WORKSPACE


async def test_what_a_killed_start_left_is_stopped_by_the_next_one(home: Path) -> None:
    starter = await started(home)
    starter.kill()
    await starter.wait()
    left = started_on(home)
    assert {"rclone", "raylet", "gcs_server"} <= {process.name() for process in left}

    async with embedded(home, progress=quiet, with_worker=False):
        assert not [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert left_on(home) == []


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
async def test_nothing_is_left_when_the_starter_is_asked_to_end(home: Path, which: signal.Signals) -> None:
    starter = await started(home)
    starter.send_signal(which)
    await asyncio.wait_for(starter.wait(), 60)
    assert left_on(home) == []


async def test_the_body_is_cancelled_when_hypha_dies(home: Path) -> None:
    with pytest.raises(LocalError, match="hypha ended by itself"):
        async with embedded(home, progress=quiet, with_worker=False):
            records = read_state(home / "state.json").processes
            os.kill(next(record.pid for record in records if record.what == "hypha"), signal.SIGKILL)
            await asyncio.sleep(60)
    assert left_on(home) == []


async def test_a_long_path_is_no_obstacle_for_rays_sockets(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 20) / "home"
    async with embedded(home, progress=quiet, with_worker=False) as here:
        ray_temp = Path(str(read_state(home / "state.json").ray_temp))
        assert ray_temp.is_relative_to("/tmp")
        code, said = await drive(here, dict(here.ray_environment))
        assert code == 0, said
    assert not is_there(ray_temp.parent)


async def test_a_missing_hypha_environment_says_how_to_make_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, str(home / "nowhere"))
    with pytest.raises(LocalError, match="make setup"):
        async with embedded(home, progress=quiet):
            pass
    assert not is_there(home)


def test_a_copied_home_has_a_marker_of_its_own(tmp_path: Path) -> None:
    original = open_home(tmp_path / "a")
    copy = open_home(tmp_path / "b")
    (copy.path / "id").write_text((original.path / "id").read_text())
    assert copy.marker != original.marker


async def started(home: Path) -> asyncio.subprocess.Process:
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTER, str(home), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert starter.stdout is not None
    assert await asyncio.wait_for(starter.stdout.readline(), 120) == b"ready\n"
    return starter


def started_on(home: Path) -> list[psutil.Process]:
    place = Home(home.resolve())
    roots = [psutil.Process(record.pid) for record in find_leftovers(place, read_state(place.state_file))]
    family = {process.pid: process for root in roots for process in [root, *root.children(recursive=True)]}
    return list(family.values())


async def drive(here: Embedded, environment: dict[str, str]) -> tuple[int, str]:
    """The exit code of a driver that runs one task on Ray, and what it said."""
    program = (
        f"import ray; ray.init({here.ray_address!r}, log_to_driver=False); ray.get(ray.remote(lambda: 1).remote())"
    )
    passed = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    driver = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        env={**passed, **environment, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(driver.communicate(), 90)
    finally:
        if driver.returncode is None:
            driver.kill()
    assert driver.returncode is not None
    return driver.returncode, said.decode()


async def publish(here: Embedded, content: bytes) -> None:
    async with connect_to_server(client_config(here)) as server:
        artifacts = await server.get_service("public/artifact-manager")
        artifact = await artifacts.create(alias="kept", type="application", manifest={"name": "kept"}, stage=True)
        async with httpx.AsyncClient(trust_env=False) as http:
            for path in ("manifest.yaml", "folder/file.bin"):
                link = await artifacts.put_file(artifact.id, file_path=path)
                answer = await http.put(link, content=content, headers={"Content-Type": "text/yaml"})
                answer.raise_for_status()
        await artifacts.commit(artifact.id, version="1.0.0")


async def read_back(here: Embedded) -> bytes:
    async with connect_to_server(client_config(here)) as server:
        artifacts = await server.get_service("public/artifact-manager")
        link = await artifacts.get_file(f"{WORKSPACE}/kept", file_path="folder/file.bin", version="1.0.0")
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(link)).content


def client_config(here: Embedded) -> dict[str, str]:
    return {"server_url": here.server_url, "workspace": here.workspace, "token": here.token_file.read_text()}
