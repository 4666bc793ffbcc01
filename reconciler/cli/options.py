"""Options that several commands share: which repository, which Hypha, how to show it. Said once, here."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from bioengine_runtime.contract.cluster import HyphaSpec
from reconciler.cli.place import Place
from reconciler.cli.show import Screen
from reconciler.cli.typed import typed
from reconciler.planning.people import Anchor
from reconciler.planning.source import CLUSTER_FILE, Trust

FORGE_TOKEN = "RECONCILE_FORGE_TOKEN"
"""Name of the variable with a token for commit statuses."""
APPROVERS, PRUNERS = "RECONCILE_APPROVERS", "RECONCILE_PRUNERS"
"""Names of the variables that say who counts, outside the repository."""


class Output(StrEnum):
    """How a plan is written to stdout."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    MARKDOWN = "markdown"


class Stream(StrEnum):
    """How an apply is told on stdout: as its result, or line by line while it goes on."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


class Form(StrEnum):
    """How an answer is written to stdout."""

    TEXT = "text"
    JSON = "json"


class LogFormat(StrEnum):
    """How the log is written to stderr."""

    TEXT = "text"
    JSON = "json"


def _address(url: str | None) -> str | None:
    """As it may stand in cluster.yaml: commands that are printed repeat it, and a password in it would be told."""
    try:
        return url and HyphaSpec(server_url=url).server_url
    except ValidationError:  # it would quote the address
        hint = "write `embedded`, or a URL like https://hypha.example; the token in HYPHA_TOKEN or by --token-file"
        raise typer.BadParameter(hint) from None


Repo = Annotated[str, typer.Argument(help="Git URL, or path of a local repository (or of a folder in one).")]
InRepo = Annotated[str, typer.Option("--repo", help="Git URL, or path of a local repository (or of a folder in one).")]
PlanOrRepo = Annotated[str, typer.Argument(metavar="[PLAN|REPO]", help="A saved plan, or a repository.")]
Ref = Annotated[str | None, typer.Option(help="Branch, tag or commit; left out: the default branch.")]
SubFolder = Annotated[str, typer.Option("--path", help="Folder of the repository that holds cluster.yaml.")]
Cluster = Annotated[
    str, typer.Option(metavar="FILE", help="Name of the cluster's file in that folder; it may extend another.")
]
Worktree = Annotated[bool, typer.Option("--worktree", help="Read uncommitted files of a local repository.")]
AllowedSigners = Annotated[
    Path | None,
    typer.Option(
        envvar="RECONCILE_ALLOWED_SIGNERS", help="Only commits signed by an SSH key of this file (ssh-keygen's format)."
    ),
]
GnupgHome = Annotated[
    Path | None,
    typer.Option(envvar="RECONCILE_GNUPG_HOME", help="Only commits signed by a key of this GnuPG folder."),
]
Approvers = Annotated[
    str | None,
    typer.Option(
        envvar=APPROVERS,
        metavar="WHO,WHO",
        help="Who may approve and order (user ids, e-mail addresses), whatever policy.approvers says.",
    ),
]
Pruners = Annotated[
    str | None,
    typer.Option(
        envvar=PRUNERS,
        metavar="WHO,WHO",
        help="Who may have apps stopped that git no longer names, whatever policy.pruners says.",
    ),
]
DenyPrivateHosts = Annotated[
    bool,
    typer.Option(
        "--deny-private-hosts",
        envvar="RECONCILE_DENY_PRIVATE_HOSTS",
        help="Refuse a repository whose host is in a private network.",
    ),
]
Targets = Annotated[
    list[str] | None, typer.Option("--target", metavar="APP", help="Only this app; may be given several times.")
]
Confirm = Annotated[
    int, typer.Option("--confirm-deletes", metavar="N", min=0, help="So many removals are meant, whatever the budget.")
]
Force = Annotated[bool, typer.Option("--force", help="Try again what was rejected; do not wait for running updates.")]
Home = Annotated[Path | None, typer.Option(help="Folder of local state; default: .bioengine beside the repository.")]
ServerUrl = Annotated[str | None, typer.Option(help="Hypha server, instead of hypha.server_url.", callback=_address)]
Workspace = Annotated[str | None, typer.Option(help="Hypha workspace, instead of hypha.workspace.")]
Worker = Annotated[str | None, typer.Option(help="Service id of the worker, instead of hypha.worker.")]
TokenFile = Annotated[Path | None, typer.Option(help="File with the token for Hypha, instead of hypha.token.")]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colours (as with NO_COLOR).")]
As = Annotated[Form, typer.Option("-o", "--output", help="How the result is written.")]
Timeout = Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long to wait for apps to come up.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Log what is done, to stderr.")]

_SOURCE = {"ref": (Ref, None), "path": (SubFolder, ""), "cluster": (Cluster, CLUSTER_FILE)}
_TRUST = {
    "allowed_signers": (AllowedSigners, None),
    "gnupg_home": (GnupgHome, None),
    "approvers": (Approvers, None),
    "pruners": (Pruners, None),
    "deny_private_hosts": (DenyPrivateHosts, False),
}
_HYPHA = {
    "server_url": (ServerUrl, None),
    "workspace": (Workspace, None),
    "worker": (Worker, None),
    "token_file": (TokenFile, None),
}
_SHOWN = {"no_color": (NoColor, False), "verbose": (Verbose, False)}


def placed(
    *,
    repository: Any = Repo,
    worktree: bool = False,
    hypha: bool = True,
    talkative: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command `(place, screen, …)` the options that say where and how, and make the two of them.

    `repository` is how it is named: as the first argument, or (InRepo) by an option after the command's own. `worktree`
    and `hypha` say whether it reads uncommitted files, and whether it speaks with Hypha."""

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[2:]
        first = [_parameter("ctx", typer.Context, inspect.Parameter.empty)]
        asked = [_parameter("repo", repository, ".")]
        before = _SOURCE | ({"worktree": (Worktree, False)} if worktree else {})
        after = _TRUST | {"home": (Home, None)} | (_HYPHA if hypha else {}) | _SHOWN

        def with_place(ctx: typer.Context, repo: str, **given: Any) -> None:
            trust = Trust(given.pop("allowed_signers"), given.pop("gnupg_home"))
            anchor = Anchor(_people(given.pop("approvers"), APPROVERS), _people(given.pop("pruners"), PRUNERS))
            screen = _screen(given.pop("no_color"), given.pop("verbose"), talkative=talkative)
            where = {name: given.pop(name) for name in (before | _HYPHA) if name in given}
            where["deny_private_hosts"] = given.pop("deny_private_hosts")
            place = Place(repo, **where, home_option=given.pop("home"), trust=trust, anchor=anchor, world=ctx.obj)
            screen.typed = partial(typed, place=place)
            command(place, screen, **given)

        with_place.__name__, with_place.__doc__ = command.__name__, command.__doc__
        said = [*own, *asked, *_parameters(before)] if repository is InRepo else [*asked, *_parameters(before), *own]
        parameters = [*first, *said, *_parameters(after)]
        with_place.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]: for typer
        return with_place

    return wrap


def _people(said: str | None, variable: str) -> tuple[str, ...] | None:
    """`ann@lab.example,bob`; "" is nobody, and None says nothing about it."""
    said = os.environ.get(variable) if said is None else said  # to click, an empty one is none
    return None if said is None else tuple(name for one in said.split(",") if (name := one.strip()))


def _parameters(table: dict[str, tuple[Any, Any]]) -> list[inspect.Parameter]:
    return [_parameter(name, annotation, default) for name, (annotation, default) in table.items()]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation, default=default)


def _screen(no_color: bool, verbose: bool, *, talkative: bool) -> Screen:
    ours = logging.getLogger("reconciler")
    ours.setLevel(logging.DEBUG if verbose else logging.INFO if talkative else logging.WARNING)
    return Screen(no_color=no_color)
