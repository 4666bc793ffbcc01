"""The console script: groups of commands, and how a run ends."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from typer.exceptions import TyperException

from bioengine_runtime.command import apps, call, cluster

DISTRIBUTION = "bioengine-gitops"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bioengine {version(DISTRIBUTION)}")
        raise typer.Exit


app = typer.Typer(
    name="bioengine",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they print local variables, and a token may be one
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Runs apps on a BioEngine worker, and calls them.

    \b
      bioengine apps deploy ./my-app --app-id my-app --wait    upload a folder and run it
      bioengine apps status my-app                             is it well, and where
      bioengine call WORKSPACE/my-app --list-methods           what it can do
      bioengine call WORKSPACE/my-app ping                     do it
      bioengine cluster status                                 what the cluster has left

    \b
    Environment:
      BIOENGINE_WORKER_SERVICE_ID   the worker, as --worker
      HYPHA_TOKEN, BIOENGINE_TOKEN  who you are, as --token; a token in the environment is in no process list
      BIOENGINE_SERVER_URL          the Hypha server; default https://hypha.aicell.io

    Results go to stdout; progress, errors and the next command to type go to stderr.
    Exit codes: 0 done; 1 not done; 2 the command was not understood; 130 interrupted.
    """,
)


@app.callback()
def _bioengine(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Say which release this is.")
    ] = False,
) -> None: ...


app.add_typer(apps.app, name="apps")
app.add_typer(cluster.app, name="cluster")
app.command()(call.call)


def main() -> None:
    """Parse, run, exit. When the reader of our output went away (`| head`), there is nobody to tell."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        sys.stderr.write("Error: Nothing was done: it was not confirmed.\n")
        code = 1
    except TyperException as error:
        code = _usage(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter flushes into it at its end
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: TyperException) -> int:
    if message := error.format_message():  # none when it was only asked for help
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "bioengine"
        sys.stderr.write(f"Error: {message}\nHint:  {command} --help\n")
        return error.exit_code
    return 0
