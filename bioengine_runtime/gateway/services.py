"""The apps' services on Hypha, kept true to what Serve runs.

Law: an app's trouble is its own. Whatever fails for one, the others are looked after in the same look, and it is tried
again at the next one: what Hypha was told is noted when it has said yes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from bioengine_runtime.apps.record import Running
from bioengine_runtime.gateway.calls import AppCalls
from bioengine_runtime.gateway.names import rtc_name
from bioengine_runtime.gateway.offer import Offer, offer
from bioengine_runtime.hypha_session import HyphaSession
from bioengine_runtime.rpc.callers import Callers

log = logging.getLogger("ray.serve")


class Services:
    """One service per app of this worker, and one through which its WebRTC connections are opened."""

    def __init__(
        self, worker: str, session: HyphaSession, admins: Callable[[], Collection[str]], callers: Callers
    ) -> None:
        self._worker = worker
        self._session = session
        self._admins = admins
        self._callers = callers
        self._calls: dict[str, AppCalls] = {}
        self._troubles: dict[str, str] = {}
        """Service → what went wrong with it in the last look."""

    @property
    def in_flight(self) -> int:
        """Calls of all apps that have begun and not ended."""
        return sum(calls.in_flight for calls in self._calls.values())

    async def follow(self, apps: Mapping[str, Running]) -> None:
        """Offer what runs, and withdraw what does not. Raises nothing for what goes wrong with an app."""
        said, self._troubles = self._troubles, {}
        for app_id in (*apps, *(self._calls.keys() - apps.keys())):
            with self._by_itself(app_id, said):
                await self._follow(app_id, apps.get(app_id))
        for app_id, calls in self._calls.items():
            with self._by_itself(rtc_name(app_id), said):
                await self._follow_peers(calls)

    async def close_peers(self) -> None:
        await asyncio.gather(*(calls.peers.close() for calls in self._calls.values() if calls.peers is not None))

    @contextmanager
    def _by_itself(self, service: str, said: Mapping[str, str]) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of the app, of Hypha or of ours: it is all one to the other apps
            trouble = self._troubles[service] = f"{type(error).__name__}: {error}"
            if said.get(service) != trouble:  # once, not at every look
                log.warning("event=not_told service=%s error=%s", service, type(error).__name__, exc_info=True)

    async def _follow(self, app_id: str, running: Running | None) -> None:
        calls = self._calls.get(app_id)
        offered = calls is not None and calls.told is not None
        wanted = offer(running, worker=self._worker, offered=offered) if running is not None else None
        if wanted is not None:
            await self._offer(wanted)
        elif calls is not None:
            await self._withdraw(app_id, calls)

    async def _offer(self, wanted: Offer) -> None:
        calls = self._calls.get(wanted.app_id)
        if calls is None:
            calls = self._calls[wanted.app_id] = AppCalls(wanted, self._admins, self._session.service_id, self._callers)
        elif wanted != calls.offer:
            # At once, told or not: who may call is decided by it.
            calls.take_over(wanted)
            log.info("event=app_changed app=%s", wanted.app_id)
        if not wanted.looks_like(calls.told):
            await self._session.put(calls.service())
            calls.told = wanted
            log.info("event=app_offered app=%s methods=%d", wanted.app_id, len(wanted.methods))

    async def _follow_peers(self, calls: AppCalls) -> None:
        """Take WebRTC connections and close those that have gone. An app of the same name as the service goes first."""
        if calls.peers is None:
            return
        if calls.told is None or rtc_name(calls.offer.app_id) in self._calls:
            calls.takes_peers = False
        elif not calls.takes_peers:
            await self._session.put(calls.rtc_service())
            calls.takes_peers = True
        await calls.peers.sweep()

    async def _withdraw(self, app_id: str, calls: AppCalls) -> None:
        await self._session.withdraw(app_id)
        if calls.peers is not None:
            if rtc_name(app_id) not in self._calls:
                await self._session.withdraw(rtc_name(app_id))
            await calls.peers.close()
        del self._calls[app_id]
        log.info("event=app_withdrawn app=%s", app_id)
