"""What runs, in the contract's words: Serve's view, our record, and what each replica says of itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from bioengine_runtime.apps import store
from bioengine_runtime.apps.record import Replica, Running
from bioengine_runtime.apps.redeploying import TRIES, Tries, in_words, read_tries
from bioengine_runtime.contract.base import is_app_id
from bioengine_runtime.contract.status import AppState, Rejection, ReplicaState

MESSAGE_LENGTH = 2000
Notes = dict[str, dict[str, Any]]


class States:
    """Remembers what replicas said: they say it once, and it stays true."""

    def __init__(self) -> None:
        self._notes: Notes = {}

    async def of(self, apps: Mapping[str, Running], worker: str) -> list[AppState]:
        """One per Serve application; the names of others may not fit an app id, and then nobody can mean them."""
        marks = await asyncio.to_thread(self._read, apps)
        return [
            _state(running, worker, self._notes, *marks[app_id])
            for app_id, running in sorted(apps.items())
            if is_app_id(app_id)
        ]

    def _read(self, apps: Mapping[str, Running]) -> dict[str, tuple[str | None, Rejection | None, Tries]]:
        alive = {
            _name(running, replica)
            for running in apps.values()
            for deployment in running.deployments
            for replica in deployment.replicas
        }
        unread = (alive & set(store.names(store.REPLICA))) - self._notes.keys()
        fresh = {name: json.loads(content) for name in unread if (content := store.get(store.REPLICA, name))}
        self._notes = {name: note for name, note in (self._notes | fresh).items() if name in alive}
        good, rejected, tried = (set(store.names(kind)) for kind in (store.GOOD, store.REJECTED, TRIES))
        return {
            app_id: (
                _good(app_id) if app_id in good else None,
                _rejected(app_id) if app_id in rejected else None,
                read_tries(app_id) if app_id in tried else Tries(),
            )
            for app_id in apps
        }


def _state(
    running: Running, worker: str, notes: Notes, good: str | None, rejected: Rejection | None, tries: Tries
) -> AppState:
    record = running.record if running.record and running.record.worker == worker else None
    replicas = [
        _replica(replica, notes.get(_name(running, replica), {}))
        for deployment in running.deployments
        for replica in deployment.replicas
    ]
    about = {
        "app_id": running.app_id,
        "status": running.status,
        "message": _message(running, tries),
        "replicas": replicas,
    }
    if record is None:
        return AppState.model_validate(about)
    return AppState.model_validate(
        {
            **about,
            "spec": record.spec,
            "digest": record.digest,
            "secret_fingerprints": record.secret_fingerprints,
            "provenance": record.provenance,
            "rejected": rejected,
            "updating": record.previous is not None and record.release() != good,
            "methods": [method["name"] for method in record.methods],
            "started_at": record.started_at,
            "last_updated_at": record.last_updated_at,
        }
    )


def _replica(replica: Replica, note: Mapping[str, Any]) -> ReplicaState:
    return ReplicaState(
        deployment=replica.deployment,
        replica_id=replica.replica_id,
        state=replica.state,
        pid=replica.pid or note.get("pid"),
        node_id=replica.node_id or note.get("node_id"),
        started_at=replica.started_at,
        code_digest=note.get("code_digest"),
    )


def _message(running: Running, tries: Tries) -> str:
    said = [running.message, *(f"{one.name}: {one.message}" for one in running.deployments if one.message)]
    if running.record and running.status != "RUNNING":
        said += [*running.record.warnings, in_words(tries)]
    text = "\n".join(one for one in said if one)
    # The end is what tells; a line cut through would not.
    return text if len(text) <= MESSAGE_LENGTH else text[-MESSAGE_LENGTH:].partition("\n")[2]


def _name(running: Running, replica: Replica) -> str:
    return f"{running.app_id}/{replica.deployment}/{replica.replica_id}"


def _good(app_id: str) -> str | None:
    kept = store.get(store.GOOD, app_id)
    return kept.decode() if kept else None


def _rejected(app_id: str) -> Rejection | None:
    kept = store.get(store.REJECTED, app_id)
    return Rejection.model_validate_json(kept) if kept else None
