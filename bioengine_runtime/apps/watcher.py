"""Follows every version until it is known to be good, and puts the last good one back when it is not.

Level-triggered: each look decides from what Ray holds, so a worker that was killed goes on where it stood. Each step
may be repeated: the rejection is written before the old version is sent, and is found again if we die between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from bioengine_runtime.apps import marks, redeploying, store
from bioengine_runtime.apps.builder import Blueprint, recorded_as, sent_again
from bioengine_runtime.apps.clocks import Clocks
from bioengine_runtime.apps.deploying import Deployer
from bioengine_runtime.apps.disks import DiskSweeper
from bioengine_runtime.apps.judging import FAILING, LOG_LINES, Asking, Failed, Settled, Waiting, judge, reason_of
from bioengine_runtime.apps.logs import read_logs
from bioengine_runtime.apps.prepare import Places
from bioengine_runtime.apps.probing import Probes
from bioengine_runtime.apps.record import AppRecord, Replica, Running, all_readable
from bioengine_runtime.apps.rollout import for_whom_both_let_in
from bioengine_runtime.apps.sweeping import Sweeper
from bioengine_runtime.contract.status import Rejection

BUSY_S = 0.5
IDLE_S = 5.0
SHARE = 20
"""Reading takes the controller about 9 ms per app; we rest this many times as long as we read."""

log = logging.getLogger(__name__)


class Watcher:
    """One task. `look` reads everything that runs; `lock` guards one app against a change from elsewhere."""

    def __init__(
        self,
        *,
        worker: str,
        deployer: Deployer,
        look: Callable[[], Awaitable[dict[str, Running]]],
        lock: Callable[[str], asyncio.Lock],
        on_change: Callable[[], Awaitable[None]] | None,
        places: Places,
        redeploy_pause_s: float = redeploying.FIRST_PAUSE_S,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._worker = worker
        self._deployer = deployer
        self._look = look
        self._lock = lock
        self._on_change = on_change
        self._sweeper = Sweeper()
        self._disks = DiskSweeper(places)
        self._probes = Probes(self.wake)
        self._clocks = Clocks(wall_clock)
        self._rejected: set[str] = set()
        self._redeploys = redeploying.Redeploys(redeploy_pause_s)
        self._wake = asyncio.Event()
        self._seen: dict[str, object] = {}

    def wake(self) -> None:
        """Something was changed: look now."""
        self._wake.set()

    async def run(self) -> None:
        """For ever."""
        try:
            while True:
                busy, read_s, started = True, 0.0, time.monotonic()
                self._wake.clear()
                try:
                    apps = await self._look()
                    read_s = time.monotonic() - started
                    busy = await self._round(apps)
                except Exception:  # Ray away, a slow controller: never a reason to end, nothing was decided
                    log.exception("looking at the apps failed; trying again")
                    read_s = time.monotonic() - started
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), max(BUSY_S if busy else IDLE_S, SHARE * read_s))
        finally:
            await self._probes.stop()
            await self._disks.stop()

    async def _round(self, apps: dict[str, Running]) -> bool:
        busy = False
        self._rejected = set(await asyncio.to_thread(store.names, store.REJECTED))
        for app_id, running in apps.items():
            if running.record is None or running.record.worker != self._worker:
                continue
            try:
                busy |= await self._follow(running.record, running)
            except Exception:  # one app's trouble is no other's
                log.exception("app=%s could not be looked after; trying again", app_id)
        self._redeploys.forget_all_but(apps)
        self._clocks.forget_all_but(apps)
        if all_readable(apps.values()):
            await self._sweeper.sweep(apps)
            self._disks.sweep(apps)
        await self._tell(apps)
        return busy or any(running.status in ("DEPLOYING", "DELETING") for running in apps.values())

    async def _follow(self, record: AppRecord, running: Running) -> bool:
        """Whether there is more to come."""
        app_id, release = running.app_id, record.release()
        good = await asyncio.to_thread(marks.read_good, app_id)
        if good and good.release == release:
            await self._returned(record, running)
            return await self._keep_up(app_id, running, release)
        gate = await asyncio.to_thread(marks.read_gate, app_id)
        now = self._clocks.now(record)
        verdict = judge(running, good and good.release, gate, now)
        if isinstance(verdict, Waiting) and verdict.keep:
            await asyncio.to_thread(marks.keep_gate, app_id, verdict.keep)
            verdict = judge(running, good and good.release, verdict.keep, now)
        if isinstance(verdict, Asking):
            verdict = await self._ask(record, verdict)
        match verdict:
            case None:
                return False
            case Settled():
                log.info("app=%s digest=%s good", app_id, record.digest[:12])
                took_s = max(now - record.asked_at, 0.0) if record.asked_at else None
                await asyncio.to_thread(marks.keep_good, app_id, marks.Good(release, took_s))
                return False
            case Failed() as failed:
                if self._lock(app_id).locked():
                    return True  # it is being changed; the next look decides afresh
                async with self._lock(app_id):
                    return await self._reject(app_id, record, failed)
            case _:
                return True

    async def _ask(self, record: AppRecord, asking: Asking) -> Failed | Waiting:
        match self._probes.answer(record, asking.probe):
            case None:
                return Waiting()
            case "":
                passed = asking.gate.model_copy(update={"probed": True})
                await asyncio.to_thread(marks.keep_gate, record.spec.app_id, passed)
                self.wake()
                return Waiting()
            case wrong:
                return Failed("probe", f"the probe {asking.probe.method} {wrong}", gate=asking.gate)

    async def _returned(self, record: AppRecord, running: Running) -> None:
        """Note what became of going back to this version, once that is known. No way back is tried twice."""
        app_id = running.app_id
        if app_id not in self._rejected:
            return
        rejection = await asyncio.to_thread(marks.read_rejection, app_id)
        if rejection is None or rejection.rollback != "under way":
            return
        if running.status == "RUNNING":
            await self._note_return(app_id, rejection, rejection.model_copy(update={"rollback": "done"}))
        elif running.status in FAILING:
            failed = running.failed()
            why = reason_of(failed.message if failed else running.message)
            log.error("app=%s digest=%s is back and does not come up either: %s", app_id, record.digest[:12], why)
            await self._note_return(app_id, rejection, _not_back(rejection, why))

    async def _note_return(self, app_id: str, before: Rejection, after: Rejection) -> None:
        """Unless the app was changed meanwhile, and what was rejected is no more."""
        async with self._lock(app_id):
            if await asyncio.to_thread(marks.read_rejection, app_id) == before:
                await asyncio.to_thread(marks.keep_rejection, app_id, after)

    async def _keep_up(self, app_id: str, running: Running, good: str | None) -> bool:
        """Look after one that was good. Serve replaces replicas that break; what it gives up, we may send again."""
        match await self._redeploys.due(running, good):
            case redeploying.Later():
                return True
            case redeploying.Recovered():
                await redeploying.forget(app_id)
            case redeploying.Again(tries):
                if not self._lock(app_id).locked():
                    async with self._lock(app_id):
                        await self._send_again(app_id, running, tries)
                return True
            case redeploying.Enough() | None:
                pass
        return False

    async def _send_again(self, app_id: str, running: Running, tries: redeploying.Tries) -> None:
        record = running.record
        now = (await self._look()).get(app_id)
        if record is None or now is None or (now.record, now.status) != (record, running.status):
            return
        kept = await asyncio.to_thread(store.get, store.BLUEPRINT, record.blueprint)
        if kept is None:
            log.error("app=%s cannot be sent again: the blueprint %s is gone", app_id, record.blueprint)
            return
        await redeploying.keep(app_id, tries)
        again = sent_again(Blueprint.from_bytes(kept).deployments, f"{tries.at:.0f}-{tries.count}")
        await self._deployer.deploy(app_id, record.blueprint, again)
        log.warning("app=%s status=%s sent again try=%d", app_id, running.status, tries.count)

    async def _reject(self, app_id: str, record: AppRecord, failed: Failed) -> bool:
        """Note it, and go back unless it is to stay. Whether there is more to come."""
        known = await asyncio.to_thread(marks.read_rejection, app_id)
        if known and not _is_of(known, record):
            known = None
        previous = None if failed.gate and not record.spec.rollout.rollback else record.previous
        back = for_whom_both_let_in(previous, record) if previous else None
        if known and (back is None or known.rollback == "failed"):
            return False
        now = (await self._look()).get(app_id)
        if now is None or now.record != record:
            return True
        if failed.gate and not failed.gate.failed:
            gate = failed.gate.model_copy(update={"failed": (failed.name, failed.reason())})
            await asyncio.to_thread(marks.keep_gate, app_id, gate)
        if known is None:
            known = await _rejection(record, failed, now, going_back=back is not None)
            log.warning("app=%s digest=%s rejected gate=%s: %s", app_id, record.digest[:12], known.gate, known.reason)
            await asyncio.to_thread(marks.keep_rejection, app_id, known)
        return await self._put_back(app_id, back, known) if back else False

    async def _put_back(self, app_id: str, previous: AppRecord, rejection: Rejection) -> bool:
        kept = await asyncio.to_thread(store.get, store.BLUEPRINT, previous.blueprint)
        if kept is None:
            log.error("app=%s cannot go back: the blueprint %s is gone", app_id, previous.blueprint)
            why = "what it was deployed from is gone; deploy another version"
            await asyncio.to_thread(marks.keep_rejection, app_id, _not_back(rejection, why))
            return False
        plan = recorded_as(Blueprint.from_bytes(kept), previous)
        # Kept before it is sent: whoever sends it again is not to bring back callers that were shut out.
        await asyncio.to_thread(store.put, store.BLUEPRINT, previous.blueprint, plan.to_bytes())
        await self._deployer.deploy(app_id, previous.blueprint, plan.deployments)
        log.warning("app=%s back on digest=%s", app_id, previous.digest[:12])
        return True

    async def _tell(self, apps: dict[str, Running]) -> None:
        """Whoever listens hears of a change once."""
        seen: dict[str, object] = {
            app_id: (running.status, running.record and running.record.blueprint) for app_id, running in apps.items()
        }
        if seen != self._seen:
            self._seen = seen
            if self._on_change:
                await self._on_change()


def _is_of(rejection: Rejection, record: AppRecord) -> bool:
    return (rejection.digest, rejection.secret_fingerprints) == (record.digest, record.secret_fingerprints)


def _not_back(rejection: Rejection, why: str) -> Rejection:
    reason = f"{rejection.reason}; the last good version cannot be brought back: {why}"
    return rejection.model_copy(update={"rollback": "failed", "reason": reason})


async def _rejection(record: AppRecord, failed: Failed, running: Running, *, going_back: bool) -> Rejection:
    lines, fault = list(failed.lines), ""
    if teller := _teller(record, failed, running):
        written = (await read_logs([teller], LOG_LINES)).get(teller.replica_id, {})
        lines = [line for stream in reversed(written.values()) for line in stream] + lines
        fault = await asyncio.to_thread(marks.read_fault, running.app_id, teller)
    return Rejection(
        digest=record.digest,
        secret_fingerprints=record.secret_fingerprints,
        reason=failed.reason(fault),
        log_lines=lines[-2 * LOG_LINES :],
        at=time.time(),
        gate=failed.name,
        rollback="under way" if going_back else "none",
    )


def _teller(record: AppRecord, failed: Failed, running: Running) -> Replica | None:
    """The replica whose log tells most. Those that run may be of the version before, unless they are at the gate."""
    name = failed.deployment.name if failed.deployment else record.entry
    one = next((one for one in running.deployments if one.name == name), None)
    if failed.replica or one is None:
        return failed.replica
    served = failed.gate.served.get(name, []) if failed.gate else None
    known = one.dead if served is None else [r for r in (*one.replicas, *one.dead) if r.replica_id in served]
    return max(known, key=lambda replica: replica.started_at or 0.0, default=None)
