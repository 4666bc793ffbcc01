"""The command adopt."""

from __future__ import annotations

from typing import Annotated

import typer

from reconciler.cli.ending import leave
from reconciler.cli.options import InRepo, placed
from reconciler.cli.place import Place
from reconciler.cli.show import Screen


def add_to(app: typer.Typer) -> None:
    """Give `reconcile` this command."""

    @app.command()
    @placed(repository=InRepo)
    def adopt(
        place: Place,
        screen: Screen,
        apps: Annotated[list[str] | None, typer.Argument(metavar="[APP]...", help="Apps that people deployed.")] = None,
        all_of_them: Annotated[bool, typer.Option("--all", help="All that people deployed.")] = False,
    ) -> None:
        """Write apps that somebody deployed by hand into cluster.yaml, as they run now. Changes nothing that runs.

        \b
        Examples:
          reconcile adopt segmenter
          reconcile adopt --all --repo new-repository --server-url https://hypha.example
                                          a whole repository from what a worker runs
        """
        from reconciler.cli.adopt import adopt as write

        leave(screen, lambda: write(place, apps or (), screen, all_of_them=all_of_them))
