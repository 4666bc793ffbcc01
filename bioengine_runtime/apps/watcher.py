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

from bioengine_runtime.apps import redeploying, store
from bioengine_runtime.apps.builder import Blueprint, sent_again
from bioengine_runtime.apps.deploying import Deployer
from bioengine_runtime.apps.logs import read_logs
from bioengine_runtime.apps.record import AppRecord, Running
from bioengine_runtime.apps.rollout import LOG_LINES, Failed, Settled, Waiting, judge
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
        redeploy_pause_s: float = redeploying.FIRST_PAUSE_S,
    ) -> None:
        self._worker = worker
        self._deployer = deployer
        self._look = look
        self._lock = lock
        self._on_change = on_change
        self._sweeper = Sweeper()
        self._redeploys = redeploying.Redeploys(redeploy_pause_s)
        self._wake = asyncio.Event()
        self._seen: dict[str, object] = {}

    def wake(self) -> None:
        """Something was changed: look now."""
        self._wake.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            started = time.monotonic()
            busy = True
            self._wake.clear()
            try:
                busy = await self._round()
            except Exception:  # Ray away, a slow controller: never a reason to end, nothing was decided
                log.exception("looking at the apps failed; trying again")
            pause = max(BUSY_S if busy else IDLE_S, SHARE * (time.monotonic() - started))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)

    async def _round(self) -> bool:
        apps = await self._look()
        busy = False
        for app_id, running in apps.items():
            if running.record and running.record.worker == self._worker:
                busy |= await self._follow(app_id, running)
        self._redeploys.forget_all_but(apps)
        await self._sweeper.sweep(apps)
        await self._tell(apps)
        return busy or any(running.status in ("DEPLOYING", "DELETING") for running in apps.values())

    async def _follow(self, app_id: str, running: Running) -> bool:
        """Whether there is more to come."""
        good = await good_release(app_id)
        match judge(running, good, time.time()):
            case None:
                return await self._keep_up(app_id, running, good)
            case Settled():
                assert running.record
                log.info("app=%s digest=%s up", app_id, running.record.digest[:12])
                await asyncio.to_thread(store.put, store.GOOD, app_id, running.record.release().encode())
                return False
            case Waiting():
                return True
            case Failed() as failed:
                if self._lock(app_id).locked():
                    return True  # it is being changed; the next look decides afresh
                async with self._lock(app_id):
                    return await self._reject(app_id, running, failed)

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

    async def _reject(self, app_id: str, running: Running, failed: Failed) -> bool:
        record = running.record
        now = (await self._look()).get(app_id)
        if record is None or now is None or now.record != record:
            return True
        known = await rejection_of(app_id)
        tried = (record.digest, record.secret_fingerprints)
        if known is None or (known.digest, known.secret_fingerprints) != tried:
            rejection = await _rejection(record, failed)
            log.warning("app=%s digest=%s rejected: %s", app_id, record.digest[:12], rejection.reason)
            await asyncio.to_thread(store.put, store.REJECTED, app_id, rejection.model_dump_json().encode())
        if record.previous is None:
            return False
        return await self._put_back(app_id, record.previous)

    async def _put_back(self, app_id: str, previous: AppRecord) -> bool:
        kept = await asyncio.to_thread(store.get, store.BLUEPRINT, previous.blueprint)
        if kept is None:
            log.error("app=%s cannot go back: the blueprint %s is gone", app_id, previous.blueprint)
            return False
        await self._deployer.deploy(app_id, previous.blueprint, Blueprint.from_bytes(kept).deployments)
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


async def good_release(app_id: str) -> str | None:
    """The release that was last seen to be up."""
    kept = await asyncio.to_thread(store.get, store.GOOD, app_id)
    return kept.decode() if kept else None


async def rejection_of(app_id: str) -> Rejection | None:
    """What was tried last and did not come up."""
    kept = await asyncio.to_thread(store.get, store.REJECTED, app_id)
    return Rejection.model_validate_json(kept) if kept else None


async def _rejection(record: AppRecord, failed: Failed) -> Rejection:
    lines = list(failed.lines)
    if failed.deployment and failed.deployment.dead:
        last = max(failed.deployment.dead, key=lambda replica: replica.started_at or 0.0)
        said = await read_logs([last], LOG_LINES)
        for written in said.get(last.replica_id, {}).values():
            lines = written + lines
    return Rejection(
        digest=record.digest,
        secret_fingerprints=record.secret_fingerprints,
        reason=failed.reason,
        log_lines=lines[-2 * LOG_LINES :],
        at=time.time(),
    )
