"""`reconcile run`: passes until somebody says stop, and every door that is asked for; `up` uses its middle."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

from reconciler.board import Board
from reconciler.cli.doors import Doors
from reconciler.cli.keeper import Keeper
from reconciler.cli.outlets import Outlets
from reconciler.cli.place import Front, Place, alone, opened
from reconciler.cli.show import Screen
from reconciler.telling.metrics import Metrics, scraped
from reconciler.triggers.event import Followed


async def run(place: Place, screen: Screen, *, interval_s: float | None, doors: Doors, outlets: Outlets) -> int:
    stop = asyncio.Event()
    on_signals(stop)
    front = Front(Board(lambda text: screen.masked(text)))
    metrics = Metrics()
    notifier = outlets.notifier(lambda text: screen.masked(text), metrics.notified)
    with alone(place.home):
        async with opened(place, writes=True, front=front) as world, notifier, AsyncExitStack() as ends:
            screen.masked = world.secrets.masked
            keeper = Keeper(world, asyncio.Event(), interval_s, metrics, notifier)
            await show(keeper, front, doors, place, screen, ends)
            await keeper.keep(stop)
    return 0


async def show(keeper: Keeper, front: Front, doors: Doors, place: Place, screen: Screen, ends: AsyncExitStack) -> None:
    """Open what is to be listened at, on this machine and on Hypha, until `ends`."""
    from reconciler.adapters.status.web import Web
    from reconciler.page.application import application, shown

    front.orders = keeper.orders
    front.web.append(Web("page", application(front.board, keeper.history, live=False)))
    if doors.webhook_secret_file:
        from reconciler.triggers import receiver as webhooks

        followed = Followed.of(place.repository, place.ref)
        receiver = webhooks.Receiver(followed, doors.webhook_secret_file, keeper.wake, keeper.metrics.delivery)
        front.web.append(Web("webhook", webhooks.application(receiver), public=True))
        if at := doors.webhook:
            port = await ends.enter_async_context(webhooks.listening(receiver, at.host, at.port))
            screen.note(f"Webhooks are heard on http://{at.host}:{port}{webhooks.PATH}")
    if at := doors.page:
        port = await ends.enter_async_context(shown(front.board, keeper.history, at.host, at.port))
        screen.note(f"Status page: http://{at.host}:{port}/")
    if at := doors.metrics:
        port = await ends.enter_async_context(scraped(keeper.metrics, at.host, at.port))
        screen.note(f"Metrics: http://{at.host}:{port}/metrics")


def on_signals(stop: asyncio.Event) -> None:
    """SIGINT and SIGTERM ask for an end; a second one insists on it. A terminal that is closed asks, too, in as many
    SIGHUPs as it likes; but not who was started with nohup."""
    running = asyncio.get_running_loop()
    task = asyncio.current_task()

    def ask() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        running.add_signal_handler(number, ask)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        running.add_signal_handler(signal.SIGHUP, stop.set)
