"""How a worker is started: its command line and environment, read into one value. Secrets are paths to files."""

from __future__ import annotations

import os
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bioengine_runtime.contract.status import WorkerMode
from bioengine_runtime.pace import PER_SECOND
from bioengine_runtime.worker.startup import BadStartup, Wish, read_wishes
from bioengine_runtime.worker.tokens import kept_token

TOKEN_VARIABLE = "HYPHA_TOKEN"
MODES: tuple[WorkerMode, ...] = ("single-machine", "external-cluster")
"""Those that work. In SLURM mode a worker would start nodes as they are needed, and this one starts none."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How this worker was started."""

    server_url: str
    workspace: str
    client_id: str
    service_id: str
    ray_address: str
    mode: WorkerMode
    home: Path
    token_file: Path | None
    worker_name: str
    log_file: Path | None
    debug: bool
    admin_users: tuple[str, ...]
    startup_applications: tuple[Wish, ...]
    stop_apps: bool
    """Whether the apps that this worker looks after are stopped when it is told to stop."""
    graceful_shutdown_timeout: float
    geo_location: bool
    ray_auth_token_file: Path | None
    message_rate: float

    @property
    def gateway_client_id(self) -> str:
        return f"{self.client_id}-gateway"

    @property
    def grows(self) -> bool:
        """Nodes may come when there is work for them, so what fits on none of today's is not refused."""
        return self.mode != "single-machine"

    @property
    def apps_dir(self) -> Path:
        return self.home.absolute() / "apps"

    def token(self) -> str | None:
        """The Hypha token that was given, as it is now; None when there is none (any more)."""
        if self.token_file is None:
            return os.environ.get(TOKEN_VARIABLE, "").strip() or None
        try:
            return self.token_file.read_text().strip() or None
        except OSError:
            return None


def read_settings(arguments: Sequence[str] | None = None) -> WorkerSettings:
    """From the command line. What is wrong ends the process with code 2 and a sentence that says what to do."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    at_exit = given.pop("apps_at_exit") or ("keep" if given["mode"] == "external-cluster" else "stop")
    log_file = None if given["log_file"] in (None, "off") else Path(given["log_file"])
    try:
        wishes = read_wishes(given["startup_applications"])
    except BadStartup as error:
        parser.error(str(error))
    settings = WorkerSettings(
        **{
            **given,
            "admin_users": tuple(given["admin_users"]),
            "startup_applications": wishes,
            "stop_apps": at_exit == "stop",
            "log_file": log_file,
        }
    )
    for problem in _problems(settings):
        parser.error(problem)
    return settings


def _problems(settings: WorkerSettings) -> Iterator[str]:
    """What would end the worker before it can write it into its log. Of the token: what it was given before counts."""
    home, log_file = settings.home.absolute(), settings.log_file
    if settings.token() is None and not kept_token(home).is_file():
        where = f"--token-file: {settings.token_file} holds none" if settings.token_file else "no Hypha token"
        yield f"{where}; give --token-file FILE, or set the environment variable {TOKEN_VARIABLE}"
    if log_file is not None and log_file.absolute().parent != home and not log_file.parent.is_dir():
        yield f"--log-file: there is no folder {log_file.parent}; make it, or name a file elsewhere"


class _NeverOnTheCommandLine(Action):
    def __call__(self, parser: ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        parser.error(
            "--token: everybody on this machine can read the command lines of others; put the token into a file that "
            f"only you may read and give --token-file FILE, or set the environment variable {TOKEN_VARIABLE}"
        )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m bioengine_runtime.worker",
        description="Run a BioEngine worker on a Ray cluster that runs already.",
        epilog="@FILE reads arguments from a file, one per line: for what others must not see in a list of processes.",
        fromfile_prefix_chars="@",
        allow_abbrev=False,
    )
    hypha = parser.add_argument_group("Hypha")
    hypha.add_argument("--server-url", required=True)
    hypha.add_argument("--workspace", required=True)
    hypha.add_argument(
        "--token-file", type=Path, help=f"0600 file with the worker's Hypha token; left out: {TOKEN_VARIABLE} says it"
    )
    hypha.add_argument(
        "--token", nargs="?", default=SUPPRESS, action=_NeverOnTheCommandLine, help="refused: use --token-file"
    )
    hypha.add_argument("--client-id", required=True, help="the same at every start, so that the service id stays")
    hypha.add_argument("--service-id", default="bioengine-worker")
    hypha.add_argument("--worker-name", default="BioEngine Worker", help="what people see (default: %(default)s)")
    hypha.add_argument("--admin-users", nargs="*", default=(), help="ids or e-mails, besides the token's owner")
    hypha.add_argument(
        "--message-rate",
        type=float,
        default=PER_SECOND,
        help="messages per second to Hypha at most, a tenth below its limit per client (default: %(default)g)",
    )
    ray = parser.add_argument_group("Ray")
    ray.add_argument("--ray-address", required=True, help="host:port of the Ray head")
    ray.add_argument("--mode", choices=MODES, default="single-machine", help="who owns Ray (default: %(default)s)")
    ray.add_argument("--ray-auth-token-file", type=Path, help="0600 file with the Ray cluster's token")
    worker = parser.add_argument_group("worker")
    worker.add_argument(
        "--home", "--workspace-dir", dest="home", required=True, type=Path, help="folder for apps, keys and token"
    )
    worker.add_argument("--log-file", metavar="PATH|off", help="left out or off: standard error")
    worker.add_argument("--debug", action="store_true", help="log more")
    worker.add_argument(
        "--startup-applications",
        nargs="*",
        default=(),
        metavar="JSON",
        help="parameters of deploy_app as a JSON object, one for each app to deploy after the start",
    )
    worker.add_argument(
        "--apps-at-exit",
        choices=("keep", "stop"),
        help="what becomes of the worker's apps when it is told to stop "
        "(default: keep in external-cluster mode, else stop)",
    )
    worker.add_argument(
        "--graceful-shutdown-timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long stopping may take at most (default: %(default)g)",
    )
    worker.add_argument(
        "--geo-location", action="store_true", help="show in the status where the worker is; asks a public service"
    )
    return parser
