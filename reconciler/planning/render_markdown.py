"""A plan as the comment under a pull request: found again by its hidden marker, and safe with any text from anywhere.

Text of the repository stands in `<code>` or `<pre>` with every character that Markdown, HTML or a mention could use
written as an entity, so a commit message can neither format nor notify.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from reconciler.planning.render_text import (
    NOT_KNOWN_OFFLINE,
    effect_text,
    heading,
    interruptions,
    summary,
    supposition,
)
from reconciler.planning.render_text import render as render_text
from reconciler.planning.shown import count, plain
from reconciler.planning.steps import DeployApp, Held, Plan, ScaleWorkers, Step, StopApp, UpdateApp
from reconciler.planning.timing import waves

LIMIT = 65_536
"""Characters that a comment may have."""

ROWS = 100
CELL_LIMIT = 160
GATE_LIMIT = 300
_ROOM_FOR_FRAME = 600
_SPECIAL = re.compile(r"[^A-Za-z0-9 ,;=→…±≥≤·]")


def marker(cluster: str) -> str:
    """By which the comment is found and replaced: `<!-- reconcile:prod -->`."""
    return f"<!-- reconcile:{re.sub(r'[^a-z0-9-]', '', cluster)} -->"


def render(plan: Plan) -> str:
    """The comment; never longer than a comment may be."""
    head = "\n".join(_head(plan))
    tail = f"\n\n{_ending(plan)}\n"
    room = LIMIT - len(head) - len(tail) - _ROOM_FOR_FRAME
    return head + _details(render_text(plan, command="").plain, room) + tail


def _ending(plan: Plan) -> str:
    if plan.since:
        return f"for {code(plan.revision.short)}; what is applied is planned anew, from what runs then."
    named = f"plan {code(plan.id)} for " if plan.id else ""
    return f"{named}{code(plan.revision.short)}; it is made again from what runs when it is applied."


def code(text: str, limit: int = CELL_LIMIT) -> str:
    """Text as it is, in a code element, whatever it holds."""
    return f"<code>{_SPECIAL.sub(_entity, plain(text, limit))}</code>" if text else ""


def _entity(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"


def _head(plan: Plan) -> Iterator[str]:
    yield marker(plan.cluster)
    missed = interruptions(plan)
    extra = f" {count(len(missed), 'interruption')}." if missed else ""
    offline = ", offline" if plan.since else ""
    yield f"### reconcile {code(plan.cluster)}{offline}: {summary(plan).partition(': ')[2]}{extra}"
    yield ""
    if plan.since:
        yield f"**Offline plan:** nobody was asked what runs. Supposed: {code(supposition(plan.since))}."
        yield f"Not known: {NOT_KNOWN_OFFLINE}."
        yield ""
    if plan.unseen:
        seen_not = ", ".join(code(unseen.what) for unseen in plan.unseen)
        yield f"**Incomplete:** {seen_not} could not be seen; nothing is said about what could not be seen."
        yield ""
    if plan.gate:
        yield f"**Waits ({plan.gate.reason}):** {code(plan.gate.message, GATE_LIMIT)}"
        yield ""
    wave = waves(plan)
    many = max(wave.values(), default=1) > 1
    steps = [row for step in plan.steps if (row := _step(step, wave.get(step.app_id or "", 1) if many else 0))]
    rows = steps + [_held(held) for held in plan.held]
    if not rows:
        yield "Nothing to do."
        return
    yield "| | app | action | because | effect |"
    yield "|---|---|---|---|---|"
    yield from rows[:ROWS]
    if len(rows) > ROWS:
        yield ""
        yield f"… and {count(len(rows) - ROWS, 'more row')}."


def _step(step: Step, wave: int) -> str | None:
    if not isinstance(step.verb, ScaleWorkers | DeployApp | UpdateApp | StopApp):
        return None
    symbol, word = heading(step)
    word += f" · wave {wave}" if wave else ""
    return _row(code(symbol), code(step.app_id or "workers"), word, code(step.why), code(effect_text(step.effect)))


def _held(held: Held) -> str:
    return _row(code("?"), code(held.app_id), f"held: {held.reason}", code(held.message), code(held.fix))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _details(text: str, room: int) -> str:
    lines = [html.escape(line) for line in text.splitlines()]
    kept = _fitting(lines, room)
    cut = [f"… {count(len(lines) - len(kept), 'more line')} not shown"] if len(kept) < len(lines) else []
    body = "\n".join(kept + cut)
    return f"\n\n<details><summary>The whole plan</summary>\n\n<pre>\n{body}\n</pre>\n\n</details>"


def _fitting(lines: list[str], room: int) -> list[str]:
    for at, line in enumerate(lines):
        room -= len(line) + 1
        if room < 0:
            return lines[:at]
    return lines
