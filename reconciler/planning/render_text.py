"""A plan as text for a terminal: cause first, then what changes, the steps, and what callers will notice.

Colour repeats what a symbol or a word says already; nothing is said by colour alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import assert_never

from rich.text import Text

from bioengine_runtime.contract.base import ENTIRE
from bioengine_runtime.contract.manifest import AuthorizedUsers
from reconciler.planning.shown import at, count, duration, listed, plain, size
from reconciler.planning.source import Revision
from reconciler.planning.steps import (
    Action,
    Change,
    DeployApp,
    Effect,
    Held,
    Impact,
    Plan,
    PrepareRuntimeEnv,
    Reason,
    ScaleWorkers,
    Step,
    StopApp,
    UpdateApp,
    UploadArtifact,
    Verb,
)
from reconciler.planning.timing import longest_path, waves

SYMBOLS: Mapping[Impact, tuple[str, str]] = {
    Impact.NONE: ("~", "yellow"),
    Impact.CREATE: ("+", "green"),
    Impact.IN_PLACE: ("~", "yellow"),
    Impact.ROLLING_RESTART: ("^", "yellow"),
    Impact.INTERRUPTION: ("-/+", "magenta"),
    Impact.DELETE: ("-", "red"),
}
WORDS: Mapping[Impact, str] = {Impact.NONE: "set bounds", Impact.DELETE: "stop"}
HELD_SYMBOLS: Mapping[Action, str] = {
    Action.CREATE: "+",
    Action.UPDATE: "~",
    Action.STOP: "-",
    Action.SCALE: "~",
    Action.UNKNOWN: "?",
}
DRIFT = "!"
EVERYBODY = "*"
LEGEND = "+ create   ~ in place   ^ rolling restart   -/+ interruption   - stop   ! drift   ? not known"
MESSAGE_LIMIT = 400

Line = tuple[tuple[str, str], ...]
"""One line as (text, style) pairs."""


def render(plan: Plan, *, command: str) -> Text:
    """The whole plan; `command` is what to type next, and the last line."""
    text = Text()
    for line in _lines(plan, command):
        for content, style in line:
            text.append(plain(content), style=style or None)
        text.append("\n")
    text.rstrip()
    return text


def differences(plan: Plan) -> Iterator[Text]:
    """Only what differs, app by app, whether something is done about it or not."""
    for step in plan.steps:
        if isinstance(step.verb, ScaleWorkers | DeployApp | UpdateApp | StopApp):
            symbol, word = heading(step)
            yield _text_of(_title(symbol, step.app_id or "workers", word, SYMBOLS[step.effect.impact][1]))
            yield from (_text_of(_change(change)) for change in step.changes)
    for held in plan.held:
        yield _text_of(_title(HELD_SYMBOLS[held.action], held.app_id, f"HELD {held.reason}", "cyan"))
        yield from (_text_of(_change(change)) for change in held.changes)


def _text_of(line: Line) -> Text:
    return Text.assemble(*((plain(content), style) for content, style in line))


def summary(plan: Plan) -> str:
    """`Plan: 2 to create, 1 to update, 0 to stop; 1 held.`, or `Offline plan: …`"""
    verbs = [step.verb for step in plan.steps]
    parts = [
        f"{sum(isinstance(verb, DeployApp) for verb in verbs)} to create",
        f"{sum(isinstance(verb, UpdateApp) for verb in verbs)} to update",
        f"{sum(isinstance(verb, StopApp) for verb in verbs)} to stop",
    ]
    if any(isinstance(verb, ScaleWorkers) for verb in verbs):
        parts.append("worker bounds to set")
    held = f"; {len(plan.held)} held" if plan.held else ""
    word = "Offline plan" if plan.since else "Plan"
    return f"{word}: {', '.join(parts)}{held}."


def interruptions(plan: Plan) -> tuple[str, ...]:
    """`model-runner (time not known)` for each app that callers will miss for a while."""
    return tuple(
        f"{step.app_id} ({_about(step.effect.interruption_s)})"
        for step in plan.steps
        if step.effect.impact is Impact.INTERRUPTION
    )


def heading(step: Step) -> tuple[str, str]:
    """Symbol and words of a step: `^`, `rolling restart`."""
    symbol, _ = SYMBOLS[step.effect.impact]
    word = WORDS.get(step.effect.impact, step.effect.impact.value)
    return (DRIFT, f"{word} (drift)") if step.drift else (symbol, word)


def effect_text(effect: Effect) -> str:
    """What callers notice, in a sentence."""
    return "; ".join(_effect_parts(effect))


def _effect_parts(effect: Effect) -> Iterator[str]:
    match effect.impact:
        case Impact.NONE:
            yield "no app is touched"
        case Impact.CREATE:
            yield "a new app"
        case Impact.IN_PLACE:
            yield "no restart, interruption 0 s"
        case Impact.ROLLING_RESTART:
            yield "rolling restart, interruption 0 s"
        case Impact.INTERRUPTION:
            yield f"PREDICTED INTERRUPTION, {_about(effect.interruption_s)}"
        case Impact.DELETE:
            yield "the app is gone for its callers"
        case _:
            assert_never(effect.impact)
    if effect.rebuilds_env:
        yield "its environment is built first"
    elif effect.rebuilds_env is None:
        yield "its environment may have to be built first"
    if effect.note:
        yield effect.note
    if effect.takes_s is not None and effect.impact is not Impact.INTERRUPTION:
        yield f"up in {_about(effect.takes_s)}"


def _about(seconds: float | None) -> str:
    return "time not known" if seconds is None else f"≈ {duration(seconds)}"


def _lines(plan: Plan, command: str) -> Iterator[Line]:
    yield from _header(plan)
    by_address = {step.address: step for step in plan.steps}
    shared, wave = _used_by(plan, by_address), waves(plan)
    for step in plan.steps:
        if isinstance(step.verb, ScaleWorkers | DeployApp | UpdateApp | StopApp):
            number = wave.get(step.app_id or "", 1) if max(wave.values(), default=1) > 1 else 0
            yield from _block(step, by_address, shared, number)
    for held in plan.held:
        if held.reason is not Reason.DRIFT_ACCEPTED:
            yield from _held(held)
    yield from _folders(plan)
    yield from _footer(plan, command)


def _header(plan: Plan) -> Iterator[Line]:
    revision = plan.revision
    subject = f' "{plain(revision.subject, 72)}"' if revision.subject else ""
    yield _plain(f"Cluster  {plan.cluster}")
    yield _plain(f"Source   {revision.short}{subject}  {revision.url}")
    if revision.worktree:
        yield (("         with uncommitted files", "bold"),)
    if revision.signature:
        yield _plain(f"         signed by {revision.signature}")
    yield from _live(plan)
    if plan.scope:
        yield _plain(f"Target   {listed(plan.scope)}")
    yield ()
    if plan.steps or plan.held:
        yield (("  " + LEGEND, "dim"),)
        yield ()


def _live(plan: Plan) -> Iterator[Line]:
    if plan.since:
        yield (("Live     NOT ASKED: this is an offline plan", "bold"),)
        yield _plain(f"Supposed {supposition(plan.since)}")
        return
    state = (
        "complete" if not plan.unseen else f"incomplete: {', '.join(unseen.what for unseen in plan.unseen)} not seen"
    )
    yield _plain(f"Live     {plan.worker or 'no worker answered'} ({state})")


def supposition(since: Revision) -> str:
    """What an offline plan takes for granted."""
    subject = f' "{plain(since.subject, 72)}"' if since.subject else ""
    return f"everything runs as {since.short}{subject} says, and is well"


NOT_KNOWN_OFFLINE = (
    "whether that commit is what runs; changes by hand (drift), free resources, stored versions; people's "
    "orders and rights; values of secrets (one counts as changed when it is read from elsewhere or was encrypted anew)"
)
"""What nobody was asked for an offline plan."""


def _block(step: Step, steps: Mapping[str, Step], shared: Mapping[str, tuple[str, ...]], wave: int) -> Iterator[Line]:
    """`wave` 0: there is but one."""
    symbol, word = heading(step)
    word += f" · wave {wave}" if wave else ""
    style = SYMBOLS[step.effect.impact][1]
    yield _title(symbol, step.app_id or "workers", word, style)
    yield _row("because", step.why)
    for change in step.changes:
        yield _change(change)
    for number, needed in enumerate(_chain(step, steps)):
        others = [app for app in shared.get(needed.address, ()) if app != step.app_id]
        note = f" (shared with {listed(others)})" if others and needed is not step else ""
        yield _row("" if number else "steps", f"{verb_text(needed.verb)}{note}")
    others = [steps[address].app_id or address for address in step.needs if _is_of_app(steps[address])]
    if others:
        yield _row("after", listed(others))
    if isinstance(step.verb, DeployApp):
        yield _row("callers", callers(step.verb.spec.authorized_users))
    if step.effect.room:
        yield _row("room", step.effect.room)
    yield _row("effect", effect_text(step.effect))
    yield ()


def callers(users: AuthorizedUsers) -> str:
    """Who may call an app: `everybody`, or by method `ping: everybody; others: anna@lab.example`."""
    if not isinstance(users, Mapping):
        return _who(users)
    if not users:
        return _who(())
    methods = sorted(users, key=lambda method: (method == ENTIRE, method))
    named = [f"{'others' if method == ENTIRE else method}: {_who(users[method])}" for method in methods]
    return "; ".join(named)


def _who(users: Sequence[str]) -> str:
    if EVERYBODY in users:
        return "everybody"
    return f"{listed(list(users))}, the deployer and admins" if users else "only the deployer and admins"


def _held(held: Held) -> Iterator[Line]:
    word = f"HELD {held.reason}" + (f" ({held.action})" if held.action is not Action.UNKNOWN else "")
    yield _title(HELD_SYMBOLS[held.action], held.app_id, word, "cyan")
    yield _row("because", plain(held.message, MESSAGE_LIMIT))
    for change in held.changes:
        yield _change(change)
    if held.fix:
        yield _row("to go on", plain(held.fix, MESSAGE_LIMIT))
    yield ()


def _folders(plan: Plan) -> Iterator[Line]:
    meant = [held for held in plan.held if held.reason is Reason.DRIFT_ACCEPTED]
    for held in meant:
        fields = listed([f"{change.field} {change.before or 'nothing'}" for change in held.changes])
        yield _plain(plain(f"Changed by hand: {held.app_id} runs with {fields}, {held.message}", MESSAGE_LIMIT))
    for app_id, said in plan.rolled_back:
        yield _plain(plain(f"Rolled back: {app_id}, {said}", MESSAGE_LIMIT))
    quiet = [(app_id, said) for app_id, said in plan.suspended if app_id in plan.unchanged]
    for app_id, said in quiet:
        yield _plain(plain(f"Left alone: {app_id}, {said}", MESSAGE_LIMIT))
    if plan.orphans:
        yield _plain(f"Not ours and not in git, left alone: {listed(plan.orphans)}")
    for one in plan.credentials:
        if one.ends is not None:
            yield _plain(f"Ends soon: {one.app_id}: {one.name} on {at(one.ends)}; give it a new value")
    for folder in plan.unused:
        yield _plain(f"Not deployed: {folder} (no app in cluster.yaml names it)")
    for note in plan.notes:
        yield _plain(f"Note: {plain(note, MESSAGE_LIMIT)}")
    if meant or plan.rolled_back or quiet or plan.orphans or plan.credentials or plan.unused or plan.notes:
        yield ()


def _footer(plan: Plan, command: str) -> Iterator[Line]:
    unseen = "; ".join(f"{unseen.what} ({plain(unseen.why, MESSAGE_LIMIT)})" for unseen in plan.unseen)
    if plan.since:
        unseen = NOT_KNOWN_OFFLINE
    yield _plain(f"Unknown: {unseen or 'nothing'}.")
    if plan.accepted:
        yield _plain(f"Ignored differences: {len(plan.accepted)} ({listed(plan.accepted)}).")
    yield _plain(f"Unchanged: {count(len(plan.unchanged), 'app')}.")
    yield ((summary(plan), "bold"),)
    if times := "  ".join(_times(plan)):
        yield _plain(times)
    if plan.steps and plan.id:
        yield _plain(f"Plan id {plan.id}, valid {duration(plan.valid_s)} or until what runs changes.")
    if plan.gate:
        yield ((f"Waits ({plan.gate.reason}): {plan.gate.message}.", "bold yellow"),)
    if command:
        yield ()
        yield _plain(_before_command(plan))
        yield ((f"    {command}", "bold"),)


def _before_command(plan: Plan) -> str:
    if plan.since:
        return "It cannot be applied. The plan for what really runs:"
    if plan.unseen:
        return "Not everything could be seen. Next:"
    if not plan.steps:
        return "Nothing to apply. Next:"
    return "It waits for a yes, which is said with:" if plan.gate else "Apply it with:"


def _times(plan: Plan) -> Iterator[str]:
    missed, path = interruptions(plan), longest_path(plan)
    if missed:
        yield f"Interruptions: {listed(missed)}."
    if path.seconds and path.unknown:
        yield f"Longest path at least {duration(path.seconds)} (never timed: {listed(path.unknown)})."
    elif path.seconds:
        yield f"Longest path ≈ {duration(path.seconds)}."


def verb_text(verb: Verb) -> str:
    """One step in a line: `upload demo-app@1.0.0-g51ab07e0cafe (3 files, 214 kB)`."""
    match verb:
        case ScaleWorkers():
            return f"scale workers to {verb.min}…{verb.max}"
        case UploadArtifact():
            files = f"{count(len(verb.folder.files), 'file')}, {size(verb.folder.size)}"
            return f"upload {_code(verb.artifact_id, verb.version)} ({files}{', resumed' if verb.resumes else ''})"
        case PrepareRuntimeEnv():
            return f"prepare the environment of {_code(verb.spec.artifact_id, verb.spec.version)}"
        case DeployApp():
            return f"deploy {verb.spec.app_id}"
        case UpdateApp():
            return f"update {verb.spec.app_id}"
        case StopApp():
            return f"stop {verb.app_id}"
        case _:
            assert_never(verb)


def _code(artifact_id: str, version: str) -> str:
    return f"{artifact_id.rpartition('/')[2]}@{version}"


def _used_by(plan: Plan, steps: Mapping[str, Step]) -> dict[str, tuple[str, ...]]:
    """Address of a shared step → the apps that need it."""
    users: dict[str, tuple[str, ...]] = {}
    for step in plan.steps:
        if step.app_id and _is_of_app(step):
            for needed in _chain(step, steps):
                users[needed.address] = (*users.get(needed.address, ()), step.app_id)
    return users


def _chain(step: Step, steps: Mapping[str, Step]) -> list[Step]:
    """Uploads and environments that lead to this step, and the step, in the order in which they are done."""
    chain: list[Step] = []
    for address in step.needs:
        if not _is_of_app(steps[address]):
            chain += _chain(steps[address], steps)
    return [*chain, step]


def _is_of_app(step: Step) -> bool:
    return isinstance(step.verb, DeployApp | UpdateApp | StopApp)


def _title(symbol: str, name: str, word: str, style: str) -> Line:
    return ((f"  {symbol:<3} {name:<30} ", f"bold {style}"), (word, style))


def _row(name: str, content: str) -> Line:
    return ((f"      {name:<8} ", "dim"), (content, ""))


def _change(change: Change) -> Line:
    if change.before and change.after:
        return ((f"      ~ {change.field}  {change.before} → {change.after}", ""),)
    symbol = "-" if change.before else "~" if change.after.startswith("(secret") else "+"
    return ((f"      {symbol} {change.field}  {change.before or change.after}", ""),)


def _plain(content: str) -> Line:
    return ((content, ""),)
