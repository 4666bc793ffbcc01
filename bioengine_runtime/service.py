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

For people: upload_app, deploy_app, stop_app, get_app_status, get_status, check_access. These raise; the text of the
error ends with a line `<Type>: <message>`; for a "no" the type is PermissionError, Invalid or one of apps/errors.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol

from pydantic import Field

from bioengine_runtime.access import Caller, is_admin
from bioengine_runtime.apps.errors import Refused
from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.base import AppId
from bioengine_runtime.contract.manifest import AuthorizedUsers
from bioengine_runtime.contract.status import Prepared, Provenance, WorkerState
from bioengine_runtime.door import exposed, remote_methods

SERVICE_TYPE = "bioengine-worker"
SecretTable = dict[str, dict[str, str]]
PerClass = dict[str, dict[str, Any]]


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

    async def upload(self, caller: Caller, files: list[dict[str, Any]], workspace: str | None) -> str: ...
    async def deploy(self, caller: Caller, wish: dict[str, Any]) -> str: ...
    async def stop(self, caller: Caller, app_id: str) -> None: ...
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
        machine: Machine | None = None,
        admins: Callable[[], Sequence[str]],
    ) -> None:
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
            **remote_methods(self, self._authorize),
        }

    def _authorize(self, caller: Caller, method: str) -> None:
        if not is_admin(caller, self._admins()):
            raise PermissionError(f"{caller} may not call {method} of this worker; it takes an admin of the worker")

    @exposed(admin=True, refusals_are_values=True)
    async def observe(self, caller: Caller) -> dict[str, Any]:  # noqa: ARG002
        """Everything the worker sees: nodes, apps and what they were deployed from."""
        return (await self._reconciler.observe()).model_dump(mode="json")

    @exposed(admin=True, refusals_are_values=True)
    async def prepare_app(
        self,
        caller: Caller,  # noqa: ARG002
        spec: AppSpec,
        wait_s: Annotated[float, Field(ge=0, le=60)] = 20.0,
    ) -> dict[str, Any]:
        """Build the app's environment where it can run. Answers within wait_s; `done: false` means ask again."""
        return (await self._reconciler.prepare(spec, wait_s)).model_dump(mode="json")

    @exposed(admin=True, refusals_are_values=True)
    async def apply_app(
        self,
        caller: Caller,  # noqa: ARG002
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
        caller: Caller,  # noqa: ARG002
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
        caller: Caller,  # noqa: ARG002
        min: Annotated[int, Field(ge=0)],
        max: Annotated[int, Field(ge=0)],
    ) -> dict[str, Any]:
        """Set the bounds of the SLURM workers."""
        raise Refused(f"this worker starts no SLURM jobs, so there is nothing to keep between {min} and {max}")

    @exposed()
    async def upload_app(
        self, caller: Caller, files: list[dict[str, Any]], workspace: str | None = None, hypha_token: str | None = None
    ) -> str:
        """Store an app folder as a new artifact version; answers the artifact id.

        files: [{name: relative path, content, type: "text" | "base64"}].
        """
        if hypha_token is not None:
            raise Refused("uploading with a token of your own is not supported; connect with it and upload yourself")
        self._authorize(caller, "upload_app")
        return await self._people.upload(caller, files, workspace)

    @exposed(admin=True)
    async def deploy_app(
        self,
        caller: Caller,
        artifact_id: Annotated[str, Field(min_length=1)],
        version: str | None = None,
        application_id: AppId | None = None,
        application_kwargs: PerClass | None = None,
        application_env_vars: SecretTable | None = None,
        hypha_token: str | None = None,
        disable_gpu: bool | None = None,
        max_ongoing_requests: Annotated[int, Field(ge=1)] | None = None,
        authorized_users: AuthorizedUsers | None = None,
    ) -> str:
        """Deploy an app, or update the one with this id: what is left out stays as it runs. Answers the app id."""
        wish = {key: value for key, value in locals().items() if key not in ("self", "caller") and value is not None}
        return await self._people.deploy(caller, wish)

    @exposed(admin=True)
    async def stop_app(self, caller: Caller, application_id: AppId) -> None:
        """Stop an app."""
        await self._people.stop(caller, application_id)

    @exposed()
    async def get_app_status(
        self,
        caller: Caller,
        application_ids: Annotated[list[str], Field(min_length=1)] | None = None,
        logs_tail: Annotated[int, Field(ge=-1)] = 30,
        n_previous_replica: Annotated[int, Field(ge=-1)] = 0,
    ) -> dict[str, Any]:
        """Status by app id; logs, variables and parameters only for admins and those who may call the app."""
        return await self._people.app_status(caller, application_ids, logs_tail, n_previous_replica)

    @exposed()
    async def get_status(self, caller: Caller) -> dict[str, Any]:
        """The worker and its cluster; who the admins are is told to admins only."""
        return await self._people.status(caller)

    @exposed()
    async def check_access(self, caller: Caller) -> bool:
        """Whether the caller is an admin of this worker."""
        return is_admin(caller, self._admins())
