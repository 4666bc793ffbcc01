"""What the tests of the apps share: app folders as artifacts, specs that run them, and waiting."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray
import stamina
import yaml
from ray import serve
from ray._private import auto_init_hook

from bioengine_runtime.apps.supervisor import ArtifactFiles, Supervisor, WorkerEnvironment
from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.manifest import AppManifest
from bioengine_runtime.contract.status import AppState, Provenance
from bioengine_runtime.sealing import ensure_key

FIXTURES = Path(__file__).parent / "apps_fixtures"
OWNER = "test-cluster"


@contextmanager
def a_ray() -> Iterator[Path]:
    """A Ray of our own, and the folder of the worker on it; nothing is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="be-", dir="/tmp"))
    # A task that outlives its test must not start a Ray of its own, in which the next test would find itself.
    auto_init_hook.enable_auto_connect = False
    try:
        # Ray gives a node 30 seconds to register and has no setting for it; on a busy machine that can be too short.
        for attempt in stamina.retry_context(on=Exception, attempts=3, timeout=None):
            with attempt:
                _start_ray(folder / "ray")
        yield folder
    finally:
        if ray.is_initialized():
            serve.shutdown()
            ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _start_ray(temp: Path) -> None:
    """One attempt. When it fails, its processes are ended and the error carries what they have said."""
    before = set(psutil.Process().children())
    try:
        ray.init(
            num_cpus=4,
            include_dashboard=False,
            _temp_dir=str(temp),
            _node_ip_address="127.0.0.1",
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except Exception as error:
        begun = set(psutil.Process().children()) - before
        for child in begun:
            child.kill()
        psutil.wait_procs(begun, timeout=10)
        for log in sorted(temp.glob("session_latest/logs/*")):
            if log.is_file() and (lines := log.read_text(errors="replace").splitlines()[-20:]):
                error.add_note("\n".join([f"--- {log.name}", *lines]))
        shutil.rmtree(temp, ignore_errors=True)
        raise


def an_environment(home: Path) -> WorkerEnvironment:
    """What the apps of a worker at `home` are given."""
    key_file = home / "seal.key"
    ensure_key(key_file)
    return WorkerEnvironment(
        apps_dir=str(home / "apps"),
        seal_key_file=str(key_file),
        server_url="http://127.0.0.1:9520",
        workspace="ws",
        worker_service_id="ws/worker:bioengine-worker",
    )


class Artifacts:
    """Remembers app folders by version; a fake of the artifact store."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, str], ArtifactFiles] = {}
        self.fetched = 0

    def add(self, folder: str, version: str, **changes: str) -> None:
        """One version of a fixture, with files replaced: helper="VERSION = 2" replaces helper.py."""
        root = FIXTURES / folder
        found = [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        files = {path.relative_to(root).as_posix(): path.read_bytes() for path in found}
        files |= {f"{name}.py": text.encode() for name, text in changes.items()}
        manifest = AppManifest.model_validate(yaml.safe_load(files["manifest.yaml"]))
        self.versions["ws/" + folder, version] = ArtifactFiles("ws/" + folder, version, manifest, files)

    async def fetch(self, artifact_id: str, version: str) -> ArtifactFiles:
        self.fetched += 1
        return self.versions[artifact_id, version]


def a_spec(app_id: str = "plain", folder: str = "plain", version: str = "1", **fields: Any) -> AppSpec:
    return AppSpec.model_validate(
        {"app_id": app_id, "artifact_id": f"ws/{folder}", "version": version, "authorized_users": ["*"], **fields}
    )


def a_provenance(**fields: Any) -> Provenance:
    return Provenance(**{"owner": OWNER, "source": "file:///repo", "commit": "c" * 40, **fields})


async def apply(supervisor: Supervisor, spec: AppSpec, **fields: Any) -> bool:
    given: dict[str, Any] = {"secrets": {}, "fingerprints": {}, "provenance": a_provenance(), "expected": None}
    return await supervisor.apply(spec, **{**given, **fields})


async def state_of(supervisor: Supervisor, app_id: str) -> AppState:
    return next(state for state in await supervisor.states() if state.app_id == app_id)


async def until(
    supervisor: Supervisor, app_id: str, wanted: Callable[[AppState], bool], timeout_s: float = 60.0
) -> AppState:
    deadline = time.monotonic() + timeout_s
    while True:
        state = await state_of(supervisor, app_id)
        if wanted(state):
            return state
        assert time.monotonic() < deadline, f"{app_id} never became what the test waits for: {state}"
        await asyncio.sleep(0.2)


def is_up(state: AppState) -> bool:
    return state.status == "RUNNING" and not state.updating


def runs(digest: str) -> Callable[[AppState], bool]:
    return lambda state: is_up(state) and state.digest == digest


async def call(app_id: str, method: str, *args: Any, **kwargs: Any) -> Any:
    handle = serve.get_app_handle(app_id)
    return await getattr(handle, method).remote(*args, **kwargs)


def pids(state: AppState) -> dict[str, int | None]:
    return {replica.deployment: replica.pid for replica in state.replicas if replica.state == "RUNNING"}
