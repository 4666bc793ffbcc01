"""What a command prints to be typed next: it is understood, and acts on what the command acted on, with its options."""

from __future__ import annotations

import asyncio
import html
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from reconciler.cli.commands import app
from reconciler.cli.place import Place, source_of
from reconciler.cli.show import Screen
from reconciler.cli.typed import TAKES, typed
from reconciler.cli.verbs import Wishes, apply
from reconciler.errors import SourceUnusable
from reconciler.planning.people import Anchor
from reconciler.planning.source import Trust
from reconciler.planning.steps import PlanOptions
from tests.fakes import FakeMemory, FakeSource, FakeWorld, a_repository, an_app_folder
from tests.reconciler.git_world import Repository
from tests.reconciler.test_orders import Gone, Lab, held_by_another

COMMANDS: Any = typer.main.get_command(app)
EVERYTHING = Place(
    "/srv/a lab",
    ref="main",
    path="sites",
    cluster="staging.yaml",
    worktree=True,
    home_option=Path("/var/home"),
    server_url="https://hypha.example",
    workspace="ws",
    worker="ws/worker",
    token_file=Path("token"),
    trust=Trust(Path("signers"), Path("gnupg")),
    anchor=Anchor(("ann", "ben"), ()),
    deny_private_hosts=True,
)
SAID = {
    "repo": "/srv/a lab",
    "ref": "main",
    "path": "sites",
    "cluster": "staging.yaml",
    "worktree": "True",
    "home": "/var/home",
    "server_url": "https://hypha.example",
    "workspace": "ws",
    "worker": "ws/worker",
    "token_file": "token",
    "allowed_signers": "signers",
    "gnupg_home": "gnupg",
    "approvers": "ann,ben",
    "pruners": "",
    "deny_private_hosts": "True",
}
"""The same, by the names of a command's parameters."""


def understood(command: str) -> Mapping[str, Any]:
    """What the parser makes of it. Raises what it raises for a usage error."""
    program, verb, *words = shlex.split(command)
    assert program == "reconcile"
    one = COMMANDS.commands[verb]
    if hasattr(one, "commands"):
        verb, *words = words
        one = one.commands[verb]
    return one.make_context(verb, words).params


def advised(text: str) -> Iterator[str]:
    """The commands in an output, each up to where it ends for a reader."""
    for line in re.sub(r"</?code>", "\n", html.unescape(text)).splitlines():
        for part in re.split(r"[;,] |\. ?$| or |\": \"|\"", line):
            found = re.search(r"(?<!`)\breconcile ([a-z]+)\b.*", part)
            if found and found[1] in TAKES:
                yield found[0]


@pytest.mark.parametrize("verb", TAKES)
def test_every_command_is_told_all_of_the_place_that_it_takes(verb: str) -> None:
    besides = " --reason why" if verb == "suspend" else ""
    told = understood(typed(f"reconcile {verb}{' it' if TAKES[verb].word else ''}{besides}", EVERYTHING))
    assert {"repo", "path", "home"} <= told.keys()
    assert {name: str(told[name]) for name in SAID if name in told} == {
        name: said for name, said in SAID.items() if name in told
    }


def test_no_command_with_a_place_is_forgotten() -> None:
    placed = {name for name, one in COMMANDS.commands.items() if any(each.name == "cluster" for each in one.params)}
    assert placed == {verb for verb in TAKES if " " not in verb}


def test_where_it_was_typed_it_needs_no_place_and_a_name_alone_gets_none() -> None:
    assert typed("reconcile resume one; or push", Place(".")) == "reconcile resume one; or push"
    assert typed("a file that `reconcile plan --out` wrote", EVERYTHING) == "a file that `reconcile plan --out` wrote"
    assert typed("a mistake in reconcile itself", EVERYTHING) == "a mistake in reconcile itself"


# ── outputs ────────────────────────────────────────────────────────────────────────────────────────────────────────

HERE = ("--cluster", "staging.yaml")
GUARDED = "policy: {prune: true, removal_budget: 0}\n"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    files = a_repository("one", "two", cluster=GUARDED)
    made = Lab(FakeWorld(FakeSource(files), memory=FakeMemory()), tmp_path)
    assert made.run("apply", "--auto-approve").exit_code == 0
    return made


def changed(lab: Lab, *, cluster: str = GUARDED, **entries: str) -> None:
    lab.fake.source.commit(a_repository("one", "two", cluster=cluster, **entries))


def removed(lab: Lab) -> None:
    lab.fake.source.commit(a_repository("one", cluster=GUARDED))


def run_at(lab: Lab, *words: str) -> str:
    command, *rest = words
    place = ["--repo", "/srv/lab"] if TAKES[command].by_option else ["/srv/lab"]
    return lab.run(command, *rest, *place, *HERE).output


def said_when(lab: Lab, state: str) -> str:
    match state:
        case "well":
            told = [("plan",), ("get",), ("explain", "one"), ("trace", "one"), ("validate",), ("history",), ("lock",)]
            told += [("apply", "--auto-approve"), ("events",), ("plan", "-o", "json")]
        case "changed":
            changed(lab, one="    max_ongoing_requests: 3\n")
            told = [("plan",), ("get",), ("explain", "one"), ("wait", "one", "--timeout", "1")]
        case "removed":
            removed(lab)
            told = [("plan",), ("plan", "-o", "json"), ("apply", "--auto-approve"), ("explain", "two"), ("wait", "two")]
            told += [("plan", "-o", "markdown")]
        case "gated":
            changed(lab, cluster="policy: {apply: manual}\n", one="    max_ongoing_requests: 3\n")
            told = [
                ("plan",),
                ("plan", "-o", "json"),
                ("apply", "--auto-approve"),
                ("explain", "one"),
                ("approve", "p-1"),
            ]
            told += [("plan", "--target", "one"), ("plan", "--worktree")]
        case "ordered":
            told = [("suspend", "one", "--reason", "x"), ("plan",), ("explain", "one"), ("resume", "one")]
            told += [("rollback", "one"), ("retry", "one"), ("resume", "nobody"), ("lock", "--forget")]
        case "rejected":
            lab.fake.runtime.bad["one"] = "ValueError: no such model"
            lab.fake.source.commit(an_app_folder("one", says="2"))
            told = [("apply", "--auto-approve", "--wait"), ("plan",), ("explain", "one"), ("wait", "one"), ("history",)]
        case "unseen":
            lab.fake.runtime.fail("observe")
            told = [("plan",), ("get",), ("diff",), ("explain", "one"), ("apply", "--auto-approve")]
            told += [("wait", "one", "--timeout", "1")]
        case "held elsewhere":
            held_by_another(lab)
            told = [("suspend", "one", "--reason", "x"), ("resume", "one"), ("lock",), ("rollback", "one")]
            lab.running.refuses = ""
        case "held by one that does not answer":
            held_by_another(lab)
            lab.running = Gone()
            changed(lab, one="    max_ongoing_requests: 3\n")
            told = [("suspend", "one", "--reason", "x"), ("apply", "--auto-approve")]
        case _:
            lab.fake.source.fail("fetch", SourceUnusable("it is gone", hint="Is it?"))
            told = [("plan",), ("wait", "one", "--timeout", "1"), ("diff",)]
    return "\n".join(run_at(lab, *words) for words in told)


@pytest.mark.parametrize(
    ("state", "least"),
    [
        ("well", {"plan", "get", "trace", "lock"}),
        ("changed", {"apply", "plan", "explain"}),
        ("removed", {"apply", "approve"}),
        ("gated", {"approve", "apply", "plan"}),
        ("ordered", {"resume", "wait", "get"}),
        ("rejected", {"retry", "rollback", "explain", "get"}),
        ("unseen", {"doctor"}),
        ("held elsewhere", {"resume", "wait"}),
        ("held by one that does not answer", {"lock"}),
    ],
)
def test_every_printed_command_is_understood_and_acts_on_the_same_place(lab: Lab, state: str, least: set[str]) -> None:
    """Caught: `to go on if it is meant: reconcile apply --confirm-deletes 3`, printed for staging.yaml, confirmed three
    removals in cluster.yaml."""
    commands = [*advised(said_when(lab, state))]
    assert {command.split()[1] for command in commands} >= least, commands
    for command in commands:
        told = understood(command)
        place = (told["repo"], told["cluster"], told["home"])
        assert place == ("/srv/lab", "staging.yaml", lab.home), command


def last(text: str) -> str:
    return text.rstrip().splitlines()[-1].strip()


def test_a_plan_with_options_is_applied_with_the_same(lab: Lab) -> None:
    """Caught: a plan of one app that ended with a command for all of them."""
    changed(lab, one="    max_ongoing_requests: 3\n", two="    max_ongoing_requests: 3\n")
    told = understood(last(lab.run("plan", "lab", "--target", "one", "--force", "--pruners", "").output))
    assert (told["target"], told["force"], told["pruners"]) == (["one"], True, "")
    removed(lab)
    told = understood(last(lab.run("plan", "lab", "--confirm-deletes", "1").output))
    assert told["confirm_deletes"] == 1 and not told["target"]
    advice = json.loads(lab.run("plan", "lab", "--target", "two", "-o", "json").output)["held"]
    fix = next(one["fix"] for one in advice if one["reason"] == "PruneBudgetExceeded")
    told = understood(fix.partition(": ")[2])
    assert (told["target"], told["confirm_deletes"]) == (["two"], 1)


def test_a_plan_that_waits_for_a_yes_ends_with_how_to_say_it(lab: Lab, tmp_path: Path) -> None:
    """Caught: `Apply it with: reconcile apply plan.json`, which is refused for want of that yes."""
    changed(lab, cluster="policy: {apply: manual}\n", one="    max_ongoing_requests: 3\n")
    for words in ((), ("--out", str(tmp_path / "plan.json"))):
        text = lab.run("plan", "lab", *words).output
        plan_id = re.findall(r"Plan id (p-[0-9a-f-]+)", text)
        assert plan_id and last(text).startswith(f"reconcile approve {plan_id[0]} --repo lab")
    told = understood(last(lab.run("plan", "lab", "--force").output))
    assert told["force"] and "auto_approve" in told, "what is asked for besides cannot be approved"


def test_what_is_not_committed_is_said_yes_to_where_it_is(lab: Lab, tmp_path: Path) -> None:
    """Caught: advice to approve it, by a command that reads what is committed, and finds another plan."""
    folder = Repository(tmp_path / "lab").path
    for name, content in a_repository("one", cluster="policy: {apply: manual}\n").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    home, place = lab.home / "home", Place(str(folder), worktree=True)
    lab.fake.source = source_of(replace(place, home_option=home))  # type: ignore[assignment]
    told = understood(last(lab.run("plan", str(folder), "--worktree").output))
    assert told["worktree"] and "auto_approve" in told
    refused = lab.run("apply", str(folder), "--worktree", "--auto-approve").stderr
    assert understood(last(refused).partition(": ")[2].partition(": ")[2])["worktree"]


def test_what_is_published_says_nothing_of_this_place(lab: Lab) -> None:
    """It is read elsewhere, by everybody of the workspace."""
    lab.fake.source.commit(a_repository("one", cluster=GUARDED, one="    max_ongoing_requests: 3\n"))
    world = lab.fake.world
    place = Place("/srv/lab", home_option=lab.home, world=world)
    asyncio.run(apply(place, Wishes(PlanOptions(), auto_approve=True), Screen(no_color=True)))
    assert world.told.said
    said = json.dumps([world.told.said.report, world.told.said.plan, world.told.said.explain("two")])
    assert "reconcile apply --confirm-deletes 1" in said and "/srv/lab" not in said and str(lab.home) not in said


def test_the_advice_about_a_saved_plan_is_about_the_repository_it_is_from(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    changed(lab, one="    max_ongoing_requests: 3\n")
    assert lab.run("plan", "lab", "--target", "one", "--out", str(file)).exit_code == 0
    made = json.loads(file.read_text())
    changed(lab, one="    max_ongoing_requests: 4\n")
    refused = lab.run("apply", str(file)).stderr
    told = understood(next(advised(refused.replace("Make a new one: ", "\n"))))
    assert (told["repo"], told["target"], told["out"]) == (made["source"]["url"], ["one"], file)
    file.write_text("{}")
    assert understood(next(advised(lab.run("apply", str(file)).stderr)))["repo"] == "."
