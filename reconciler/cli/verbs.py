"""What each command does, from a place to an exit code."""

from __future__ import annotations

import asyncio
import difflib
import json
import logging
import signal
import sys
from collections.abc import Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.text import Text

from reconciler.cli.place import Place, alone, git_dir_of, opened
from reconciler.cli.show import Screen, app_row, applied, apps_table, said
from reconciler.errors import ReconcilerError, Remedy, StalePlan
from reconciler.loop import run as keep_going
from reconciler.planning import drift, plan_file, render_markdown, render_text
from reconciler.planning.declare import declare
from reconciler.planning.steps import Outcome, Plan, PlanOptions, Result
from reconciler.ports import World
from reconciler.reconcile import Look, Pass, carry_out, look, reconcile, tell_trouble
from reconciler.settle import Settled, Verdict, Waited, reconcile_until_settled
from reconciler.triggers.commits import wake_on_commits
from reconciler.triggers.event import Followed
from reconciler.triggers.signature import NoWebhookSecret

log = logging.getLogger(__name__)


class NotApproved(ReconcilerError):
    """Nobody said yes."""

    remedy = Remedy.OPERATOR
    exit_code = 3


class NoSuchApp(ReconcilerError):
    """--target names an app that is neither wanted nor running."""

    remedy = Remedy.OPERATOR


class BadAddress(ReconcilerError):
    """The address for webhooks is none."""

    remedy = Remedy.OPERATOR


@dataclass(frozen=True, slots=True)
class Hook:
    """Where webhooks are heard, and where the secret lies that their senders know."""

    host: str
    port: int
    secret_file: Path

    @classmethod
    def read(cls, address: str | None, secret_file: Path | None) -> Hook:
        """From HOST:PORT. Raises BadAddress or NoWebhookSecret."""
        if secret_file is None:
            raise NoWebhookSecret("--webhook needs a secret", hint="Give --webhook-secret-file FILE.")
        host, _, port = (address or "").rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise BadAddress(f'"{address or ""}" is no HOST:PORT', hint="Such as --webhook 127.0.0.1:8780.")
        return cls(host.strip("[]"), int(port), secret_file)


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a plan is to be applied."""

    options: PlanOptions
    auto_approve: bool = False
    wait: bool = False
    timeout_s: float = 900.0
    as_json: bool = False


async def plan(
    place: Place, options: PlanOptions, screen: Screen, *, output: str, out: Path | None, detailed_exitcode: bool
) -> int:
    async with opened(place, writes=False) as world:
        screen.masked = world.secrets.masked
        seen = await looked(world, options, screen)
    document = plan_file.to_json(seen.plan, _now())
    if out:
        _save(document, out)
    match output:
        case "json":
            screen.document(document)
        case "markdown":
            screen.markdown(render_markdown.render(seen.plan))
        case _:
            screen.result(render_text.render(seen.plan, command=_after_plan(seen.plan, place, out)))
    if seen.desired.problems or seen.plan.unseen:
        return 1
    return 2 if detailed_exitcode and seen.plan.steps else 0


async def apply(place: Place, wishes: Wishes, screen: Screen) -> int:
    with alone(place.home):
        async with opened(place, writes=True) as world:
            screen.masked = world.secrets.masked
            seen = await looked(world, wishes.options, screen)
            screen.note(render_text.render(seen.plan, command=""))
            if not seen.plan.empty:
                _approve(wishes, screen)
            return await _carry_out(world, seen, wishes, place, screen)


async def apply_saved(place: Place, file: Path, wishes: Wishes, screen: Screen) -> int:
    document, saved = _read_saved(file)
    place = replace(place, repository=saved.url, ref=None if saved.worktree else saved.ref, worktree=saved.worktree)
    wishes = replace(wishes, options=saved.options)
    with alone(place.home):
        async with opened(place, writes=True) as world:
            screen.masked = world.secrets.masked
            seen = await looked(world, saved.options, screen)
            moved = plan_file.differences(document, seen.plan)
            if moved:
                hint = f"Make a new one: reconcile plan {place.command_tail} --out {file}"
                raise StalePlan(f"{file} no longer fits: {'; '.join(moved)}", hint=hint)
            return await _carry_out(world, seen, wishes, place, screen)


async def run(place: Place, screen: Screen, *, interval_s: float | None, hook: Hook | None = None) -> int:
    stop, wake = asyncio.Event(), asyncio.Event()
    on_signals(stop)
    with alone(place.home):
        async with opened(place, writes=True) as world, AsyncExitStack() as triggers:
            screen.masked = world.secrets.masked
            if hook:
                from reconciler.triggers.receiver import PATH, Receiver, listening  # a web server, for this only

                receiver = Receiver(Followed.of(place.repository, place.ref), hook.secret_file, wake)
                port = await triggers.enter_async_context(listening(receiver, hook.host, hook.port))
                screen.note(f"Webhooks are heard on http://{hook.host}:{port}{PATH}")
            await keep_reconciling(world, stop=stop, wake=wake, interval_s=interval_s)
    return 0


async def validate(place: Place, screen: Screen) -> int:
    async with opened(place, writes=False) as world:
        tree = await world.source.fetch()
    desired = declare(tree)
    if desired.problems:
        screen.problems(desired.problems)
        return 1
    count = len(desired.apps)
    screen.result(f"{tree.revision.short}: cluster.yaml and {count} app{'s' if count != 1 else ''} are valid.")
    for folder in desired.unused:
        screen.result(f"{folder}: no app in cluster.yaml uses it, so it is not deployed.")
    screen.result(f"\nNext: reconcile plan {place.command_tail}")
    return 0


async def get(place: Place, screen: Screen, *, as_json: bool) -> int:
    async with opened(place, writes=False) as world:
        screen.masked = world.secrets.masked
        seen = await looked(world, PlanOptions(), screen)
    report = drift.report(seen.plan, seen.live, observed_at=_now())
    rows = [app_row(app, seen.live.apps.get(app["id"])) for app in report["apps"]]
    if as_json:
        fields = ("target", "revision", "complete", "unseen", "workers")
        screen.document({"format_version": "1.0", **{name: report[name] for name in fields}, "apps": rows})
    else:
        screen.show_unfolded(apps_table(rows))
        screen.result(f"\n{report['revision']}  Next: reconcile plan {place.command_tail}")
    return 0 if report["complete"] else 1


async def keep_reconciling(
    world: World, *, stop: asyncio.Event, wake: asyncio.Event, interval_s: float | None = None
) -> None:
    """Passes until `stop`. The log tells of each that did something or saw something new."""
    before = ""

    async def one_pass() -> Pass:
        nonlocal before
        try:
            done = await reconcile(world, PlanOptions())
        except ReconcilerError as error:
            await tell_trouble(world, error)
            raise
        for outcome in done.outcomes:
            log.log(logging.INFO if outcome.result is Result.DONE else logging.ERROR, "%s", _logged(outcome))
        now = f"event=pass revision={done.look.plan.revision.short} {_counts(done)}"
        log.log(logging.DEBUG if now == before else logging.INFO, "%s", now)
        before = now
        return done

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(_wake_on_local_commits(world, wake, stop))
        try:
            await keep_going(one_pass, stop=stop, wake=wake, interval_s=interval_s)
        finally:
            watching.cancel()


def on_signals(stop: asyncio.Event) -> None:
    """SIGINT and SIGTERM ask for an end; a second one insists on it."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def ask() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)


def show_settled(apps: Iterable[Settled], screen: Screen) -> None:
    """Apps that did not come up, with what they logged."""
    for app in apps:
        if app.verdict in (Verdict.REJECTED, Verdict.WAITING):
            word = "was rejected" if app.verdict is Verdict.REJECTED else "is not up yet"
            screen.note(Text.assemble((f"{app.app_id} {word}: ", "bold red"), app.why))
            for line in app.log_lines[-30:]:
                screen.note(f"    {line}")


async def looked(
    world: World, options: PlanOptions, screen: Screen, *, named: Collection[str] = (), option: str = "--target "
) -> Look:
    """What would be done, with what is wrong shown. Raises NoSuchApp for a target, or a named app, that is nowhere."""
    seen = await look(world, options)
    if seen.desired.problems:
        screen.problems(seen.desired.problems)
    known = seen.desired.apps.keys() | seen.desired.broken.keys() | seen.live.apps.keys()
    for target in sorted({*options.targets, *named} - known):
        near = difflib.get_close_matches(target, known, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(sorted(known)) or 'no apps'}"
        raise NoSuchApp(f"{option}{target}: no such app, neither in git nor running", hint=hint)
    return seen


async def _carry_out(world: World, seen: Look, wishes: Wishes, place: Place, screen: Screen) -> int:
    with screen.progress(len(seen.plan.steps)) as tell:
        done = await carry_out(world, seen, tell=tell)
        waited = None
        if wishes.wait:
            waited = await reconcile_until_settled(world, wishes.options, done, timeout_s=wishes.timeout_s, tell=tell)
    if waited:
        show_settled(waited.apps.values(), screen)
    if wishes.as_json:
        screen.document(_result(done, waited))
    else:
        for outcome in done.outcomes:
            screen.result(f"{outcome.address}  {said(outcome)}")
        for app in waited.apps.values() if waited else ():
            screen.result(f"{app.app_id}  {app.verdict.value}")
        screen.result(applied(done.outcomes) if done.outcomes else "Nothing to do.")
        screen.result(f"\nNext: reconcile get {place.command_tail}")
    failed = bool(done.failed) or bool(waited and not waited.ok) or bool(seen.desired.problems or seen.plan.unseen)
    return 1 if failed else 0


def _save(document: Mapping[str, Any], file: Path) -> None:
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_saved(file: Path) -> tuple[dict[str, Any], plan_file.SavedPlan]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return document, plan_file.from_json(document)
    except (OSError, ValueError, AttributeError) as error:
        raise StalePlan(f"{file}: {error}", hint="Make a plan with: reconcile plan --out plan.json") from None


def _approve(wishes: Wishes, screen: Screen) -> None:
    if wishes.auto_approve:
        return
    if not sys.stdin.isatty():
        raise NotApproved(
            "nobody to ask: stdin is no terminal", hint="Say it with --auto-approve, or apply a saved plan."
        )
    screen.note("\nDo you want to perform these actions? Only 'yes' will be accepted to approve.")
    if screen.err.input("  Enter a value: ").strip() != "yes":
        raise NotApproved("not approved; nothing was changed")


def _after_plan(planned: Plan, place: Place, out: Path | None) -> str:
    if planned.unseen:
        return f"reconcile up {place.command_tail}" if any("embedded" in u.why for u in planned.unseen) else ""
    if planned.empty:
        return f"reconcile get {place.command_tail}"
    return f"reconcile apply {out}" if out else f"reconcile apply {place.command_tail}"


def _result(done: Pass, waited: Waited | None) -> dict[str, object]:
    return {
        "format_version": "1.0",
        "revision": done.look.plan.revision.short,
        "outcomes": [
            {"address": o.address, "result": o.result.value, "message": o.message, "seconds": o.seconds}
            for o in done.outcomes
        ],
        "apps": [
            {"id": app.app_id, "verdict": app.verdict.value, "why": app.why}
            for app in (waited.apps.values() if waited else ())
        ],
        "report": done.report,
    }


async def _wake_on_local_commits(world: World, wake: asyncio.Event, stop: asyncio.Event) -> None:
    try:
        git_dir = git_dir_of(await world.source.fetch())
    except ReconcilerError:
        return
    if git_dir:
        await wake_on_commits(git_dir, wake, stop)


def _logged(outcome: Outcome) -> str:
    facts = f"event=step address={outcome.address!r} result={outcome.result.value} seconds={outcome.seconds}"
    return f"{facts} {outcome.message}".rstrip()


def _counts(done: Pass) -> str:
    planned = done.look.plan
    complete = "yes" if not planned.unseen else "no"
    return f"steps={len(planned.steps)} held={len(planned.held)} unchanged={len(planned.unchanged)} complete={complete}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
