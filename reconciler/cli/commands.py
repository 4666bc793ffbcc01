"""The commands: options in, exit code out. What they do is elsewhere; here is how it is asked for and shown."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from importlib.metadata import version as release
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from reconciler.cli import adopt_commands, doctor_commands, order_commands, pipe, record_commands, secret_commands
from reconciler.cli.ending import leave
from reconciler.cli.options import (
    FORGE_TOKEN,
    As,
    Confirm,
    Force,
    Form,
    InRepo,
    LogFormat,
    Output,
    PlanOrRepo,
    Stream,
    Targets,
    Timeout,
    placed,
)
from reconciler.cli.place import Place
from reconciler.cli.show import Screen
from reconciler.planning.steps import PlanOptions
from reconciler.telling.forges import Forge

DISTRIBUTION = "bioengine-gitops"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"reconcile {release(DISTRIBUTION)}")
        raise typer.Exit


app = typer.Typer(
    name="reconcile",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they print local variables, and a secret may be one
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Makes a BioEngine cluster run what a git repository says.

    \b
      reconcile plan                  what would change, and why
      reconcile apply                 make it so, once
      reconcile run                   make it so, and keep it so
      reconcile up example-desired-state
                                      the same, all of it on this machine

    Results go to stdout, progress and errors to stderr.

    \b
    Exit codes: 0 done, or nothing to do; 1 error; 2 plan --detailed-exitcode
    found changes; 3 refused before anything was written; 75 another
    reconciler keeps this cluster; 124 out of time; 130 interrupted.
    """,
)


@app.callback()
def _reconcile(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Say which release this is.")
    ] = False,
) -> None: ...


@app.command()
@placed(worktree=True)
def plan(
    place: Place,
    screen: Screen,
    target: Targets = None,
    confirm_deletes: Confirm = 0,
    force: Force = False,
    output: Annotated[Output, typer.Option("-o", "--output", help="How the plan is written.")] = Output.TEXT,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="REV",
            help="Ask nobody what runs: suppose that it is what this branch, tag or commit says. Needs no token.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Save the plan to this file, to apply exactly it later.")] = None,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit 2 when there is something to do, 0 when not, 1 on errors.")
    ] = False,
) -> None:
    """Show what would change, and why. Changes nothing, and runs no line of app code.

    \b
    Examples:
      reconcile plan                                    of the repository here
      reconcile plan https://git.example/lab/apps --ref v2
      reconcile plan --worktree                         of files that are not committed yet
      reconcile plan --out plan.json && reconcile apply plan.json
      reconcile plan -o markdown --detailed-exitcode    for a merge request
      reconcile plan --since main                       offline: what this branch would change of main
    """
    if since is not None and out is not None:
        raise typer.BadParameter(
            "a plan made offline cannot be applied, so it is not saved; leave --out or --since out"
        )
    options = PlanOptions(frozenset(target or ()), confirm_deletes, force)
    leave(
        screen,
        lambda: _verbs().plan(
            place, options, screen, output=output.value, out=out, detailed_exitcode=detailed_exitcode, since=since
        ),
    )


@app.command()
@placed(repository=PlanOrRepo, worktree=True)
def apply(
    place: Place,
    screen: Screen,
    target: Targets = None,
    confirm_deletes: Confirm = 0,
    force: Force = False,
    auto_approve: Annotated[bool, typer.Option("--auto-approve", help="Do not ask.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until every app it touched is up, or was rejected.")
    ] = False,
    timeout: Timeout = 900.0,
    output: Annotated[Stream, typer.Option("-o", "--output", help="How it is told.")] = Stream.TEXT,
) -> None:
    """Make it so, once. Shows the plan and asks. A saved plan is done without asking, and refused (exit 3) when
    anything moved since, or when it waits for an approval or a window. What is pushed meanwhile is left to the next.

    \b
    Examples:
      reconcile apply                      look, show, ask, do
      reconcile apply plan.json            exactly this plan
      reconcile apply --auto-approve --wait --timeout 600
      reconcile apply --target demo-app    one app only

    Exit codes: 0 done; 1 something failed; 3 refused before any change; 75 another reconciler is at work.
    """
    asked = PlanOptions(frozenset(target or ()), confirm_deletes, force)

    def begin() -> Coroutine[Any, Any, int]:
        verbs = _verbs()
        wishes = verbs.Wishes(asked, auto_approve=auto_approve, wait=wait, timeout_s=timeout, output=output.value)
        if Path(place.repository).is_file():
            return verbs.apply_saved(place, Path(place.repository), wishes, screen)
        return verbs.apply(place, wishes, screen)

    leave(screen, begin)


Webhook = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Hear webhooks there, at /webhook; needs --webhook-secret-file."),
]
WebhookSecret = Annotated[
    Path | None,
    typer.Option(help="Secrets shared with the senders, one per line. Alone, webhooks are heard through Hypha only."),
]
Page = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Show the status page there, on this machine.")]
MetricsAt = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Offer Prometheus metrics there, at /metrics.")
]


@app.command()
@placed(talkative=True)
def run(
    place: Place,
    screen: Screen,
    interval: Annotated[
        float | None, typer.Option(min=1, help="Seconds between looks, instead of those of policy.")
    ] = None,
    webhook: Webhook = None,
    webhook_secret_file: WebhookSecret = None,
    page: Page = None,
    metrics: MetricsAt = None,
    notify: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Tell news to this webhook, signed; may be given several times."),
    ] = None,
    notify_secret_file: Annotated[Path | None, typer.Option(help="The secret that signs what --notify sends.")] = None,
    commit_status: Annotated[
        Forge | None, typer.Option(help="Mark each commit with how it went, at this forge.")
    ] = None,
    forge_api: Annotated[str, typer.Option(metavar="URL", help="Root of its API, when it is not at its host.")] = "",
    status_url: Annotated[
        str, typer.Option(metavar="URL", help="Where the mark beside a commit leads, such as the status page.")
    ] = "",
    forge_token_file: Annotated[
        Path | None, typer.Option(help=f"File with a token for it, instead of ${FORGE_TOKEN}.")
    ] = None,
    private_host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="A host of a private network that may be told; http is fine there."),
    ] = None,
    log_format: Annotated[LogFormat, typer.Option(help="How the log is written to stderr.")] = LogFormat.TEXT,
) -> None:
    """Make it so, and keep it so: a pass at every interval, and soon after each commit of a local repository or each
    webhook of GitHub, GitLab, Gitea, Forgejo, or anything that signs with HMAC-SHA-256 (X-Signature-256: sha256=…).

    \b
    Examples:
      reconcile run https://git.example/lab/apps --ref main
      reconcile run https://git.example/lab/apps --webhook 127.0.0.1:8780 --webhook-secret-file hook.secret
      reconcile run https://github.com/lab/apps --commit-status github --page 127.0.0.1:8790
      HYPHA_TOKEN=… reconcile run --server-url https://hypha.example --log-format json

    Exit codes: 0 stopped as asked; 75 another reconciler keeps this cluster.
    """

    def begin() -> Coroutine[Any, Any, int]:
        from reconciler.cli import keep
        from reconciler.cli.doors import Doors
        from reconciler.cli.outlets import Outlets

        doors = Doors.read(webhook, webhook_secret_file, page, metrics)
        outlets = Outlets(
            tuple(notify or ()),
            notify_secret_file,
            commit_status,
            forge_api,
            status_url,
            forge_token_file,
            tuple(private_host or ()),
            place.repository,
        )
        return keep.run(place, screen, interval_s=interval, doors=doors, outlets=outlets)

    leave(screen, begin, as_json=log_format is LogFormat.JSON)


@app.command()
@placed(worktree=True, hypha=False, talkative=True)
def up(
    place: Place,
    screen: Screen,
    once: Annotated[
        bool, typer.Option("--once", help="One pass; wait until every app is up, call each once, stop everything.")
    ] = False,
    timeout: Timeout = 900.0,
    webhook: Webhook = None,
    webhook_secret_file: WebhookSecret = None,
    page: Page = None,
    metrics: MetricsAt = None,
) -> None:
    """Everything on this machine: starts Hypha, Ray and the worker, then makes it so and keeps it so until Ctrl-C.

    \b
    Examples:
      reconcile up example-desired-state
      reconcile up example-desired-state --once
      reconcile up example-desired-state --page 127.0.0.1:8790

    Exit codes: 0 stopped as asked, everything up; 1 something is not; 75 another process has the home.
    """

    def begin() -> Coroutine[Any, Any, int]:
        from reconciler.cli.doors import Doors
        from reconciler.cli.up import up as start

        doors = Doors.read(webhook, webhook_secret_file, page, metrics)
        return start(place, screen, doors=doors, once=once, timeout_s=timeout)

    leave(screen, begin)


@app.command()
@placed(worktree=True, hypha=False)
def validate(
    place: Place,
    screen: Screen,
) -> None:
    """Check the repository, and say everything that is wrong at once. Asks nobody but git.

    \b
    Examples:
      reconcile validate --worktree       before a commit
      reconcile validate --ref my-branch
    """
    leave(screen, lambda: _verbs().validate(place, screen))


@app.command()
@placed()
def get(
    place: Place,
    screen: Screen,
    output: As = Form.TEXT,
) -> None:
    """List the apps: are they what git says, and are they well.

    \b
    Examples:
      reconcile get
      reconcile get -o json | jq '.apps[] | select(.health != "Healthy")'
    """
    leave(screen, lambda: _verbs().get(place, screen, as_json=output is Form.JSON))


App = Annotated[str, typer.Argument(metavar="APP", help="Id of the app.")]
DIFF_TROUBLE = 2
"""As diff(1) has it: 1 says that there is a difference."""


@app.command()
@placed()
def diff(place: Place, screen: Screen) -> None:
    """Show only what differs between git and what runs. Exit codes as diff(1): 0 nothing, 1 something, 2 trouble.

    \b
    Examples:
      reconcile diff && echo in sync
    """
    leave(screen, lambda: _asking().diff(place, screen), trouble=DIFF_TROUBLE)


@app.command()
@placed(repository=InRepo)
def explain(place: Place, screen: Screen, app_id: App, output: As = Form.TEXT) -> None:
    """Why is an app as it is: what git wants, what runs, what differs, why nothing happens, what to do.

    \b
    Examples:
      reconcile explain demo-app
      reconcile explain demo-app --repo https://git.example/lab/apps -o json

    Exit codes: 0 in sync and healthy; 1 not.
    """
    leave(screen, lambda: _asking().explain(place, app_id, screen, as_json=output is Form.JSON))


@app.command()
@placed(repository=InRepo)
def trace(place: Place, screen: Screen, app_id: App, output: As = Form.TEXT) -> None:
    """Follow an app from its commit to its processes: commit, folder, artifact, app, replicas, and whether each holds.

    \b
    Examples:
      reconcile trace demo-app

    Exit codes: 0 every link was seen to hold; 1 not.
    """
    leave(screen, lambda: _asking().trace(place, app_id, screen, as_json=output is Form.JSON))


@app.command()
@placed(repository=InRepo)
def wait(
    place: Place,
    screen: Screen,
    apps: Annotated[list[str] | None, typer.Argument(metavar="[APP]...", help="Left out: all in cluster.yaml.")] = None,
    timeout: Timeout = 900.0,
) -> None:
    """Wait until apps are what git says, and healthy. Changes nothing.

    \b
    Examples:
      git push && reconcile wait demo-app --timeout 300

    Exit codes: 0 all are; 1 one cannot become so by waiting; 124 out of time.
    """
    leave(screen, lambda: _asking().wait(place, apps or (), screen, timeout_s=timeout))


@app.command()
def schema(
    name: Annotated[str | None, typer.Argument(help="Which one; left out: the list of them.")] = None,
) -> None:
    """Print a JSON Schema of the files that people write.

    \b
    Examples:
      reconcile schema
      reconcile schema cluster > cluster.schema.json
    """
    from reconciler.schemas import published, text

    schemas = published()
    if name is None:
        sys.stdout.write("".join(f"{known}\n" for known in schemas))
        return
    found = next((known for known in schemas if name in (known, known.split(".")[0])), None)
    if found is None:
        raise typer.BadParameter(f"no schema {name!r}; there are {', '.join(schemas)}")
    sys.stdout.write(text(schemas[found]))


for more in (record_commands, order_commands, secret_commands, doctor_commands, adopt_commands):
    more.add_to(app)


def main() -> None:
    """The console script. Usage errors exit 1, for 2 means that a plan has changes; but those of diff."""
    pipe.begin()
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        code = 130
    except TyperException as error:
        if message := error.format_message():  # none when it was only asked for help
            sys.stderr.write(f"Error: {message}\nfix: see reconcile --help, or reconcile COMMAND --help\n")
        context = getattr(error, "ctx", None)
        code = DIFF_TROUBLE if context and context.info_name == "diff" else 1
    sys.exit(pipe.end(code if isinstance(code, int) else 0))


def _verbs():
    from reconciler.cli import verbs

    return verbs


def _asking():
    from reconciler.cli import asking

    return asking
