"""How a command that keeps running ends: by which signals, with which exit code, and what it then says."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest
import typer

from reconciler.cli.ending import leave
from reconciler.cli.keep import on_signals
from reconciler.cli.show import Screen
from reconciler.cli.up import _unless  # pyright: ignore[reportPrivateUsage]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def signals() -> Iterator[None]:
    """As in a process that was started in a terminal, however this one was; puts back who was called before."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
async def test_a_terminal_that_is_closed_asks_for_an_end_and_insists_on_nothing() -> None:
    """A shell and the kernel each send their own SIGHUP; what was started is stopped in its order all the same."""
    stop = asyncio.Event()
    on_signals(stop)
    assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL, "it would end us here"
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
    await asyncio.wait_for(stop.wait(), 10)
    for number in SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)


@pytest.mark.usefixtures("signals")
async def test_with_nohup_it_outlives_its_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    on_signals(asyncio.Event())
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    for number in SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)


@pytest.mark.usefixtures("signals")
def test_who_insists_on_an_end_gets_it_without_a_traceback() -> None:
    cleaned: list[str] = []

    async def work() -> int:
        on_signals(asyncio.Event())
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append("all of it")
        return 0

    with pytest.raises(typer.Exit) as ended:
        leave(Screen(), work)
    assert ended.value.exit_code == 130 and cleaned == ["all of it"]


async def test_a_stop_that_failed_is_not_told_as_done() -> None:
    stop = asyncio.Event()

    async def work() -> int:
        try:
            stop.set()
            await asyncio.sleep(60)
        finally:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        await _unless(stop, work())


async def test_a_stop_that_went_well_has_no_result() -> None:
    stop = asyncio.Event()

    async def work() -> int:
        stop.set()
        await asyncio.sleep(60)
        return 0

    assert await _unless(stop, work()) is None
