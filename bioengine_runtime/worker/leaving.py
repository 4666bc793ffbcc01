"""How a worker takes its apps with it when it goes and was told to: those that it looks after, and no others."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from ray import serve

from bioengine_runtime.apps.record import read_records
from bioengine_runtime.gateway.names import gateway_app
from bioengine_runtime.serve_thread import in_serve_thread

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.3


class Apps(Protocol):
    """The supervisor, as far as we need it."""

    async def remove(self, app_id: str, *, owner: str, expected: str | None) -> None: ...


async def stop_apps(apps: Apps, worker: str, within_s: float) -> None:
    """Stop the apps of this worker and then its gateway; what is not gone by then goes on going."""
    try:
        async with asyncio.timeout(within_s):
            mine = {
                app_id: running.record.provenance.owner
                for app_id, running in (await read_records()).items()
                if running.record and running.record.worker == worker
            }
            await asyncio.gather(*(_remove(apps, app_id, owner) for app_id, owner in mine.items()))
            gateway = gateway_app(worker)
            await in_serve_thread(lambda: serve.delete(gateway, _blocking=False))
            while {*mine, gateway} & (await read_records()).keys():  # noqa: ASYNC110 - Serve tells nobody
                await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError:
        log.warning("event=apps_not_gone within_s=%.0f", within_s)
    except Exception as error:  # Ray may be gone already, and the apps with it
        log.warning("event=apps_not_stopped error=%s", type(error).__name__)
    else:
        log.info("event=apps_stopped count=%d", len(mine))


async def _remove(apps: Apps, app_id: str, owner: str) -> None:
    try:
        await apps.remove(app_id, owner=owner, expected=None)
    except Exception as error:  # one that does not go must not keep the others
        log.warning("event=app_not_stopped app=%s error=%s", app_id, type(error).__name__)
