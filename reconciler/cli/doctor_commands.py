"""The commands: doctor."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from reconciler.cli.ending import leave
from reconciler.cli.options import As, Form, placed
from reconciler.cli.place import Place
from reconciler.cli.show import Screen


def add_to(app: typer.Typer) -> None:
    """Give `reconcile` these commands."""
    app.command()(doctor)


@placed(worktree=True)
def doctor(
    place: Place,
    screen: Screen,
    webhook_secret_file: Annotated[
        Path | None, typer.Option(help="Look at the secrets that `run` would take for webhooks, too.")
    ] = None,
    output: As = Form.TEXT,
) -> None:
    """Look at everything that is needed, and say how to mend what is not well. Changes nothing.

    \b
    Examples:
      reconcile doctor
      reconcile doctor https://git.example/lab/apps --server-url https://hypha.example --token-file token
      reconcile doctor -o json | jq '.checks[] | select(.level == "fail")'

    Exit codes: 0 nothing fails; 1 something does.
    """

    def begin() -> Coroutine[Any, Any, int]:
        from reconciler.cli.doctor import doctor as examined

        return examined(place, screen, webhook_secret_file=webhook_secret_file, as_json=output is Form.JSON)

    leave(screen, begin)
