"""One writer at a time (RX-01 … RX-03), on a memory that both can write."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from reconciler.errors import HeldElsewhere, LeaseLost, Unreachable
from reconciler.lease import Lease, change, runs, this_host
from reconciler.planning.memory import NOTHING, Holder, Order, OrderKind, Remembered
from tests.fakes import FakeMemory

ORDER = Order(OrderKind.SUSPEND, "demo", "anna", 1.0)
ALIVE = os.getppid()
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]


class Clock:
    """Wall time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def a_lease(name: str, clock: Clock, *, host: str = "", pid: int = ALIVE, ttl_s: float = 60.0) -> Lease:
    return Lease(name, ttl_s=ttl_s, settle_s=0.01, clock=clock, host=host or this_host(), pid=pid)


def a_dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


async def test_rx_01_a_second_one_is_told_who_has_it() -> None:
    memory, clock = FakeMemory(), Clock()
    held = await a_lease("anna", clock).hold(memory)
    clock.now += 20
    with pytest.raises(HeldElsewhere) as refused:
        await a_lease("ben", clock, pid=1).hold(memory)
    assert refused.value.exit_code == 75 and refused.value.holder == held
    assert f"anna (process {ALIVE} on {this_host()}) since 2023-11-14 22:13 UTC" in str(refused.value)
    assert memory.remembered.holder == held


async def test_rx_01_of_two_that_reach_for_it_at_once_one_has_it() -> None:
    memory, clock = FakeMemory(), Clock()
    leases = [a_lease(f"r{n}", clock, host=f"h{n}") for n in range(5)]
    got = await asyncio.gather(*(lease.hold(_Apart(memory)) for lease in leases), return_exceptions=True)
    holders = [one for one in got if isinstance(one, Holder)]
    assert holders == [memory.remembered.holder]
    assert {type(one) for one in got} == {Holder, HeldElsewhere}


class _Apart(FakeMemory):
    """The same memory from another process: it shares what is kept, and no lock."""

    def __init__(self, shared: FakeMemory) -> None:
        super().__init__()
        self._shared = shared

    async def read(self) -> Remembered:
        await asyncio.sleep(0)
        return self._shared.remembered

    async def write(self, remembered: Remembered) -> None:
        await asyncio.sleep(0)
        self._shared.remembered = remembered


async def test_rx_02_one_that_was_paused_writes_nothing_more() -> None:
    memory, clock = FakeMemory(), Clock()
    paused, next_one = a_lease("paused", clock), a_lease("next", clock, pid=1)
    first = await paused.hold(memory)
    await paused.still(memory)
    clock.now += 300
    second = await next_one.hold(memory)
    assert second.epoch > first.epoch
    with pytest.raises(LeaseLost, match="next") as lost:
        await paused.still(memory)
    assert lost.value.exit_code == 75 and lost.value.holder == second
    with pytest.raises(LeaseLost):  # also when the other one has gone: what was planned before is not done after
        await next_one.let_go(memory)
        await paused.hold(memory)
    assert memory.remembered.holder is None


async def test_rx_02_once_lost_it_stays_lost() -> None:
    memory, clock = FakeMemory(), Clock()
    lease = a_lease("anna", clock)
    held = await lease.hold(memory)
    memory.remembered = Remembered(replace(held, name="next", epoch=held.epoch + 1))
    with pytest.raises(LeaseLost):
        await lease.still(memory)
    memory.remembered = Remembered(held)  # even if it came back, what was planned before must not be done after
    for ask in (lease.still, lease.hold):
        with pytest.raises(LeaseLost, match="next"):
            await ask(memory)


async def test_rx_02_a_lease_that_ran_out_is_kept_when_nobody_took_it() -> None:
    memory, clock = FakeMemory(), Clock()
    lease = a_lease("anna", clock)
    first = await lease.hold(memory)
    clock.now += 300
    await lease.still(memory)
    assert memory.remembered.holder == replace(first, renewed=clock.now)


async def test_one_that_died_on_this_machine_is_followed_at_once() -> None:
    memory, clock = FakeMemory(), Clock()
    await a_lease("dead", clock, pid=a_dead_pid()).hold(memory)
    await change(memory, a_lease("next", clock), lambda remembered: replace(remembered, orders=(ORDER,)))
    holder = memory.remembered.holder
    assert holder and holder.name == "next" and memory.remembered.orders == (ORDER,)


async def test_a_machine_of_the_same_name_is_another_one() -> None:
    """Copies of one virtual machine: the process is not looked for on the wrong one, where nothing has its id."""
    memory, clock = FakeMemory(), Clock()
    there = this_host().replace(BOOT, "01234567")
    held = await a_lease("ubuntu", clock, host=there, pid=a_dead_pid()).hold(memory)
    with pytest.raises(HeldElsewhere):
        await a_lease("ubuntu", clock).hold(memory)
    assert memory.remembered.holder == held


async def test_rr_06_a_holder_elsewhere_whose_clock_is_wrong_is_not_taken_for_dead() -> None:
    memory, clock = FakeMemory(), Clock()
    other = Holder("far", "gn02", 1, 5, since=clock.now - 3600, renewed=clock.now - 3600)
    memory.remembered = Remembered(other)
    lease = a_lease("near", clock, ttl_s=0.15)
    taking = asyncio.create_task(lease.hold(memory))
    await asyncio.sleep(0.03)
    memory.remembered = Remembered(replace(other, renewed=other.renewed + 1))  # it goes on, an hour behind us
    with pytest.raises(HeldElsewhere):
        await taking
    assert (await lease.hold(memory)).name == "near"  # and now it does not


async def test_a_pass_that_does_nothing_asks_nobody_and_renews_at_half_time() -> None:
    memory, clock = FakeMemory(), Clock()
    lease = a_lease("anna", clock)
    await lease.hold(memory)
    memory.calls.clear()
    clock.now += 29
    await lease.hold(memory)
    assert memory.calls == []
    clock.now += 2
    await lease.hold(memory)
    assert memory.calls == ["read", "write"]


async def test_it_is_renewed_while_something_lasts_and_let_go_at_the_end() -> None:
    memory = FakeMemory()
    async with Lease("anna", ttl_s=0.06, settle_s=0.0) as lease:
        first = await lease.hold(memory)
        await asyncio.sleep(0.2)
        assert memory.remembered.holder and memory.remembered.holder.renewed > first.renewed + 0.06
    assert memory.remembered.holder is None


async def test_nobody_who_cannot_ask_writes() -> None:
    memory, clock = FakeMemory(), Clock()
    lease = a_lease("anna", clock)
    await lease.hold(memory)
    memory.fail("read")
    with pytest.raises(Unreachable):
        await lease.still(memory)
    memory.heal()
    await lease.still(memory)


async def test_an_epoch_never_comes_again() -> None:
    memory, clock = FakeMemory(), Clock()
    first, epochs = a_lease("a", clock), list[int]()
    for name in ("a", "b", "c"):
        lease = a_lease(name, clock)
        epochs.append((await lease.hold(memory)).epoch)
        await lease.let_go(memory)
        clock.now += 1
    assert sorted(set(epochs)) == epochs
    assert (await first.hold(memory)).epoch > epochs[-1]


async def test_two_changes_at_once_both_stand() -> None:
    memory, lease = FakeMemory(), a_lease("anna", Clock())
    memory.delay_s = 0.01
    await asyncio.gather(
        change(memory, lease, lambda remembered: replace(remembered, orders=(ORDER,))),
        change(memory, lease, lambda remembered: replace(remembered, seconds={"demo": (1.0,)})),
    )
    assert memory.remembered.orders == (ORDER,) and memory.remembered.seconds == {"demo": (1.0,)}


async def test_rx_02_who_was_overtaken_since_the_last_renewal_changes_nothing() -> None:
    memory, lease = FakeMemory(), a_lease("anna", Clock())
    held = await lease.hold(memory)
    memory.remembered = Remembered(replace(held, name="next", epoch=held.epoch + 1))
    with pytest.raises(LeaseLost, match="next"):
        await change(memory, lease, lambda remembered: replace(remembered, orders=(ORDER,)))
    assert memory.remembered.orders == () and "write" not in memory.calls[2:]
    with pytest.raises(LeaseLost, match="next"):  # without a question: what was planned before is not done after
        await lease.hold(memory)


async def test_one_answer_that_nobody_understands_does_not_end_the_renewing(caplog: pytest.LogCaptureFixture) -> None:
    memory = FakeMemory()
    async with Lease("anna", ttl_s=0.06, settle_s=0.0) as lease:
        first = await lease.hold(memory)
        memory.fail("read", ValueError("canary"))
        await asyncio.sleep(0.1)
        memory.heal()
        await asyncio.sleep(0.1)
        assert memory.remembered.holder and memory.remembered.holder.renewed > first.renewed + 0.06
    assert "why=ValueError" in caplog.text and "canary" not in caplog.text


async def test_letting_go_does_not_take_it_from_the_next_one() -> None:
    memory, clock = FakeMemory(), Clock()
    late, next_one = a_lease("late", clock), a_lease("next", clock, pid=1)
    await late.hold(memory)
    clock.now += 100
    held = await next_one.hold(memory)
    await late.let_go(memory)
    assert memory.remembered.holder == held


def test_a_process_is_known_only_where_it_runs() -> None:
    here, far = this_host(), "elsewhere"
    holder = Holder("a", here, ALIVE, 1, 0.0, 0.0)
    assert runs(holder) is True
    assert runs(replace(holder, pid=a_dead_pid())) is False
    assert runs(replace(holder, pid=os.getpid())) is False  # of a former life, since it is not ours
    assert runs(replace(holder, host=far)) is None


async def test_rx_02_a_real_process_that_was_stopped_is_fenced_when_it_goes_on(tmp_path: Path) -> None:
    """SIGSTOP for longer than the lease; the memory is a file that both processes see."""
    memory = FileMemory(tmp_path / "memory.json")
    program = f"import asyncio; from tests.reconciler import test_lease as t; asyncio.run(t.stopped({str(tmp_path)!r}))"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdin and process.stdout
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"held\n"
        process.send_signal(signal.SIGSTOP)
        lease = Lease("next", ttl_s=0.5, settle_s=0.01)
        await asyncio.sleep(0.6)
        await lease.hold(memory)
        process.send_signal(signal.SIGCONT)
        said, _ = await asyncio.wait_for(process.communicate(b"go\n"), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert said == b"fenced by next\n"


async def stopped(folder: str) -> None:
    """The other process: holds the lease, is stopped while it waits for a word, and then wants to write."""
    memory = FileMemory(Path(folder) / "memory.json")
    lease = Lease("stopped", ttl_s=0.5, settle_s=0.01)
    await lease.hold(memory)
    print("held", flush=True)
    sys.stdin.readline()
    try:
        await lease.still(memory)
    except LeaseLost as lost:
        print(f"fenced by {lost.holder.name if lost.holder else 'nobody'}")


class FileMemory(FakeMemory):
    """A memory that processes share."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    async def read(self) -> Remembered:
        return self._kept()

    async def write(self, remembered: Remembered) -> None:
        self._keep(remembered)

    def _kept(self) -> Remembered:
        return TypeAdapter(Remembered).validate_json(self._file.read_text()) if self._file.exists() else NOTHING

    def _keep(self, remembered: Remembered) -> None:
        fresh = self._file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(asdict(remembered)))
        fresh.replace(self._file)
