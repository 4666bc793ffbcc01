"""What is kept on Hypha, for people: the history, what happened just now, and who has the lease."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from reconciler.cli import pipe
from reconciler.cli.place import Place, opened
from reconciler.cli.show import Screen
from reconciler.cli.verbs import NotApproved
from reconciler.errors import HeldElsewhere, ReconcilerError, Remedy, Spoiled, Unreachable, in_words
from reconciler.history import DONE, FAILED, REJECTED
from reconciler.lease import TTL_S, in_turn, runs
from reconciler.planning.declare import declare
from reconciler.planning.memory import Entry, Holder
from reconciler.planning.shown import at, plain
from reconciler.ports import Hypha, Memory, World

HOUR_S = 3600.0
MOST_EVENTS = 500
POLL_S = 2.0
BAD = (FAILED, REJECTED, "spoiled")


class NothingKept(ReconcilerError):
    """There is no memory to ask, or nothing in it to do this to."""

    remedy = Remedy.OPERATOR


class StillKept(ReconcilerError):
    """Somebody else can read what we cannot."""

    remedy = Remedy.OPERATOR
    exit_code = 75


async def history(place: Place, app_id: str, screen: Screen, *, output: str, limit: int) -> int:
    async with opened(place, writes=False) as world:
        screen.masked = world.secrets.masked
        _, memory = await _kept(world)
        entries = await memory.history(limit, app_id)
    _show(entries, screen, output)
    if output == "text":
        _say_next(entries, screen)
    return 0


async def events(place: Place, app_id: str, screen: Screen, *, output: str, follow: bool) -> int:
    """What is shown is the last hour's; with `follow` it goes on until it is interrupted, or nobody reads it."""
    async with opened(place, writes=False) as world:
        screen.masked = world.secrets.masked
        _, memory = await _kept(world)
        newest = await memory.history(MOST_EVENTS, app_id)
        _show([entry for entry in reversed(newest) if entry.at > time.time() - HOUR_S], screen, output)
        if not follow and output == "text":
            _say_next(newest, screen)
        while follow and pipe.is_read():
            await asyncio.sleep(POLL_S)
            try:
                before, newest = newest, await memory.history(MOST_EVENTS, app_id)
            except Unreachable as error:
                screen.note(f"{error}; asking again", style="dim")
                continue
            if fresh := [entry for entry in reversed(newest) if entry not in before]:
                _show(fresh, screen, output, headed=False)
    return 0


async def lock(place: Place, screen: Screen) -> int:
    async with opened(place, writes=False) as world:
        cluster, memory = await _kept(world)
        holder = (await memory.read()).holder
    if holder is None:
        screen.result(f"Nobody keeps {cluster}.\n\nNext: {screen.typed('reconcile run')}")
        return 0
    screen.result(f"{cluster} is kept by {in_words(holder)}, renewed {ago(time.time() - holder.renewed)}.")
    after = "history" if _lives(holder) else "lock --release"
    if after != "history":
        screen.result("It does not seem to live any more.")
    screen.result(f"\nNext: {screen.typed(f'reconcile {after}')}")
    return 0


async def release(place: Place, screen: Screen, *, auto_approve: bool) -> int:
    """Raises HeldElsewhere when the holder lives."""
    async with opened(place, writes=True) as world:
        cluster, memory = await _kept(world)
        holder = (await memory.read()).holder
        if holder is None:
            screen.result(f"Nobody keeps {cluster}; there is nothing to release.")
            return 0
        if _lives(holder):
            raise HeldElsewhere(holder, what=f"{cluster} is not released, for the one that keeps it lives")
        _ask(f"{cluster} is kept by {in_words(holder)}. Take it away?", screen, auto_approve=auto_approve)
        async with in_turn(memory):
            remembered = await memory.read()
            if remembered.holder != holder:
                raise HeldElsewhere(remembered.holder, what=f"{cluster} went to another one meanwhile")
            await memory.write(replace(remembered, holder=None))
    screen.result(f"{cluster} is free.\n\nNext: {screen.typed('reconcile run')}")
    return 0


async def forget(place: Place, screen: Screen, *, auto_approve: bool) -> int:
    """Raises NothingKept when it can be read, StillKept when there is a reconciler that lives."""
    async with opened(place, writes=True) as world:
        cluster, hypha = await _reached(world)
        memory = _memory(cluster, hypha)
        try:
            await memory.read()
        except Spoiled as spoiled:
            await _refuse_while_kept(cluster, hypha)
            screen.note(f"{spoiled}.")
            asked = f"Start the memory of {cluster} anew? Suspensions, rollbacks and approvals are forgotten."
            _ask(asked, screen, auto_approve=auto_approve)
            await memory.start_anew()
        else:
            hint = "Orders are taken back one by one: reconcile resume APP"
            raise NothingKept(f"what is remembered of {cluster} can be read; it is kept", hint=hint)
    screen.result(f"The memory of {cluster} is empty.\n\nNext: {screen.typed('reconcile plan')}")
    return 0


def ago(seconds: float) -> str:
    """
    >>> ago(12), ago(200), ago(7300), ago(200000), ago(-5)
    ('12 s ago', '3 min ago', '2 h ago', '2 d ago', 'just now')
    """
    if seconds < 1:
        return "just now"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago"


def _lives(holder: Holder) -> bool:
    return runs(holder) is not False and abs(time.time() - holder.renewed) < TTL_S


async def _reached(world: World) -> tuple[str, Hypha]:
    """The cluster's name, and what is reached of it."""
    cluster = declare(await world.source.fetch()).cluster
    return cluster.name, world.hypha(cluster)


async def _kept(world: World) -> tuple[str, Memory]:
    """The cluster's name, and what is remembered of it. Raises NothingKept."""
    cluster, hypha = await _reached(world)
    return cluster, _memory(cluster, hypha)


def _memory(cluster: str, hypha: Hypha) -> Memory:
    if hypha.memory is None:
        raise NothingKept(f"nothing is remembered of {cluster} here", hint="Is a Hypha named in cluster.yaml?")
    return hypha.memory


async def _refuse_while_kept(cluster: str, hypha: Hypha) -> None:
    """What we cannot read may be well for a reconciler that has the right key: it would lose its lease and orders."""
    if hypha.running and await hypha.running.answers():
        hint = "Use its key: RECONCILE_KEY_FILE=FILE. If it cannot read it either: stop it, forget, and start it again."
        raise StillKept(f"a reconciler that lives keeps {cluster}; its memory is not started anew", hint=hint)


def _ask(question: str, screen: Screen, *, auto_approve: bool) -> None:
    if auto_approve:
        return
    if not sys.stdin.isatty():
        raise NotApproved("nobody to ask: stdin is no terminal", hint="Say it with --auto-approve.")
    screen.note(f"{question} Only 'yes' will be accepted.")
    if screen.err.input("  Enter a value: ").strip() != "yes":
        raise NotApproved("not approved; nothing was changed")


def _show(entries: Sequence[Entry], screen: Screen, output: str, *, headed: bool = True) -> None:
    match output:
        case "json":
            screen.document({"format_version": "1.0", "entries": [_document(entry) for entry in entries]})
        case "jsonl":
            for entry in entries:
                screen.out.file.write(screen.masked(json.dumps(_document(entry), ensure_ascii=False)) + "\n")
            screen.out.file.flush()
        case _ if entries:
            screen.show_unfolded(_table(entries, screen, headed=headed))
        case _ if headed:
            screen.result("Nothing is noted.")
        case _:
            pass


def _document(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "at": datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="seconds")}


def _table(entries: Iterable[Entry], screen: Screen, *, headed: bool) -> Table:
    """Times are of the reader's own zone."""
    table = Table(box=None, pad_edge=False, show_header=headed, header_style="bold")
    for name in ("WHEN", "", "WHO", "WHAT", "RESULT", "COMMIT", "WHY"):
        table.add_column(name)
    now = time.time()
    for entry in entries:
        when = datetime.fromtimestamp(entry.at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        style = "green" if entry.result == DONE else "red" if entry.result in BAD else "yellow"
        row = (
            *(when, ago(now - entry.at), entry.by, _what(entry)),
            *(Text(entry.result, style), entry.revision[:7], _why(entry)),
        )
        table.add_row(*(cell if isinstance(cell, Text) else Text(plain(screen.masked(cell))) for cell in row))
    return table


def _what(entry: Entry) -> str:
    """`drift of demo-app`; a step's name says its app itself."""
    return f"{entry.what} of {entry.app_id}" if entry.app_id and entry.app_id not in entry.what else entry.what


def _why(entry: Entry) -> str:
    details = entry.details
    ordered = ", ".join(_ordered(details))
    said = details.get("message") or details.get("reason") or details.get("why")
    if said is None and "changes" in details:
        said = "; ".join(f"{one['field']} {one['live']} → {one['desired']}" for one in details["changes"])
    return plain(": ".join(str(one) for one in (ordered, said or details.get("by")) if one), 160)


def _ordered(details: Mapping[str, Any]) -> Iterator[str]:
    """What an order says besides its reason."""
    if to := details.get("to"):
        yield f"to {to[:7]}"
    if until := details.get("until"):
        yield f"until {at(until)}"
    if details.get("once"):
        yield "but for one commit"


def _say_next(entries: Sequence[Entry], screen: Screen) -> None:
    bad = next((entry.app_id for entry in entries if entry.result in BAD and entry.app_id), None)
    screen.result(f"\nNext: {screen.typed(f'reconcile explain {bad}' if bad else 'reconcile get')}")
