"""What to type next: each `reconcile` command in an advice, so that it acts on the very place that this one acted on.

Law: a command that is printed takes what stands behind it, and is about the same repository, cluster, home and Hypha. A
name in backticks only speaks of a command, and is left as it is.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from reconciler.cli.place import Place
from reconciler.planning.source import CLUSTER_FILE
from reconciler.planning.steps import Plan, Reason


@dataclass(frozen=True, slots=True)
class Takes:
    """How a command is told its place: the repository as its first word or by --repo, after an app or a plan's id; and
    all options of a place but those that it `lacks`."""

    word: bool = False
    by_option: bool = False
    lacks: frozenset[str] = frozenset({"--worktree"})


_HYPHA = frozenset({"--server-url", "--workspace", "--worker", "--token-file"})
_TRUST = frozenset({"--allowed-signers", "--gnupg-home", "--approvers", "--pruners", "--deny-private-hosts"})
_ALL, _ABOUT_ALL = Takes(lacks=frozenset()), Takes(by_option=True)
_FILES = Takes(by_option=True, lacks=frozenset({"--ref", "--worktree", *_HYPHA, *_TRUST}))
TAKES: Mapping[str, Takes] = {
    **dict.fromkeys(("plan", "apply", "doctor"), _ALL),
    **dict.fromkeys(("up", "validate"), Takes(lacks=_HYPHA)),
    **dict.fromkeys(("run", "get", "diff"), Takes()),
    **dict.fromkeys(("history", "events", "lock", "adopt"), _ABOUT_ALL),
    **dict.fromkeys(
        ("explain", "trace", "wait", "suspend", "resume", "approve", "rollback", "retry"),
        replace(_ABOUT_ALL, word=True),
    ),
    "secrets encrypt": _FILES,
    "secrets keygen": replace(_FILES, lacks=_FILES.lacks | {"--cluster"}),
}


def _any(*, word: bool) -> str:
    return "|".join(verb for verb, takes in TAKES.items() if takes.word is word)


_COMMAND = re.compile(
    rf"(?<![`\w])reconcile (?:(?P<one>{_any(word=True)}) [^\s,;]*[^\s,;.]|(?P<all>{_any(word=False)}))(?![\w-])"
)


def typed(text: str, place: Place) -> str:
    """The text, each command in it told the place.

    >>> typed("wait, or reconcile approve p-1, or reconcile apply --force", Place("lab", ref="main"))
    'wait, or reconcile approve p-1 --repo lab --ref main, or reconcile apply lab --ref main --force'
    """

    def told(match: re.Match[str]) -> str:
        takes = TAKES[match["one"] or match["all"]]
        where = shlex.join(_words(place, takes))
        return f"{match[0]} {where}" if where else match[0]

    return _COMMAND.sub(told, text)


def shown_at(plan: Plan, place: Place) -> Plan:
    """The plan as it is shown to who is at this place: what it advises, acts there. What others read is not for it."""
    held = [
        replace(
            one,
            fix=typed(one.fix, place),
            message=typed(one.message, place) if one.reason is Reason.LIVE_STATE_UNKNOWN else one.message,
        )
        for one in plan.held
    ]
    return replace(
        plan,
        held=tuple(held),
        gate=plan.gate and replace(plan.gate, fix=typed(plan.gate.fix, place)),
        unseen=tuple(replace(one, why=typed(one.why, place)) for one in plan.unseen),
    )


def _words(place: Place, takes: Takes) -> Iterator[str]:
    if place.repository != ".":
        yield from (("--repo",) if takes.by_option else ())
        yield place.repository
    approvers, pruners = place.anchor.approvers, place.anchor.pruners
    said = {
        "--ref": place.ref,
        "--path": place.path or None,
        "--cluster": place.cluster if place.cluster != CLUSTER_FILE else None,
        "--allowed-signers": place.trust.allowed_signers,
        "--gnupg-home": place.trust.gnupg_home,
        "--approvers": None if approvers is None else ",".join(approvers),  # an empty one names nobody
        "--pruners": None if pruners is None else ",".join(pruners),
        "--home": place.home_option,
        "--server-url": place.server_url,
        "--workspace": place.workspace,
        "--worker": place.worker,
        "--token-file": place.token_file,
    }
    flags = {"--deny-private-hosts": place.deny_private_hosts, "--worktree": place.worktree}
    for option, value in said.items():
        if value is not None and option not in takes.lacks:
            yield from (option, str(value))
    yield from (flag for flag, wanted in flags.items() if wanted and flag not in takes.lacks)
