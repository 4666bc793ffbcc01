"""The commands: history, events, lock."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from reconciler.cli.ending import leave
from reconciler.cli.options import InRepo, placed
from reconciler.cli.place import Place
from reconciler.cli.show import Screen


class Shape(StrEnum):
    """How entries are written to stdout; jsonl is one per line."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


In = Annotated[Shape, typer.Option("-o", "--output", help="How the result is written.")]
OneApp = Annotated[str, typer.Argument(metavar="[APP]", help="Only this app; left out: all.")]


def add_to(app: typer.Typer) -> None:
    """Give `reconcile` these commands."""

    @app.command()
    @placed(repository=InRepo)
    def history(
        place: Place,
        screen: Screen,
        app_id: OneApp = "",
        output: In = Shape.TEXT,
        limit: Annotated[int, typer.Option(min=1, help="So many entries, the newest first.")] = 30,
    ) -> None:
        """What was done to this cluster: who, what, when, with which result. Newest first.

        \b
        Examples:
          reconcile history
          reconcile history demo-app --limit 100
          reconcile history -o jsonl | jq 'select(.result == "failed")'
        """
        from reconciler.cli.record import history as show

        leave(screen, lambda: show(place, app_id, screen, output=output.value, limit=limit))

    @app.command()
    @placed(repository=InRepo)
    def events(
        place: Place,
        screen: Screen,
        app_id: OneApp = "",
        output: In = Shape.TEXT,
        follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on, until Ctrl-C.")] = False,
    ) -> None:
        """What happened in the last hour, newest last.

        \b
        Examples:
          reconcile events
          reconcile events -f
          reconcile events demo-app -f -o jsonl
        """
        from reconciler.cli.record import events as show

        leave(screen, lambda: show(place, app_id, screen, output=output.value, follow=follow))

    @app.command()
    @placed(repository=InRepo)
    def lock(
        place: Place,
        screen: Screen,
        release: Annotated[bool, typer.Option("--release", help="Take it away from one that is dead.")] = False,
        forget: Annotated[
            bool, typer.Option("--forget", help="Start anew what can no longer be read; forgets all orders.")
        ] = False,
        auto_approve: Annotated[bool, typer.Option("--auto-approve", help="Do not ask.")] = False,
    ) -> None:
        """Which reconciler keeps this cluster: one at a time may write.

        \b
        Examples:
          reconcile lock
          reconcile lock --release            when its machine is gone

        Exit codes: 0 done; 1 it cannot be read; 3 not approved; 75 the holder lives, so it is not taken away.
        """
        from reconciler.cli import record

        if release and forget:
            raise typer.BadParameter("--release takes the lock away, --forget forgets all orders, too: say one of them")
        if forget:
            leave(screen, lambda: record.forget(place, screen, auto_approve=auto_approve))
        elif release:
            leave(screen, lambda: record.release(place, screen, auto_approve=auto_approve))
        else:
            leave(screen, lambda: record.lock(place, screen))
