"""Where a command works and as whom: the options that all commands share, and one run of a command."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from bioengine_runtime.command.connect import Address, Connect, Service, connected, open_service, signed_in
from bioengine_runtime.command.show import Screen
from bioengine_runtime.command.trouble import Trouble

DEFAULT_SERVER = "https://hypha.aicell.io"
SERVER_VARIABLE = "BIOENGINE_SERVER_URL"
WORKER_VARIABLE = "BIOENGINE_WORKER_SERVICE_ID"
TOKEN_VARIABLES = ["HYPHA_TOKEN", "BIOENGINE_TOKEN"]

Worker = Annotated[
    str | None,
    typer.Option("--worker", metavar="ID", envvar=WORKER_VARIABLE, help="Service id of the worker."),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token", metavar="TOKEN", envvar=TOKEN_VARIABLES, help="Who you are; left out: nobody in particular."
    ),
]
ServerUrl = Annotated[
    str, typer.Option("--server-url", metavar="URL", envvar=SERVER_VARIABLE, hidden=True, help="The Hypha server.")
]
Json = Annotated[bool, typer.Option("--json", help="The whole answer as JSON, for programs.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it is so.")]
Timeout = Annotated[float, typer.Option("--timeout", min=1, metavar="SECONDS", help="How long to wait.")]


@dataclass(frozen=True, slots=True)
class Place:
    """One run of a command. `connect` is how the server is reached; tests hand in their own."""

    server_url: str
    token: str | None = field(repr=False)
    worker: str | None = None
    connect: Connect = connected
    screen: Screen = field(default_factory=Screen)

    def run(
        self,
        work: Callable[[], Coroutine[Any, Any, None]],
        *,
        secrets: Collection[str | None] = (),
        interrupted: int = 130,
    ) -> None:
        """Run to the exit code; a trouble is shown and ends in 1, Ctrl-C in `interrupted`. No secret is ever shown."""
        self.screen.hide(self.token, *secrets)
        try:
            asyncio.run(work())
        except Trouble as trouble:
            self.screen.error(trouble.message, trouble.hint)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(interrupted) from None

    async def the_worker(self, *, as_somebody: bool = False, timeout_s: float = 60.0) -> Service:
        """The worker; `as_somebody` asks a person at a terminal to log in when there is no token. Raises Trouble."""
        if not self.worker:
            raise Trouble(
                "No worker is named.", f"Pass --worker WORKSPACE/bioengine-worker, or set {WORKER_VARIABLE} to it."
            )
        return await self._open(self.worker, as_somebody, timeout_s, pick=False)

    async def service(self, service_id: str, *, timeout_s: float) -> Service:
        """Any service; of several that answer to this id, one that lives. Raises Trouble."""
        return await self._open(service_id, False, timeout_s, pick=True)

    async def _open(self, service_id: str, as_somebody: bool, timeout_s: float, *, pick: bool) -> Service:
        token = self.token
        if token is None and as_somebody and self.screen.is_attended:
            token = await signed_in(self.server_url, self.screen.note)
            self.screen.hide(token)
        address = Address(self.server_url, token, timeout_s)
        return await open_service(self.connect, address, service_id, note=self.screen.note if pick else None)

    def command(self, *words: str, worker: bool = True) -> str:
        """A command to type next, with the options that this one was given and the next one needs; never the token."""
        said = [
            ("--worker", self.worker if worker else None, os.environ.get(WORKER_VARIABLE)),
            ("--server-url", self.server_url, os.environ.get(SERVER_VARIABLE, DEFAULT_SERVER)),
        ]
        options = [word for name, value, known in said if value and value != known for word in (name, value)]
        return shlex.join(["bioengine", *words, *options])


def place_of(
    ctx: typer.Context, server_url: str, token: str | None, worker: str | None = None, *, json: bool = False
) -> Place:
    """The place that the options name. With `json`, nothing but errors is said besides the answer."""
    return Place(server_url.rstrip("/"), token or None, worker or None, ctx.obj or connected, Screen(quiet=json))
