"""A Hypha server with services that remember, obey and can be told to fail; handed to the command instead of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypha_rpc.rpc import RemoteException
from hypha_rpc.utils import ObjectProxy
from typer.testing import CliRunner

from bioengine_runtime.command import app
from bioengine_runtime.command.connect import OLDER_NAMES, Address

WORKER = "lab/bioengine-worker"


class FakeServer:
    """`calls` are the calls that arrived; `addresses` the connections, `open` those that were not closed."""

    def __init__(self) -> None:
        self.services: dict[str, Any] = {}
        self.addresses: list[Address] = []
        self.open = 0
        self.down: Exception | None = None

    def connect(self, address: Address) -> Connection:
        return Connection(self, address)

    async def get_service(self, service_id: str) -> Any:
        found = self.services.get(service_id)
        if found is None:
            raise remote("KeyError", f"'Service not found: {service_id}'")
        if isinstance(found, Exception):
            raise found
        return ObjectProxy(found)


class Connection:
    """Closed only by leaving it: as no generator, it is not closed by the event loop's end."""

    def __init__(self, server: FakeServer, address: Address) -> None:
        self.server = server
        self.address = address

    async def __aenter__(self) -> FakeServer:
        if self.server.down:
            raise self.server.down
        self.server.addresses.append(self.address)
        self.server.open += 1
        return self.server

    async def __aexit__(self, *_: object) -> None:
        self.server.open -= 1


class FakeWorker:
    """A worker's methods: apps start, come up after some looks, and stop."""

    def __init__(self, *, looks_until_up: int = 0) -> None:
        self.apps: dict[str, dict[str, Any]] = {}
        self.artifacts: dict[str, Any] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.fails: dict[str, Exception] = {}
        self.looks_until_up = looks_until_up
        self.next_looks: list[Callable[[], None]] = []

    def service(self, *, older: bool = False) -> dict[str, Any]:
        methods = {name: self._remembering(name) for name in (*OLDER_NAMES, "get_status")}
        return {OLDER_NAMES.get(name, name) if older else name: method for name, method in methods.items()}

    def calls_of(self, method: str) -> list[dict[str, Any]]:
        return [arguments for name, arguments in self.calls if name == method]

    def _remembering(self, name: str) -> Callable[..., Any]:
        async def method(**arguments: Any) -> Any:
            self.calls.append((name, arguments))
            if name in self.fails:
                raise self.fails[name]
            return getattr(self, f"_{name}")(**arguments)

        return method

    def _upload_app(self, files: list[dict[str, Any]]) -> str:
        self.files = files
        return "lab/demo"

    def _deploy_app(
        self, artifact_id: str, application_id: str = "teal-otter-3f9a", version: str = "", **_: Any
    ) -> str:
        before = self.apps.get(application_id, {})
        told = {**an_app(application_id, artifact_id), **before, "looks": self.looks_until_up}
        self.apps[application_id] = told | ({"version": version} if version else {})
        if self.apps[application_id] != before | {"looks": self.looks_until_up}:
            self.apps[application_id]["last_updated_at"] = before.get("last_updated_at", 0.0) + 1
        return application_id

    def _stop_app(self, application_id: str) -> None:
        if self.apps.pop(application_id, None) is None:
            raise remote("UnknownApp", f"{application_id} is not currently deployed")

    def _get_app_status(
        self, application_ids: list[str] | None = None, logs_tail: int = 30, **_: Any
    ) -> dict[str, Any]:
        if self.next_looks:
            self.next_looks.pop(0)()
        wanted = application_ids if application_ids is not None else list(self.apps)
        return {app_id: self._status(app_id, logs_tail) for app_id in wanted}

    def _status(self, app_id: str, logs_tail: int) -> dict[str, Any]:
        if app_id not in self.apps:
            return {"status": "NOT_RUNNING", "message": f"Application '{app_id}' is not running."}
        status = {key: value for key, value in self.apps[app_id].items() if key != "looks"}
        if (looks := self.apps[app_id].get("looks", 0)) > 0:
            self.apps[app_id]["looks"] = looks - 1
            return {**status, "status": "DEPLOYING", "deployments": {"Demo": a_deployment("UPDATING", STARTING=1)}}
        for one in status["deployments"].values():
            for told in one["logs"].values():
                if logs_tail >= 0:
                    told["stderr"] = told["stderr"][len(told["stderr"]) - min(logs_tail, len(told["stderr"])) :]
        return status

    def _list_apps(self) -> dict[str, Any]:
        return self.artifacts

    def _get_app_manifest(self, artifact_id: str) -> dict[str, Any]:
        return {"id": artifact_id, "versions": [{"version": "0.9.0"}, {"version": "1.0.0-2"}]}

    def _get_status(self) -> dict[str, Any]:
        node = {"node_ip": "10.0.0.1", "head": True, "used_cpu": 1.5, "total_cpu": 8.0, "used_gpu": 0, "total_gpu": 1}
        memory = {"used_memory": 2**30, "total_memory": 16 * 2**30}
        unknown = {"used_gpu_memory": "NA", "total_gpu_memory": "NA", "accelerator_type": "NA", "slurm_job_id": None}
        return {
            "service_start_time": 1.0,
            "bioengine_version": "0.9.1",
            "ray_version": "2.60.0",
            "worker_mode": "single-machine",
            "workspace": "lab",
            "is_ready": True,
            "admin_users": [],
            "ray_cluster": {
                "head_address": "10.0.0.1:6379",
                "cluster": {"used_cpu": 1.5, "total_cpu": 8.0, "used_gpu": 0, "total_gpu": 1},
                "nodes": {"abcdef0123456789": {**node, **memory, **unknown}},
            },
        }


def an_app(app_id: str, artifact_id: str = "lab/demo", **changes: Any) -> dict[str, Any]:
    """The status of one that is up."""
    return {
        "display_name": "Demo",
        "artifact_id": artifact_id,
        "version": "1.0.0",
        "status": "RUNNING",
        "message": "",
        "deployments": {"Demo": a_deployment("HEALTHY", RUNNING=1)},
        "application_resources": {"num_cpus": 0.5, "num_gpus": 0, "memory": 2**30},
        "available_methods": ["ping", "segment"],
        "service_ids": [{"websocket_service_id": f"lab/gateway:{app_id}", "webrtc_service_id": None}],
        "start_time": 1.0,
        **changes,
    }


def a_deployment(status: str, *lines: str, **states: int) -> dict[str, Any]:
    return {
        "status": status,
        "message": "",
        "replica_states": states,
        "logs": {"r1": {"stdout": [], "stderr": list(lines)}},
    }


def remote(kind: str, message: str, how: str = "bare") -> RemoteException:
    """An error as hypha-rpc hands it on: without a traceback, or of a method that is sync or async."""
    head = "Traceback (most recent call last):\n"
    sync = f'{message}\n{head}  File "rpc.py", line 3, in g\n    f()\n    ^^^\n  File "app.py", line 1, in f\n'
    trace = f"{head}             ^^^^^^^^^^^^\n{kind}: {message}"
    text = {"bare": f"{message}\n{kind}: {message}", "sync": f"{sync}{kind}: {message}"}
    return RemoteException(f"RemoteError:{text.get(how) or f'{trace}{chr(10)}Exception: {trace}'}\n")


def bioengine(server: FakeServer, *words: str, answer: str | None = None, **environment: str | None) -> Any:
    """Run the command as somebody whose environment names the worker."""
    known = {"BIOENGINE_WORKER_SERVICE_ID": WORKER, "HYPHA_TOKEN": None, "BIOENGINE_TOKEN": None}
    known |= {"BIOENGINE_SERVER_URL": None, "COLUMNS": "200"}
    return CliRunner().invoke(app, words, obj=server.connect, input=answer, env={**known, **environment})
