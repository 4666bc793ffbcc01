"""What each command does, from a place to an exit code."""

from __future__ import annotations

import difflib
import json
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

from rich.text import Text

from reconciler.cli.lines import JsonLines
from reconciler.cli.place import Place, alone, opened, source_of
from reconciler.cli.show import Screen, app_row, applied, apps_table, said
from reconciler.cli.typed import shown_at, typed
from reconciler.errors import InvalidDesiredState, ReconcilerError, Remedy, SourceUnusable, StalePlan, UnsafePlan
from reconciler.planning import drift, plan_file, plan_lines, render_markdown, render_text
from reconciler.planning.agreed import aims
from reconciler.planning.approving import guarded
from reconciler.planning.conditions import TIME_HELPS
from reconciler.planning.declare import declare
from reconciler.planning.problems import Problem
from reconciler.planning.rights import by_itself, is_approved
from reconciler.planning.shown import listed, plain
from reconciler.planning.source import CLUSTER_FILE
from reconciler.planning.steps import Plan, PlanOptions
from reconciler.planning.supposed import plan_since
from reconciler.ports import World
from reconciler.reconcile import Look, Pass, carry_out, look
from reconciler.settle import Settled, Verdict, Waited, reconcile_until_settled
from reconciler.still import StillSource


class NotApproved(ReconcilerError):
    """Nobody said yes."""

    remedy = Remedy.OPERATOR
    exit_code = 3


class NotSaved(ReconcilerError):
    """A plan that could not be written to its file."""

    remedy = Remedy.OPERATOR


class NoSuchApp(ReconcilerError):
    """--target names an app that is neither wanted nor running."""

    remedy = Remedy.OPERATOR


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a plan is to be applied."""

    options: PlanOptions
    auto_approve: bool = False
    ordered: bool = False
    """By a command that says what is to be done, and is not asked again."""
    wait: bool = False
    timeout_s: float = 900.0
    output: str = "text"


async def plan(
    place: Place,
    options: PlanOptions,
    screen: Screen,
    *,
    output: str,
    out: Path | None = None,
    detailed_exitcode: bool = False,
    since: str | None = None,
) -> int:
    """`since`: the commit that is supposed to run; None: it is asked what runs."""
    async with opened(place, writes=False) as world:
        if since is not None:
            made = await _planned_since(world, since, place, options, screen)
        else:
            screen.masked = world.secrets.masked
            made = (await looked(world, options, screen)).plan
    made = shown_at(made, place)
    document = plan_file.to_json(made, _now())
    if out:
        _save(document, out)
    match output:
        case "json":
            screen.document(document)
        case "jsonl":
            for line in plan_lines.lines(made, document["created_at"]):
                screen.line(line)
        case "markdown":
            screen.markdown(render_markdown.render(made))
        case _:
            screen.result(render_text.render(made, command=_after_plan(made, place, out)))
    if made.problems or made.unseen:
        return 1
    return 2 if detailed_exitcode and made.steps else 0


async def _planned_since(world: World, since: str, place: Place, options: PlanOptions, screen: Screen) -> Plan:
    """Of two commits, and nothing else: nobody but git is asked, and no secret is read. Raises NoSuchApp, and
    SourceUnusable when there is nothing to compare with."""
    desired = declare(await world.source.fetch(), workspace=place.workspace)
    if desired.problems:
        screen.problems(desired.problems)
    there = replace(place, ref=since, worktree=False)
    try:
        older = world.at(since) if world.at else source_of(there)
        then = declare(await older.fetch(), workspace=place.workspace)
    except InvalidDesiredState as error:
        screen.typed = partial(typed, place=there)
        hint = "Name another commit. What is wrong: reconcile validate"
        raise SourceUnusable(f"--since {since}: {place.cluster} is invalid in it: {error}", hint=hint) from None
    except SourceUnusable as error:
        hint = "Name a branch, a tag or a commit's id (git rev-parse HEAD^). A shallow clone may have to fetch it."
        raise SourceUnusable(f"--since {since}: {error}", hint=hint) from None
    known = {*desired.apps, *desired.broken, *then.apps, *then.broken}
    _refuse_unknown(options.targets, known, "--target ", "in neither commit")
    return plan_since(desired, then, options, time.time())


async def apply(place: Place, wishes: Wishes, screen: Screen) -> int:
    with alone(place.home):
        async with opened(place, writes=True) as world:
            screen.masked = world.secrets.masked
            return await apply_in(world, wishes, place, screen)


async def apply_in(world: World, wishes: Wishes, place: Place, screen: Screen) -> int:
    """Look, show, ask, do: what is shown, and nothing that is pushed meanwhile."""
    world = replace(world, source=StillSource(world.source))
    seen = await looked(world, wishes.options, screen)
    screen.note(render_text.render(shown_at(seen.plan, place), command=""))
    _refuse_unsafe(seen.plan)
    approved = not seen.plan.empty and _approve(wishes, seen.plan, screen)
    return await _carry_out(world, seen, wishes, screen, approved=approved)


async def apply_saved(place: Place, file: Path, wishes: Wishes, screen: Screen) -> int:
    """Do what was saved, as it was read then; nobody is asked, but where the plan stands before a gate."""
    screen.typed = partial(typed, place=replace(place, repository="."))  # where it is from, only the file can tell
    document, saved = _read_saved(file)
    ref = None if saved.worktree else saved.ref
    place = replace(place, repository=saved.url, ref=ref, path=saved.path, cluster=saved.file, worktree=saved.worktree)
    screen.typed = partial(typed, place=place)
    wishes = replace(wishes, options=saved.options)
    with alone(place.home):
        async with opened(place, writes=True) as world:
            screen.masked = world.secrets.masked
            world = replace(world, source=StillSource(world.source))
            seen = await looked(world, saved.options, screen)
            valid_s = seen.desired.cluster.policy.plan_valid_s
            old = plan_file.out_of_date(saved, valid_s=valid_s, now=time.time())
            moved = [old] if old else [*plan_file.differences(document, seen.plan)]
            if moved:
                hint = f"Make a new one: reconcile plan{saved.options.typed} --out {quote(str(file))}"
                raise StalePlan(f"{file} no longer fits: {'; '.join(moved)}", hint=hint)
            _refuse_unsafe(seen.plan)
            if seen.plan.gate:
                screen.note(render_text.render(shown_at(seen.plan, place), command=""))
            approved = seen.plan.gate is not None and _approve(wishes, seen.plan, screen)
            return await _carry_out(world, seen, wishes, screen, approved=approved)


async def validate(place: Place, screen: Screen) -> int:
    async with opened(place, writes=False) as world:
        tree = await world.source.fetch()
    desired = declare(tree)
    if desired.problems:
        screen.problems(desired.problems)
        return 1
    count = len(desired.apps)
    screen.result(f"{tree.revision.short}: {tree.name} and {count} app{'s' if count != 1 else ''} are valid.")
    for folder in desired.unused:
        screen.result(f"{folder}: no app in {tree.name} uses it, so it is not deployed.")
    screen.result(f"\nNext: {screen.typed('reconcile plan')}")
    return 0


async def get(place: Place, screen: Screen, *, as_json: bool) -> int:
    async with opened(place, writes=False) as world:
        screen.masked = world.secrets.masked
        seen = await looked(world, PlanOptions(), screen)
    report = drift.report(seen.plan, seen.live, observed_at=_now())
    rows = [app_row(app, seen.live.apps.get(app["id"]), _note(app["id"], seen.plan)) for app in report["apps"]]
    if as_json:
        fields = ("target", "revision", "complete", "unseen", "workers")
        screen.document({"format_version": "1.0", **{name: report[name] for name in fields}, "apps": rows})
    else:
        screen.show_unfolded(apps_table(rows))
        show_unseen(seen.plan, screen)
        then = way_to_see(seen.plan) if seen.plan.unseen else "reconcile plan"
        screen.result(f"\n{report['revision']}  Next: {screen.typed(then)}")
    return 0 if report["complete"] else 1


def _note(app_id: str, planned: Plan) -> str:
    """Who wants it as it was, or left as it is, and why."""
    return "; ".join(said for one, said in (*planned.rolled_back, *planned.suspended) if one == app_id)


def show_unseen(planned: Plan, screen: Screen) -> None:
    """What got no answer, and why."""
    for one in planned.unseen:
        screen.note(Text.assemble(("Not seen: ", "bold yellow"), plain(f"{one.what}: {screen.typed(one.why)}")))


def way_to_see(planned: Plan) -> str:
    """What to type when not everything could be seen."""
    return "reconcile up" if any("embedded" in one.why for one in planned.unseen) else "reconcile doctor"


def show_settled(apps: Iterable[Settled], screen: Screen) -> None:
    """Apps that did not come up, with what they logged."""
    for app in apps:
        if app.verdict in (Verdict.REJECTED, Verdict.WAITING):
            word = "was rejected" if app.verdict is Verdict.REJECTED else "is not up yet"
            screen.note(Text.assemble((f"{app.app_id} {word}: ", "bold red"), plain(app.why)))
            for line in app.log_lines[-30:]:
                screen.note(f"    {plain(line)}")


async def looked(
    world: World,
    options: PlanOptions,
    screen: Screen,
    *,
    named: Collection[str] = (),
    option: str = "--target ",
    shown: Sequence[Problem] = (),
) -> Look:
    """What would be done, with what is wrong shown, unless it was `shown` before. Raises NoSuchApp for a target, or a
    named app, that is nowhere."""
    seen = await look(world, options)
    if seen.desired.problems and seen.desired.problems != shown:
        screen.problems(seen.desired.problems)
    known = seen.desired.apps.keys() | seen.desired.broken.keys() | seen.live.apps.keys()
    _refuse_unknown({*options.targets, *named}, known, option, "neither in git nor running")
    return seen


def _refuse_unknown(named: Collection[str], known: Collection[str], option: str, where: str) -> None:
    for target in sorted({*named}.difference(known)):
        near = difflib.get_close_matches(target, known, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(sorted(known)) or 'no apps'}"
        raise NoSuchApp(f"{option}{target}: no such app, {where}", hint=hint)


async def _carry_out(world: World, seen: Look, wishes: Wishes, screen: Screen, *, approved: bool) -> int:
    """Also what waits for something to come up, with `wait`: all of it is in the look, and no more is done."""
    approved = approved or is_approved(seen.plan, seen.desired.cluster.policy, seen.live)
    lines = JsonLines(screen) if wishes.output == "jsonl" else None
    with screen.progress(len(seen.plan.steps)) as progress:
        if lines:
            lines.begin(seen.plan)
        tell = lines or progress
        done = await carry_out(world, seen, tell=tell, approved=approved, one_wave=wishes.wait)
        waited = None
        if wishes.wait:
            waited = await reconcile_until_settled(
                world,
                wishes.options,
                done,
                timeout_s=wishes.timeout_s,
                tell=tell,
                approved=approved,
                agreed=aims(seen.plan, seen.desired),
            )
    complete = not (seen.desired.problems or seen.plan.unseen)
    well = waited.ok if waited else not done.failed
    code = 0 if well and complete else 1
    if waited:
        show_settled(waited.apps.values(), screen)
        for line in waited.left:
            screen.note(f"not done: {plain(line)}")
    if lines:
        lines.settled(waited.apps.values() if waited else ())
        lines.summary((waited or done).outcomes, complete=complete, exit_code=code)
    elif wishes.output == "json":
        screen.document(_result(done, waited))
    else:
        _say(done, waited, screen)
    return code


def _say(done: Pass, waited: Waited | None, screen: Screen) -> None:
    outcomes = (waited or done).outcomes
    for outcome in outcomes:
        screen.result(f"{outcome.address}  {said(outcome)}")
    for app in waited.apps.values() if waited else ():
        screen.result(f"{app.app_id}  {app.verdict.value}")
    planned = (waited.last if waited else done).look.plan
    then = way_to_see(planned) if planned.unseen else "reconcile get"
    if outcomes:
        screen.result(applied(outcomes))
    elif planned.unseen:
        screen.result(f"Not seen: {listed([one.what for one in planned.unseen])}; nothing was done.")
    else:
        screen.result("Nothing to do.")
    screen.result(f"\nNext: {screen.typed(then)}")


def _save(document: Mapping[str, Any], file: Path) -> None:
    """Raises NotSaved."""
    try:
        file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        hint = "Name a file in a folder that is there and that you may write to."
        raise NotSaved(f"--out {file}: the plan was not saved: {error.strerror}", hint=hint) from None


def _read_saved(file: Path) -> tuple[dict[str, Any], plan_file.SavedPlan]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return document, plan_file.from_json(document)
    except (OSError, ValueError, AttributeError) as error:
        raise StalePlan(f"{file}: {error}", hint="Make a plan with: reconcile plan --out plan.json") from None


def _approve(wishes: Wishes, planned: Plan, screen: Screen) -> bool:
    """Whether a person said yes, which opens every gate; a flag, or a file, that stands in a script opens none. Raises
    NotApproved."""
    if wishes.ordered:
        return True
    somebody = _somebody_is_there() and not wishes.auto_approve
    if planned.gate and not somebody:
        # Nobody else sees uncommitted files, so nobody else can approve them.
        alone = f"Say yes to it at a terminal: reconcile apply{planned.options.typed}"
        raise NotApproved(planned.gate.message, hint=alone if planned.revision.worktree else planned.gate.fix)
    if wishes.auto_approve:
        return False
    if not somebody:
        raise NotApproved(
            "nobody to ask: stdin is no terminal", hint="Say it with --auto-approve, or apply a saved plan."
        )
    screen.note("\nDo you want to perform these actions? Only 'yes' will be accepted to approve.")
    if screen.err.input("  Enter a value: ").strip() != "yes":
        raise NotApproved("not approved; nothing was changed")
    return True


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


def _refuse_unsafe(planned: Plan) -> None:
    """Raises UnsafePlan when nothing is left but removals that wait for a person's word."""
    removals = guarded(planned)
    if planned.empty and removals and not any(held.reason in TIME_HELPS for held in planned.held):
        apps = listed([held.app_id for held in removals])
        raise UnsafePlan(f"{removals[0].message}: {apps}; none of them is", hint=removals[0].fix)


def _after_plan(planned: Plan, place: Place, out: Path | None) -> str:
    """What does what the plan shows, and nothing else."""
    asked = planned.options.typed
    if planned.since:
        return typed("reconcile plan", place) + asked
    if planned.unseen:
        return typed(way_to_see(planned), place)
    if planned.empty:
        return typed("reconcile get", place)
    if planned.gate and by_itself(planned.options) and not place.worktree:
        return typed(f"reconcile approve {planned.id}", place)
    if out:  # where it is from, and what was asked for, it says itself
        place = replace(place, repository=str(out), ref=None, path="", cluster=CLUSTER_FILE, worktree=False)
        return typed("reconcile apply", place)
    return typed("reconcile apply", place) + asked


def _result(done: Pass, waited: Waited | None) -> dict[str, object]:
    return {
        "format_version": "1.0",
        "revision": done.look.plan.revision.short,
        "outcomes": [
            {"address": o.address, "result": o.result.value, "message": o.message, "seconds": o.seconds}
            for o in (waited or done).outcomes
        ],
        "apps": [
            {"id": app.app_id, "verdict": app.verdict.value, "why": app.why}
            for app in (waited.apps.values() if waited else ())
        ],
        "report": (waited.last if waited else done).report,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
