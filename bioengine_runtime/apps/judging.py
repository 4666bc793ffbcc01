"""What is to be thought of a version: coming up, at its gate, good, or failed. Pure: states in, verdicts out.

A version that is up has a gate to pass when its rollout names one: its probe is answered rightly, and it stays healthy
for `stable_s` with no replica lost. The gate is known by the release, so neither an update in place nor a restart of
the worker opens it anew.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from bioengine_runtime.apps.record import AppRecord, DeploymentState, Replica, Running
from bioengine_runtime.contract.app import Probe
from bioengine_runtime.contract.status import Gate as GateName

LOG_LINES = 30
LONGEST_REASON = 500
"""In characters."""
FAILING = ("DEPLOY_FAILED", "UNHEALTHY")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ERROR = re.compile(r"^\w[\w.]*(Error|Exception|Interrupt|Exit|Warning|Unsealable)\b.*")


class Gate(BaseModel):
    """How far one release, which is up since `up_at`, has come. `served` names the replicas it is up with."""

    release: str
    up_at: float
    served: dict[str, list[str]]
    probed: bool = False
    failed: tuple[GateName, str] | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """The version is good; what it replaced is no longer needed."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The version is not good. `gate` is the one it was up for; without, it never came up.

    `what` happened, and `why` as far as Serve tells; the replica that failed may know better. `deployment` and
    `replica` are those that failed, when they are known: their logs tell more."""

    name: GateName
    what: str = ""
    why: str = ""
    lines: tuple[str, ...] = ()
    deployment: DeploymentState | None = None
    replica: Replica | None = None
    gate: Gate | None = None

    def reason(self, fault: str = "") -> str:
        """In one line; `fault` is what the replica itself said."""
        return one_line(": ".join(part for part in (self.what, fault or self.why) if part))


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not decided yet. `keep` is what has to be remembered of its gate from now on."""

    keep: Gate | None = None


@dataclass(frozen=True, slots=True)
class Asking:
    """Up, and its probe has not been answered yet."""

    gate: Gate
    probe: Probe


Verdict = Settled | Failed | Waiting | Asking | None


def judge(running: Running, good: str | None, gate: Gate | None, now: float) -> Verdict:
    """None: nothing to decide, this version was good before (Serve itself restarts what breaks later)."""
    record = running.record
    if record is None or record.release() == good or running.status == "DELETING":
        return None
    if gate and gate.release == record.release():
        return _at_the_gate(running, record, gate, now)
    if _is_up(running):
        if not has_gate(record):
            return Settled()
        return Waiting(keep=Gate(release=record.release(), up_at=now, served=_serving(running)))
    return _coming_up(running, record, now)


def has_gate(record: AppRecord) -> bool:
    """Whether being up is not enough for this version to be called good."""
    return bool(record.spec.rollout.stable_s or record.spec.rollout.probe)


def _coming_up(running: Running, record: AppRecord, now: float) -> Failed | Waiting:
    failed = running.failed()
    if failed or running.status == "DEPLOY_FAILED":
        message = failed.message if failed else running.message
        return Failed("start", "", reason_of(message), lines_of(message), failed)
    limit = record.spec.rollout.health_timeout_s
    if record.previous and now - (record.sent_at or record.last_updated_at) > limit:
        return _too_slow(running, limit, None)
    return Waiting()


def _at_the_gate(running: Running, record: AppRecord, gate: Gate, now: float) -> Verdict:
    if gate.failed:
        return Failed(*gate.failed, gate=gate)
    if lost := next(_lost(running, gate, now), None):
        return lost
    rollout = record.spec.rollout
    due = gate.up_at + rollout.stable_s
    if not _is_up(running):
        late = now - max(due, record.last_updated_at) > rollout.health_timeout_s
        return _too_slow(running, rollout.health_timeout_s, gate) if late else Waiting()
    if (served := _serving(running, gate)) != gate.served:
        return Waiting(keep=gate.model_copy(update={"served": served}))
    if rollout.probe and not gate.probed:
        return Asking(gate, rollout.probe)
    return Waiting() if now < due else Settled()


def _lost(running: Running, gate: Gate, now: float) -> Iterator[Failed]:
    """What shows that it did not stay healthy, be it healthy again by now."""
    when = f"{max(now - gate.up_at, 0.0):.1f} s after it came up, before it was known to be good"
    for one in running.deployments:
        if one.status in FAILING:
            what = f"{one.name} became unhealthy {when}"
            yield Failed("stable", what, reason_of(one.message), lines_of(one.message), one, gate=gate)
        served = gate.served.get(one.name, [])
        newcomers = [
            replica for replica in one.replicas if replica.replica_id not in served and replica.state != "STOPPING"
        ]
        # Scaling makes newcomers, too: as many as there are more places than before.
        if len(newcomers) > max((one.target or 0) - len(served), 0):
            died = next((replica for replica in one.dead if replica.replica_id in served), None)
            yield Failed("stable", f"a replica of {one.name} died {when}", "", (), one, died, gate)
    if running.status in FAILING:
        yield Failed("stable", f"it became unhealthy {when}", reason_of(running.message), gate=gate)


def _too_slow(running: Running, limit: float, gate: Gate | None) -> Failed:
    slow = next((one for one in running.deployments if one.status != "HEALTHY"), None)
    said = (slow.message if slow else running.message).strip()
    what, why = f"did not come up within {limit:g} s", said.partition("\n")[0]
    return Failed("stable" if gate else "start", what, why, lines_of(said), slow, gate=gate)


def _is_up(running: Running) -> bool:
    return running.status == "RUNNING" and all(one.status == "HEALTHY" for one in running.deployments)


def _serving(running: Running, gate: Gate | None = None) -> dict[str, list[str]]:
    """The replicas that serve. One that is gone stays among them, unless there are to be fewer than there were."""
    return {one.name: _serving_of(one, gate.served.get(one.name, []) if gate else []) for one in running.deployments}


def _serving_of(one: DeploymentState, before: Collection[str]) -> list[str]:
    now = {replica.replica_id for replica in one.replicas if replica.state == "RUNNING"}
    known = now.union(before)
    return sorted(now if one.target is not None and one.target < len(known) else known)


def reason_of(message: str) -> str:
    """The exception in a message of Serve's, without the traceback around it."""
    lines = lines_of(message)
    errors = [line for line in lines if _ERROR.match(line)]
    return one_line(errors[-1] if errors else (lines[-1] if lines else "it did not start"))


def one_line(text: str) -> str:
    """What an app says of itself, fit for a log that is read line by line and for a terminal: nothing in it ends the
    line, is obeyed, or goes on for ever."""
    shown = "".join(letter if letter.isprintable() else " " for letter in _ANSI.sub("", text))
    short = " ".join(shown.split())
    return short if len(short) <= LONGEST_REASON else short[: LONGEST_REASON - 1] + "…"


def lines_of(message: str) -> tuple[str, ...]:
    """The end of a message, without colours."""
    lines = [line.rstrip() for line in _ANSI.sub("", message).splitlines()]
    return tuple(line for line in lines if line)[-LOG_LINES:]
