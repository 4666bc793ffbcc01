"""Publishes the newest report as a Hypha service that anybody in the workspace may ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.adapters.hypha import HyphaSession
from reconciler.ports import Said


class HyphaReports:
    """`reconcile-status`: registered with the first report, answers the newest one."""

    def __init__(self, session: HyphaSession, service_id: str = "reconcile-status") -> None:
        self._session = session
        self._service_id = service_id
        self._newest = Said({})
        self._registered_on: object = None

    async def publish(self, said: Said) -> None:
        self._newest = said
        connection = await self._session.connection()
        if self._registered_on is connection:
            return
        await self._session.register(
            {
                "id": self._service_id,
                "name": "Reconciler",
                "type": "reconcile-status",
                "description": "What git says, what runs, and what differs",
                "config": {"visibility": "protected", "require_context": True},
                "get_status": self._get_status,
            }
        )
        self._registered_on = connection

    async def _get_status(self, context: dict[str, Any] | None = None) -> Mapping[str, Any]:  # noqa: ARG002 - Hypha's
        """The newest report."""
        return self._newest.report
