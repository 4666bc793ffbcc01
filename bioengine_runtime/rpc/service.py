"""The worker's service on Hypha: authorize, delegate, answer with a contract type. No logic, and all wire names.

Id `bioengine-worker`, type `bioengine-worker`, public, `require_context`. Arguments go by name (or in order) and are
checked against the contract before anything runs.

For the reconciler, admins only. These answer a value, and a "no" is a value too, so that it is never mistaken for a
fault: `{"error": {"kind": "Refused" | "Invalid" | "Denied", "message": text}}`. Faults are raised.

    observe()                                                        → WorkerState
    prepare_app(spec, wait_s=20)                                     → Prepared; `done: false` means ask again
    apply_app(spec, secrets, fingerprints, provenance, expected)     → {"changed": bool}
    remove_app(app_id, owner, expected)                              → {"removed": true}
    scale_workers(min, max)                                          → {"min": int, "max": int}

`spec` is an AppSpec, `provenance` a Provenance, `secrets` class or * → NAME → value, `fingerprints` Class/NAME → hash,
`expected` the digest that must run now ("" for none; None does not check).

All other methods are for people. They raise; the text of the error ends with a line `<Type>: <message>`; for a "no"
the type is PermissionError, ValueError (an argument) or one of apps/errors.py. `None` for what may be left out is as
good as leaving it out. Some have a second, older spelling, which is the same method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, StringConstraints, WithJsonSchema

from bioengine_runtime.apps.errors import Refused
from bioengine_runtime.contract.app import AppSpec, IceServer
from bioengine_runtime.contract.base import AppId
from bioengine_runtime.contract.manifest import AuthorizedUsers
from bioengine_runtime.contract.status import Prepared, Provenance, WorkerState
from bioengine_runtime.rpc.access import Caller, is_admin
from bioengine_runtime.rpc.callers import Callers
from bioengine_runtime.rpc.door import exposed, remote_methods
from bioengine_runtime.rpc.wishes import Scaling

SERVICE_TYPE = "bioengine-worker"
SecretTable = dict[str, dict[str, str]]
PerClass = dict[str, dict[str, Any]]
ArtifactId = Annotated[str, StringConstraints(pattern=r"^([^/\s]+/)?[^/\s]+$")]
"""workspace/alias, or an alias in the worker's own workspace."""
Version = Annotated[str, StringConstraints(pattern=r"^[^/\s]+$")]
OnLine = Annotated[Callable[..., Any], WithJsonSchema({"description": "Called with every line as it is written."})]


class ForReconciler(Protocol):
    """What stands behind the reconciler's methods."""

    async def observe(self) -> WorkerState: ...
    async def prepare(self, spec: AppSpec, wait_s: float) -> Prepared: ...
    async def apply(
        self,
        spec: AppSpec,
        secrets: SecretTable,
        fingerprints: dict[str, str],
        provenance: Provenance,
        expected: str | None,
    ) -> bool: ...
    async def remove(self, app_id: str, *, owner: str, expected: str | None) -> None: ...


class ForPeople(Protocol):
    """What stands behind the methods for people."""

    async def upload(
        self, caller: Caller, files: list[dict[str, Any]], workspace: str | None, hypha_token: str | None
    ) -> str: ...
    async def all_apps(self) -> dict[str, Any]: ...
    async def app_record(self, artifact_id: str) -> dict[str, Any]: ...
    async def delete(self, caller: Caller, artifact_id: str) -> None: ...
    async def delete_version(self, caller: Caller, artifact_id: str, version: str) -> None: ...
    async def deploy(self, caller: Caller, wish: dict[str, Any]) -> str: ...
    async def stop(self, caller: Caller, app_id: str) -> None: ...
    async def stop_all(self, caller: Caller, timeout_s: float) -> None: ...
    async def app_status(
        self, caller: Caller, app_ids: list[str] | None, logs_tail: int, previous: int
    ) -> dict[str, Any]: ...
    async def status(self, caller: Caller) -> dict[str, Any]: ...


class Machine(Protocol):
    """What stands behind the methods that concern the worker's own process and folders."""

    async def run_code(
        self,
        *,
        code: str | None,
        function_name: str,
        func_bytes: bytes | None,
        mode: str,
        args: list[Any] | None,
        kwargs: dict[str, Any] | None,
        remote_options: dict[str, Any] | None,
        write_stdout: Callable[..., Any] | None,
        write_stderr: Callable[..., Any] | None,
        timeout: int,
    ) -> dict[str, Any]: ...
    async def logs(self, tail: int) -> list[str]: ...
    async def app_directories(self) -> list[dict[str, Any]]: ...
    async def clear_app_directory(self, app_id: str) -> None: ...
    async def stop_worker(self, blocking: bool) -> None: ...


class WorkerService:
    """The RPC surface. One method here is one method on the wire."""

    def __init__(
        self,
        *,
        reconciler: ForReconciler,
        people: ForPeople,
        machine: Machine,
        admins: Callable[[], Sequence[str]],
        callers: Callers,
    ) -> None:
        self._callers = callers
        self._reconciler = reconciler
        self._people = people
        self._machine = machine
        self._admins = admins

    def registration(self, service_id: str, name: str, description: str) -> dict[str, Any]:
        """What is handed to Hypha's `register_service`."""
        return {
            "id": service_id,
            "name": name,
            "type": SERVICE_TYPE,
            "description": description,
            "config": {"visibility": "public", "require_context": True},
            **remote_methods(self, self._authorize, self._is_insider, self._callers),
        }

    def _is_insider(self, caller: Caller) -> bool:
        return is_admin(caller, self._admins())

    def _authorize(self, caller: Caller, method: str) -> None:
        if not self._is_insider(caller):
            raise PermissionError(f"{caller} may not call {method} of this worker; it takes an admin of the worker")

    @exposed(admin=True, refusals_are_values=True)
    async def observe(self, caller: Caller) -> dict[str, Any]:  # noqa: ARG002 - the door gives it to all
        """Everything the worker sees: nodes, apps and what they were deployed from."""
        return (await self._reconciler.observe()).model_dump(mode="json")

    @exposed(admin=True, refusals_are_values=True)
    async def prepare_app(
        self,
        caller: Caller,  # noqa: ARG002 - the door gives it to all
        spec: AppSpec,
        wait_s: Annotated[float, Field(ge=0, le=60)] = 20.0,
    ) -> dict[str, Any]:
        """Build the app's environment where it can run. Answers within wait_s; `done: false` means ask again."""
        return (await self._reconciler.prepare(spec, wait_s)).model_dump(mode="json")

    @exposed(admin=True, refusals_are_values=True)
    async def apply_app(
        self,
        caller: Caller,  # noqa: ARG002 - the door gives it to all
        spec: AppSpec,
        secrets: SecretTable,
        fingerprints: dict[str, str],
        provenance: Provenance,
        expected: str | None = None,
    ) -> dict[str, Any]:
        """Run this spec; answers when it is accepted, and says whether that changed anything."""
        return {"changed": await self._reconciler.apply(spec, secrets, fingerprints, provenance, expected)}

    @exposed(admin=True, refusals_are_values=True)
    async def remove_app(
        self,
        caller: Caller,  # noqa: ARG002 - the door gives it to all
        app_id: AppId,
        owner: str,
        expected: str | None = None,
    ) -> dict[str, Any]:
        """Stop an app of this owner; one that is gone already is success."""
        await self._reconciler.remove(app_id, owner=owner, expected=expected)
        return {"removed": True}

    @exposed(admin=True, refusals_are_values=True)
    async def scale_workers(
        self,
        caller: Caller,  # noqa: ARG002 - the door gives it to all
        min: Annotated[int, Field(ge=0)],
        max: Annotated[int, Field(ge=0)],
    ) -> dict[str, Any]:
        """Set the bounds of the SLURM workers."""
        raise Refused(f"this worker starts no SLURM jobs, so there is nothing to keep between {min} and {max}")

    @exposed()
    async def get_status(self, caller: Caller) -> dict[str, Any]:
        """The worker and its cluster; who the admins are, and addresses, are told to admins only."""
        return await self._people.status(caller)

    @exposed()
    async def check_access(self, caller: Caller) -> bool:
        """Whether the caller is an admin of this worker."""
        return self._is_insider(caller)

    @exposed()
    async def list_datasets(self, caller: Caller) -> dict[str, Any]:  # noqa: ARG002 - the door gives it to all
        """Datasets by id: none, as no data server belongs to this worker."""
        return {}

    @exposed(admin=True)
    async def stop_worker(self, caller: Caller, blocking: bool = False) -> None:  # noqa: ARG002 - the door gives it to all
        """End the worker. Blocking: answers when it has withdrawn everything; otherwise at once."""
        await self._machine.stop_worker(blocking)

    @exposed(admin=True)
    async def get_logs(self, caller: Caller, tail: Annotated[int, Field(ge=0)] = 100) -> list[str]:  # noqa: ARG002 - the door gives it to all
        """The last lines of the worker's own log; 0 for all of them."""
        return await self._machine.logs(tail)

    @exposed(admin=True, also="execute_python_code", ends_with_caller=True)
    async def run_code(
        self,
        caller: Caller,  # noqa: ARG002 - the door gives it to all
        code: str | None = None,
        function_name: str = "analyze",
        func_bytes: bytes | None = None,
        mode: Literal["source", "pickle"] = "source",
        args: list[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        remote_options: dict[str, Any] | None = None,
        write_stdout: OnLine | None = None,
        write_stderr: OnLine | None = None,
        timeout: Annotated[int, Field(gt=0)] = 180,
    ) -> dict[str, Any]:
        """Run a function on the cluster, in a process of its own: by its source, or pickled with cloudpickle.

        Answers {result, stdout, stderr} or {error, traceback, stdout, stderr}. `timeout` in seconds ends the task; so
        does a caller that leaves Hypha.
        """
        return await self._machine.run_code(
            code=code,
            function_name=function_name,
            func_bytes=func_bytes,
            mode=mode,
            args=args,
            kwargs=kwargs,
            remote_options=remote_options,
            write_stdout=write_stdout,
            write_stderr=write_stderr,
            timeout=timeout,
        )

    @exposed(admin=True)
    async def list_app_directories(self, caller: Caller) -> list[dict[str, Any]]:  # noqa: ARG002 - the door gives it to all
        """Folders that apps have written into: [{name, path, is_running, size_bytes}]."""
        return await self._machine.app_directories()

    @exposed(admin=True)
    async def clear_app_directory(self, caller: Caller, application_id: AppId) -> None:  # noqa: ARG002 - the door gives it to all
        """Remove the folder of an app that does not run."""
        await self._machine.clear_app_directory(application_id)

    @exposed(also="save_application")
    async def upload_app(
        self, caller: Caller, files: list[dict[str, Any]], workspace: str | None = None, hypha_token: str | None = None
    ) -> str:
        """Store an app folder as a new version of its artifact; answers the artifact id.

        files: [{name: relative path, content, type: "text" | "base64"}], the whole folder: what is missing is not part
        of the new version. With `workspace` and `hypha_token` it goes into that workspace of the caller's, as that
        caller; otherwise into the worker's, which takes an admin. Versions are never changed afterwards: a folder whose
        manifest names the newest version again, with other files, is kept beside it as `1.0.0-2` and is the newest
        then; with the same files nothing happens. A version that others have followed cannot be sent again.
        """
        if not (workspace and hypha_token):
            self._authorize(caller, "upload_app")
        return await self._people.upload(caller, files, workspace, hypha_token)

    @exposed(admin=True, also="list_applications")
    async def list_apps(self, caller: Caller) -> dict[str, Any]:  # noqa: ARG002 - the door gives it to all
        """Apps that can be deployed: artifact id → {manifest: the whole artifact record, files: names at its root}."""
        return await self._people.all_apps()

    @exposed(admin=True, also="get_application_manifest")
    async def get_app_manifest(self, caller: Caller, artifact_id: ArtifactId) -> dict[str, Any]:  # noqa: ARG002 - the door gives it to all
        """The whole record of an artifact; its `manifest` is the app's."""
        return await self._people.app_record(artifact_id)

    @exposed(admin=True, also="delete_application")
    async def delete_app(self, caller: Caller, artifact_id: ArtifactId) -> None:
        """Delete an app of the worker's workspace with all its versions. What was deployed from it runs on."""
        await self._people.delete(caller, artifact_id)

    @exposed(admin=True)
    async def delete_app_version(self, caller: Caller, artifact_id: ArtifactId, version: Version) -> None:
        """Delete one version of an app of the worker's workspace: the newest, if it is a development version (`…dev…`).

        Refused while an app runs from it, or may go back to it, and when the app has no other version.
        """
        await self._people.delete_version(caller, artifact_id, version)

    @exposed(admin=True, also="run_application")
    async def deploy_app(
        self,
        caller: Caller,
        artifact_id: ArtifactId,
        version: Version | None = None,
        application_id: AppId | None = None,
        application_kwargs: PerClass | None = None,
        application_env_vars: SecretTable | None = None,
        hypha_token: str | None = None,
        disable_gpu: bool | None = None,
        max_ongoing_requests: Annotated[int, Field(ge=1)] | None = None,
        auto_redeploy: bool | None = None,
        debug: bool | None = None,
        ice_servers: list[IceServer] | None = None,
        authorized_users: AuthorizedUsers | None = None,
        max_queued_requests: Annotated[int, Field(ge=1)] | None = None,
        scaling: dict[str, Scaling] | None = None,
        proxy_memory_in_gb: Annotated[float, Field(gt=0)] | None = None,
    ) -> str:
        """Deploy an app, or update the one with this id; answers the app id.

        Without an id it is a new app with an id of its own. An update takes what is left out from the app as it runs,
        secrets and token included, but for the version: that is the newest, unless one is named. authorized_users are
        those of the version's manifest until they are given here; an app that names none is open to whoever deploys it
        and to the worker's admins. What runs exactly so already is left alone, and tried again when it has failed.
        Kwargs and variables go by class name, `*` is every class; a variable `_NAME` is the secret NAME.
        scaling: class (`*` is every class) → {num_replicas} or {autoscaling_config: {min_replicas, max_replicas,
        target_ongoing_requests}}. proxy_memory_in_gb changes nothing: the apps of a worker share one gateway.
        """
        wish = {key: value for key, value in locals().items() if key not in ("self", "caller") and value is not None}
        return await self._people.deploy(caller, wish)

    @exposed(admin=True, also="stop_application")
    async def stop_app(self, caller: Caller, application_id: AppId) -> None:
        """Stop an app; answers when that has begun."""
        await self._people.stop(caller, application_id)

    @exposed(admin=True, also="stop_all_applications")
    async def stop_all_apps(self, caller: Caller, timeout_seconds: Annotated[int, Field(ge=0)] = 180) -> None:
        """Stop all apps of this worker; answers when they are gone."""
        await self._people.stop_all(caller, timeout_seconds)

    @exposed(also="get_application_status")
    async def get_app_status(
        self,
        caller: Caller,
        application_ids: Annotated[list[str], Field(min_length=1)] | None = None,
        logs_tail: Annotated[int, Field(ge=-1)] = 30,
        n_previous_replica: Annotated[int, Field(ge=-1)] = 0,
    ) -> dict[str, Any]:
        """Status by app id, of all apps when none is named; -1 is all lines, all replicas that are gone.

        Logs, variables, parameters, users and messages only for admins and those whom the app itself names.
        """
        return await self._people.app_status(caller, application_ids, logs_tail, n_previous_replica)
