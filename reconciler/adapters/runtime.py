"""The worker's service as we call it. All wire names of the reconciler's side are spelled here, and nowhere else.

Law: who was met first under a short id is the worker from then on. Another client that offers the same short id,
beside it or in its place, is told nothing: it might be anybody, and steps carry secrets. A worker that starts again is
the same client, so this costs it nothing.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.status import Prepared, Provenance, WorkerState
from reconciler.adapters.hypha import HyphaSession, NoSuchService, RemoteError
from reconciler.errors import Unreachable
from reconciler.failpoint import side_effect
from reconciler.ports import SecretValues, StepFailed

Model = TypeVar("Model", bound=BaseModel)

WAIT_S = 10.0
"""Seconds one question about an environment may stay open."""
LATE_S = 15.0
"""So much later than that it is lost: asked of a worker that was killed, and whose successor has its address."""


class WorkerRuntime:
    """One worker, found by its service id, which may leave out the client until one was met."""

    def __init__(self, session: HyphaSession, service_id: str, *, timeout_s: float = 30.0) -> None:
        self._session = session
        self._service_id = service_id
        self._met: str | None = None
        self._timeout_s = timeout_s

    async def observe(self) -> WorkerState:
        try:
            answer = await self._ask("observe", self._timeout_s)
        except StepFailed as error:
            raise Unreachable(
                f"worker {self._service_id} does not tell what runs: {error}", hint="May the token call it as an admin?"
            ) from None
        # Who it is, Hypha knows: a plan names the one who would be sent the secrets, whatever it calls itself.
        return _read(WorkerState, answer, self._service_id).model_copy(update={"service_id": self._met})

    async def prepare(self, spec: AppSpec) -> Prepared:
        wanted = spec.model_dump(mode="json")
        with side_effect(f"prepare {spec.app_id}/prepare_app"):
            answer = await self._ask("prepare_app", WAIT_S + LATE_S, spec=wanted, wait_s=WAIT_S)
        return _read(Prepared, answer, self._service_id)

    async def apply(
        self, spec: AppSpec, secrets: SecretValues, provenance: Provenance, *, expected: str | None
    ) -> None:
        with side_effect(f"apply {spec.app_id}/apply_app"):
            await self._ask(
                "apply_app",
                self._timeout_s * 2,
                spec=spec.model_dump(mode="json"),
                secrets={key: dict(values) for key, values in secrets.values.items()},
                fingerprints=dict(secrets.fingerprints),
                provenance=provenance.model_dump(mode="json"),
                expected=expected,
            )

    async def remove(self, app_id: str, *, owner: str, expected: str | None) -> None:
        with side_effect(f"stop {app_id}/remove_app"):
            await self._ask("remove_app", self._timeout_s * 2, app_id=app_id, owner=owner, expected=expected)

    async def scale(self, minimum: int, maximum: int) -> None:
        with side_effect("workers/scale_workers"):
            await self._ask("scale_workers", self._timeout_s, min=minimum, max=maximum)

    async def _ask(self, method: str, timeout_s: float, **arguments: Any) -> Any:
        """The answer; a "no" (answered as a value) and a fault (raised over there) both fail the step."""
        try:
            worker = self._met = self._met or await self._session.find(self._service_id)
            answer = await self._session.ask(worker, method, timeout_s=timeout_s, **arguments)
        except NoSuchService as gone:
            raise await self._replaced() or gone from None
        except RemoteError as error:
            if "Multiple services" in error.message:
                raise Unreachable(
                    f"several workers answer to {self._service_id!r}",
                    hint="Name one: hypha.worker: <workspace>/<client>:bioengine-worker in cluster.yaml.",
                ) from None
            if error.kind == "AttributeError":
                raise _incompatible(self._service_id, f"it has no method {method}") from None
            raise StepFailed(f"worker: {error.kind}: {error.message}") from None
        match answer:
            case {"error": {"message": message}}:
                raise StepFailed(str(message))
            case _:
                return answer

    async def _replaced(self) -> Unreachable | None:
        """Why the worker that was met is not taken for gone: somebody else offers its short id now."""
        if self._met is None:
            return None
        try:
            another = await self._session.find(self._service_id)
        except (Unreachable, RemoteError):
            return None
        if another == self._met:
            return None
        return Unreachable(
            f"{self._service_id!r} was worker {self._met}, which is gone; {another} offers it now and is not obeyed",
            hint=f"If it is the new worker, write `hypha.worker: {another}` in cluster.yaml; else find out who it is.",
        )


def _read(model: type[Model], answer: Any, service_id: str) -> Model:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _incompatible(service_id, f"{model.__name__} {where}: {first['msg']}") from None


def _incompatible(service_id: str, why: str) -> Unreachable:
    return Unreachable(
        f"worker {service_id} speaks another version of the contract ({why})",
        hint="Update the older of the two: the worker, or this reconciler.",
    )
