"""The reconciler that keeps this cluster, asked through its status service.

Law: another cluster's may answer by the same id, and is never taken for ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from reconciler.adapters.hypha import HyphaSession, RemoteError, unwrapped
from reconciler.adapters.status.people import Caller
from reconciler.errors import Unreachable
from reconciler.planning.people import Person
from reconciler.ports import OrderRefused

TIMEOUT_S = 30.0


class RunningReconciler:
    """Implements ports.Running."""

    def __init__(self, session: HyphaSession, service_id: str, cluster: str) -> None:
        self._session = session
        self._service_id = service_id
        self._cluster = cluster

    async def order(self, method: str, arguments: Mapping[str, Any]) -> Any:
        said = {name: value for name, value in arguments.items() if value is not None}
        try:
            return await self._session.ask(self._service_id, method, timeout_s=TIMEOUT_S, **said, cluster=self._cluster)
        except RemoteError as error:
            raise OrderRefused(error.message) from None

    async def answers(self) -> bool:
        try:
            status = await self._session.ask(self._service_id, "get_status", timeout_s=TIMEOUT_S)
        except RemoteError:  # is an answer, too
            return True
        except Unreachable:
            return False
        keeps = cast("dict[str, Any]", status).get("target") if isinstance(status, dict) else None
        return keeps in (self._cluster, "", None)

    async def me(self) -> Person:
        connection = await self._session.connection()
        return Caller.of(unwrapped(connection.config.user), connection.config.workspace)
