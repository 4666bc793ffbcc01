"""history, events, lock: what is kept on Hypha, for people."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.cli import record
from reconciler.cli.pipe import Pipe
from reconciler.cli.place import Place
from reconciler.cli.show import Screen
from reconciler.errors import Spoiled
from reconciler.lease import this_host
from reconciler.planning.memory import NOTHING, Holder, Order, OrderKind, Remembered
from tests.contracts.ports import an_entry
from tests.fakes import FakeMemory, FakeSource, FakeWorld, a_repository
from tests.reconciler.test_cli import reconcile

ORDER = Order(OrderKind.SUSPEND, "one", "anna", 1.0)


@pytest.fixture
def memory() -> FakeMemory:
    memory = FakeMemory()
    now = time.time()
    memory.entries = [
        replace(an_entry(app_id="one", what="update one", why="apps/one changed"), at=now - 7300),
        replace(an_entry(app_id="two", what="deploy two", result="failed", message="disk full"), at=now - 200),
        replace(an_entry(app_id="one", what="drift", result="found", changes=[]), at=now - 12, by="ben@lab.example"),
    ]
    return memory


@pytest.fixture
def fake(memory: FakeMemory) -> FakeWorld:
    return FakeWorld(FakeSource(a_repository("one", "two")), memory=memory)


def a_holder(*, pid: int = 0, host: str = "", renewed_s_ago: float = 3.0) -> Holder:
    now = time.time()
    return Holder("anna", host or this_host(), pid or os.getppid(), 7, since=now - 60, renewed=now - renewed_s_ago)


def test_the_history_says_who_did_what_when_and_how_it_ended(fake: FakeWorld) -> None:
    result = reconcile(fake, "history")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[:1]] == ["WHEN"]
    assert "12 s ago" in lines[1] and "ben@lab.example" in lines[1] and "drift of one" in lines[1]
    assert "3 min ago" in lines[2] and "failed" in lines[2] and "disk full" in lines[2] and "ccccccc" in lines[2]
    assert "2 h ago" in lines[3] and "apps/one changed" in lines[3]
    assert result.stdout.rstrip().endswith("Next: reconcile explain two")


def test_the_history_of_one_app_for_a_program(fake: FakeWorld) -> None:
    told = json.loads(reconcile(fake, "history", "one", "-o", "json", "--limit", "1").stdout)
    assert [(entry["what"], entry["app_id"], entry["result"]) for entry in told["entries"]] == [
        ("drift", "one", "found")
    ]
    lines = reconcile(fake, "history", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["result"] for line in lines] == ["found", "failed", "done"]
    assert json.loads(lines[0])["at"].endswith("+00:00")


def test_an_entry_cannot_write_to_the_terminal(fake: FakeWorld, memory: FakeMemory) -> None:
    memory.entries = [an_entry(what="\x1b[2Jupdate", why="[red]x[/red]\n\x07")]
    assert "\x1b[2J" not in reconcile(fake, "history").stdout and "\x07" not in reconcile(fake, "history").stdout


def test_events_are_those_of_the_last_hour_newest_last(fake: FakeWorld) -> None:
    result = reconcile(fake, "events")
    assert [line.split("ago")[1].split()[0] for line in result.stdout.splitlines()[1:3]] == ["anna", "ben@lab.example"]
    assert "2 h ago" not in result.stdout


def test_the_lock_says_who_has_it(fake: FakeWorld, memory: FakeMemory) -> None:
    assert reconcile(fake, "lock").stdout.startswith("Nobody keeps lab.")
    memory.remembered = Remembered(a_holder())
    told = reconcile(fake, "lock").stdout
    assert f"lab is kept by anna (process {os.getppid()} on {this_host()})" in told and "renewed 3 s ago" in told


def test_the_lock_is_not_taken_from_one_that_lives(fake: FakeWorld, memory: FakeMemory, tmp_path: Path) -> None:
    memory.remembered = Remembered(a_holder(), (ORDER,))
    result = reconcile(fake, "lock", "--release", "--auto-approve", home=tmp_path)
    assert result.exit_code == 75 and "anna" in result.stderr
    assert memory.remembered.holder


@pytest.mark.parametrize("dead", [{"renewed_s_ago": 300.0}, {"host": "gone", "renewed_s_ago": 300.0}, {"pid": 4194305}])
def test_the_lock_is_taken_from_one_that_is_dead(
    fake: FakeWorld, memory: FakeMemory, tmp_path: Path, dead: dict[str, float]
) -> None:
    memory.remembered = Remembered(a_holder(**dead), (ORDER,))  # type: ignore[arg-type]
    asked = reconcile(fake, "lock", "--release", home=tmp_path)
    assert asked.exit_code == 3 and memory.remembered.holder
    result = reconcile(fake, "lock", "--release", "--auto-approve", home=tmp_path)
    assert result.exit_code == 0, result.stderr
    assert memory.remembered == Remembered(None, (ORDER,))


def test_rc_12_only_what_cannot_be_read_is_started_anew(fake: FakeWorld, memory: FakeMemory, tmp_path: Path) -> None:
    memory.remembered = Remembered(a_holder(), (ORDER,))
    kept = reconcile(fake, "lock", "--forget", "--auto-approve", home=tmp_path)
    assert kept.exit_code == 1 and memory.remembered.orders == (ORDER,)
    memory.fail("read", Spoiled("ws/reconcile-lab was changed by somebody", hint="Start it anew."))
    assert reconcile(fake, "lock").exit_code == 1
    assert reconcile(fake, "lock", "--forget", home=tmp_path).exit_code == 3
    assert reconcile(fake, "lock", "--forget", "--auto-approve", home=tmp_path).exit_code == 0
    assert memory.remembered == NOTHING


def test_to_release_and_to_forget_are_two_things(fake: FakeWorld, memory: FakeMemory, tmp_path: Path) -> None:
    memory.fail("read", Spoiled("ws/reconcile-lab was changed by somebody"))
    result = reconcile(fake, "lock", "--release", "--forget", "--auto-approve", home=tmp_path)
    assert result.exit_code == 2 and "say one of them" in result.stderr and not memory.writes


def test_where_nothing_is_remembered_it_says_so() -> None:
    result = reconcile(FakeWorld(FakeSource(a_repository("one"))), "history")
    assert result.exit_code == 1 and "nothing is remembered of lab" in result.stderr


async def test_following_events_shows_what_is_new_until_it_is_stopped(
    fake: FakeWorld, memory: FakeMemory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "POLL_S", 0.01)
    following = asyncio.create_task(
        record.events(Place(".", world=fake.world), "", Screen(), output="jsonl", follow=True)
    )
    await asyncio.sleep(0.05)
    memory.fail("history")
    await asyncio.sleep(0.05)
    memory.heal()
    memory.entries.append(an_entry(what="update three"))
    await asyncio.sleep(0.1)
    following.cancel()
    await asyncio.wait({following})
    shown = capsys.readouterr()
    assert [json.loads(line)["what"] for line in shown.out.splitlines()] == ["deploy two", "drift", "update three"]
    assert "no answer; asking again" in shown.err


async def test_following_events_ends_when_nobody_reads_them(fake: FakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Pipe(Gone()))
    async with asyncio.timeout(5):
        assert await record.events(Place(".", world=fake.world), "", Screen(), output="jsonl", follow=True) == 0


async def test_following_events_as_documents_writes_none_while_nothing_happens(
    fake: FakeWorld, memory: FakeMemory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "POLL_S", 0.01)
    following = asyncio.create_task(
        record.events(Place(".", world=fake.world), "", Screen(), output="json", follow=True)
    )
    await asyncio.sleep(0.1)
    memory.entries.append(an_entry(what="update three"))
    await asyncio.sleep(0.1)
    following.cancel()
    await asyncio.wait({following})
    assert capsys.readouterr().out.count("format_version") == 2
