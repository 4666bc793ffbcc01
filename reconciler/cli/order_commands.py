"""The commands suspend, resume, approve, rollback and retry."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from reconciler.cli.ending import leave
from reconciler.cli.options import InRepo, Timeout, placed
from reconciler.cli.place import Place
from reconciler.cli.show import Screen

App = Annotated[str, typer.Argument(metavar="APP", help="Id of the app.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; shown wherever the app is shown.")]


def add_to(app: typer.Typer) -> None:
    """Give `reconcile` these commands."""

    @app.command()
    @placed(repository=InRepo)
    def suspend(
        place: Place,
        screen: Screen,
        app_id: App,
        reason: Annotated[str, typer.Option("--reason", help="Why; shown wherever the app is shown.", prompt=True)],
        until: Annotated[
            datetime | None, typer.Option(help="Local time at which it ends by itself; left out: resume ends it.")
        ] = None,
        once: Annotated[bool, typer.Option("--once", help="Let the next commit through, that one only.")] = False,
    ) -> None:
        """Change nothing about an app for a while, whatever git says.

        \b
        Examples:
          reconcile suspend segmenter --reason "measuring until Friday" --until 2026-12-04T18:00
        """
        leave(screen, lambda: _orders().suspend(place, app_id, screen, reason=reason, until=until, once=once))

    @app.command()
    @placed(repository=InRepo)
    def resume(place: Place, screen: Screen, app_id: App) -> None:
        """Follow an app again that `reconcile suspend` suspended, or `reconcile rollback` took back.

        \b
        Examples:
          reconcile resume segmenter
        """
        leave(screen, lambda: _orders().resume(place, app_id, screen))

    @app.command()
    @placed(repository=InRepo)
    def approve(
        place: Place,
        screen: Screen,
        plan_id: Annotated[str, typer.Argument(metavar="PLAN", help="Its id, from reconcile plan.")],
        reason: Reason = "",
    ) -> None:
        """Let the reconciler carry out this plan, though it waits for somebody to say so, or for its window.

        \b
        Examples:
          reconcile plan            shows the plan and its id
          reconcile approve p-9c1e7d2-5b0e
        """
        leave(screen, lambda: _orders().approve(place, plan_id, screen, reason=reason))

    @app.command()
    @placed(repository=InRepo)
    def rollback(
        place: Place,
        screen: Screen,
        app_id: App,
        to: Annotated[str, typer.Option(metavar="COMMIT", help="Left out: the last that was deployed before.")] = "",
        reason: Reason = "",
        timeout: Timeout = 900.0,
    ) -> None:
        """Run an app as an older commit has it, until git asks for something else. Nothing is uploaded.

        \b
        Examples:
          reconcile rollback segmenter
          reconcile rollback segmenter --to 4c45ada --reason "masks are empty"
        """
        leave(screen, lambda: _orders().rollback(place, app_id, screen, to=to, reason=reason, timeout_s=timeout))

    @app.command()
    @placed(repository=InRepo)
    def retry(place: Place, screen: Screen, app_id: App, timeout: Timeout = 900.0) -> None:
        """Try an app again whose version was rejected. Nothing else is touched.

        \b
        Examples:
          reconcile retry segmenter        once what it needed is there again
        """
        leave(screen, lambda: _orders().retry(place, app_id, screen, timeout_s=timeout))


def _orders():
    from reconciler.cli import orders

    return orders
