"""What the gateway offers for one app, decided from what Serve says of it.

Law: an app that is there keeps its service. Only an app that is gone (or was never ours) loses it; one that restarts,
fails or is unhealthy does not.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from bioengine_runtime.apps.record import AppRecord, Running
from bioengine_runtime.apps.rollout import for_whom_both_let_in
from bioengine_runtime.contract.app import IceServer
from bioengine_runtime.contract.manifest import AuthorizedUsers

APP_TYPE = "bioengine-app"
OWN_METHODS = ("get_load", "get_num_pcs", "get_rtc_service_id")
SERVICE_FIELDS = frozenset({"id", "name", "type", "description", "config", "docs", "app_id", "service_schema"})

LONGEST_DESCRIPTION = 1024
"""In characters; Hypha refuses a service with a longer one."""


@dataclass(frozen=True, slots=True)
class OfferedMethod:
    """One method of the entry; `schema` is what callers see, without the context that Hypha adds."""

    name: str
    schema: dict[str, Any]
    wants_context: bool


@dataclass(frozen=True, slots=True)
class Offer:
    """One app as callers see it, and who may call it."""

    app_id: str
    entry: str
    code_digest: str
    name: str
    description: str
    methods: tuple[OfferedMethod, ...]
    authorized_users: AuthorizedUsers
    owner: str
    capacity: int
    ice_servers: tuple[IceServer, ...] = ()

    def method(self, name: str) -> OfferedMethod | None:
        return next((one for one in self.methods if one.name == name), None)

    def looks_like(self, other: Offer | None) -> bool:
        """Whether Hypha would be told the same."""
        return other is not None and (self.name, self.description, self.methods) == (
            other.name,
            other.description,
            other.methods,
        )


def offer(running: Running, *, worker: str, offered: bool) -> Offer | None:
    """The offer for an app. While a new version comes up it is still the old one that answers, and that is offered, to
    those whom the new one lets in too."""
    record = running.record
    if record is None or record.worker != worker or running.status == "DELETING":
        return None
    if record.previous is not None and running.status != "RUNNING":
        record = for_whom_both_let_in(record.previous, record)
    if not offered and _replicas(running, record.entry) == 0:
        return None
    return _offer(running, record)


def _offer(running: Running, record: AppRecord) -> Offer:
    return Offer(
        app_id=running.app_id,
        entry=record.entry,
        code_digest=record.code_digest,
        name=record.name,
        description=_shortened(record.description),
        methods=tuple(
            _method(one["name"], one["schema"]) for one in record.methods if one["name"] not in SERVICE_FIELDS
        ),
        authorized_users=record.spec.authorized_users,
        owner=record.provenance.owner,
        capacity=record.capacity * max(_replicas(running, record.entry), 1),
        ice_servers=tuple(record.spec.ice_servers),
    )


def _shortened(description: str) -> str:
    """As much as Hypha takes; the app's artifact has all of it."""
    return description if len(description) <= LONGEST_DESCRIPTION else description[: LONGEST_DESCRIPTION - 1] + "…"


def _method(name: str, schema: dict[str, Any]) -> OfferedMethod:
    schema = copy.deepcopy(schema)
    parameters = schema.get("parameters") or {}
    wants_context = "context" in (parameters.get("properties") or {})
    if wants_context:
        parameters["properties"].pop("context")
        parameters["required"] = [field for field in parameters.get("required", []) if field != "context"]
    return OfferedMethod(name, schema, wants_context)


def _replicas(running: Running, entry: str) -> int:
    return sum(
        replica.state == "RUNNING"
        for deployment in running.deployments
        if deployment.name == entry
        for replica in deployment.replicas
    )
