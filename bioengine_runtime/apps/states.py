"""What runs, in the contract's words: Serve's view, our record, and what each replica says of itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from bioengine_runtime.apps import marks, store
from bioengine_runtime.apps.judging import has_gate
from bioengine_runtime.apps.record import AppRecord, Replica, Running
from bioengine_runtime.apps.redeploying import Tries, in_words, read_tries
from bioengine_runtime.contract.base import is_app_id
from bioengine_runtime.contract.status import AppState, Rejection, ReplicaState

MESSAGE_LENGTH = 2000
Notes = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Marks:
    """What is noted of one app. `faults` are what replicas that run, or ran, say is wrong with them."""

    good: marks.Good | None
    rejected: Rejection | None
    tries: Tries
    faults: tuple[str, ...]


class States:
    """Remembers what replicas said: they say it once, and it stays true."""

    def __init__(self) -> None:
        self._notes: Notes = {}

    async def of(self, apps: Mapping[str, Running], worker: str) -> list[AppState]:
        """One per Serve application; the names of others may not fit an app id, and then nobody can mean them."""
        noted = await asyncio.to_thread(self._read, apps)
        return [
            _state(running, worker, self._notes, noted[app_id])
            for app_id, running in sorted(apps.items())
            if is_app_id(app_id)
        ]

    def _read(self, apps: Mapping[str, Running]) -> dict[str, Marks]:
        alive = {
            _name(running, replica)
            for running in apps.values()
            for deployment in running.deployments
            for replica in deployment.replicas
        }
        unread = (alive & set(store.names(store.REPLICA))) - self._notes.keys()
        fresh = {name: json.loads(content) for name in unread if (content := store.get(store.REPLICA, name))}
        self._notes = {name: note for name, note in (self._notes | fresh).items() if name in alive}
        there = {kind: set(store.names(kind)) for kind in (store.GOOD, store.REJECTED, store.TRIES, store.FAULT)}
        return {
            app_id: Marks(
                good=marks.read_good(app_id) if app_id in there[store.GOOD] else None,
                rejected=marks.read_rejection(app_id) if app_id in there[store.REJECTED] else None,
                tries=read_tries(app_id) if app_id in there[store.TRIES] else Tries(),
                faults=_faults(running, there[store.FAULT]),
            )
            for app_id, running in apps.items()
        }


def _faults(running: Running, known: Collection[str]) -> tuple[str, ...]:
    said = [
        f"{one.name}: {fault}"
        for one in running.deployments
        for replica in (*one.replicas, *one.dead)
        if _name(running, replica) in known and (fault := marks.read_fault(running.app_id, replica))
    ]
    return tuple(dict.fromkeys(said))


def _state(running: Running, worker: str, notes: Notes, noted: Marks) -> AppState:
    record = running.record if running.record and running.record.worker == worker else None
    replicas = [
        _replica(replica, notes.get(_name(running, replica), {}))
        for deployment in running.deployments
        for replica in deployment.replicas
    ]
    about = {
        "app_id": running.app_id,
        "status": running.status,
        "message": _message(running, noted),
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
            "rejected": noted.rejected,
            "updating": _is_updating(record, running, noted),
            "methods": [method["name"] for method in record.methods],
            "started_at": record.started_at,
            "last_updated_at": record.last_updated_at,
            "last_deploy_s": noted.good and noted.good.took_s,
            "token_expires_at": record.token_expires_at,
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


def _is_updating(record: AppRecord, running: Running, noted: Marks) -> bool:
    """Whether it is not decided yet, or is being undone. One that failed and stays is what it is."""
    if noted.good and record.release() == noted.good.release:
        return False
    rejected = noted.rejected
    if rejected and rejected.digest == record.digest and rejected.rollback != "under way":
        return False
    return record.previous is not None or (running.status == "RUNNING" and has_gate(record))


def _message(running: Running, noted: Marks) -> str:
    said = [running.message, *(f"{one.name}: {one.message}" for one in running.deployments if one.message)]
    if running.record and running.status != "RUNNING":
        said += [*noted.faults, *running.record.warnings, in_words(noted.tries)]
    text = "\n".join(one for one in said if one)
    # The end is what tells; a line cut through would not.
    return text if len(text) <= MESSAGE_LENGTH else text[-MESSAGE_LENGTH:].partition("\n")[2]


def _name(running: Running, replica: Replica) -> str:
    return store.replica_name(running.app_id, replica.deployment, replica.replica_id)
