"""Publishes what each pass said: on the board, which others in this process read, and as services on Hypha.

The services answer from the board, so a new report costs no call; one is made when the connection is a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from reconciler.adapters.hypha import HyphaSession, unwrapped
from reconciler.adapters.status.people import NOBODY, Caller
from reconciler.adapters.status.service import Orders, StatusService
from reconciler.adapters.status.web import Web, registration
from reconciler.board import Board
from reconciler.ports import Memory, Said

SERVICE_TYPE = "reconcile-status"


class HyphaReports:
    """Implements ports.Reports: `service_id` and one service for each of `web`, registered with the first report and
    after each loss of the connection, also where hypha-rpc has mended that by itself."""

    def __init__(
        self,
        session: HyphaSession,
        service_id: str = "reconcile-status",
        *,
        board: Board | None = None,
        memory: Memory | None = None,
        orders: Orders | None = None,
        approvers: Callable[[], Collection[str]] = tuple,
        pruners: Callable[[], Collection[str]] = tuple,
        web: Sequence[Web] = (),
    ) -> None:
        self._session = session
        self._service_id = service_id
        self._board = board or Board()
        self._service = StatusService(
            self._board,
            memory=memory,
            orders=orders,
            approvers=approvers,
            pruners=pruners,
            ourselves=lambda: self._ourselves,
        )
        self._web = tuple(web)
        self._ourselves = NOBODY
        self._registered_on: object = None
        self._restarts = 0

    async def publish(self, said: Said) -> None:
        self._board.show(said)
        await self._service.watchers.sweep()
        connection, restarts = await self._session.connection(), self._session.restarts
        if self._registered_on is not connection or self._restarts != restarts:
            self._ourselves = Caller.of(unwrapped(connection.config.user), connection.config.workspace)
            await self._session.register(self._registration())
            for web in self._web:
                await self._session.register(registration(web, self._service_id))
            self._registered_on, self._restarts = connection, restarts

    def _registration(self) -> dict[str, Any]:
        return {
            "id": self._service_id,
            "name": "Reconciler",
            "type": SERVICE_TYPE,
            "description": "What git says, what runs, and what differs",
            "config": {"visibility": "protected", "require_context": True},
            **self._service.methods(),
        }
