"""`bioengine apps`: upload, run, look after and stop apps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from bioengine_runtime.command.deploying import Wish, checked, how_to_call, newest_version, send, start, variables
from bioengine_runtime.command.lines import Follower, lines_of
from bioengine_runtime.command.place import (
    DEFAULT_SERVER,
    Json,
    Place,
    ServerUrl,
    Timeout,
    Token,
    Wait,
    Worker,
    place_of,
)
from bioengine_runtime.command.trouble import Trouble
from bioengine_runtime.command.views import app_in_full, apps_table, artifacts_table, log_line, log_lines
from bioengine_runtime.command.waiting import NO_LOGS, statuses_of, wait_until_gone, wait_until_up

UPLOAD_TIMEOUT_S = 900.0
FOLLOW_EVERY_S = 2.0
FOLLOWED = 1000
"""Lines of each replica that are compared at every look."""

app = typer.Typer(help="Upload, run, look after and stop apps.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="APP_DIR", help="Folder with a manifest.yaml.")]
AppIdOption = Annotated[
    str | None,
    typer.Option("--app-id", metavar="ID", help="The instance to update or make; left out: a new one, a new id."),
]
Gpu = Annotated[
    bool | None,
    typer.Option("--gpu/--no-gpu", show_default=False, help="Take GPUs or not; left out: as it runs, at first yes."),
]
Env = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="K=V",
        help="A variable of the app; several times. _NAME=V is a secret: the app sees NAME, nobody else sees it. "
        "A name alone (_NAME) takes the value of NAME here, which keeps it out of the process list.",
    ),
]
HyphaToken = Annotated[
    str | None,
    typer.Option(
        "--hypha-token",
        metavar="TOKEN",
        help="A token for the app itself (HYPHA_TOKEN in it); '' takes it away. Left out: the one it has, if any; your "
        "own is never given to an app unless you say so (older releases of this command did). --env _HYPHA_TOKEN "
        "passes yours on.",
    ),
]
Public = Annotated[
    bool,
    typer.Option(
        "--public",
        help="Kept for old scripts; changes nothing: uploaded folders can be read by everybody anyway, and who may "
        "call the app is `authorized_users` in its manifest.",
    ),
]


@app.command()
def upload(
    ctx: typer.Context,
    app_dir: Folder,
    public: Public = False,
    worker: Worker = None,
    token: Token = None,
    server_url: ServerUrl = DEFAULT_SERVER,
) -> None:
    """Check a folder and store it as a new version of its app. Running apps are not touched.

    Everything wrong is said at once, before anything is sent: the manifest, the classes it names (their code is read,
    never run), requirements, symbolic links. Taken are at most 2000 files and 100 MiB; __pycache__ and the folders of
    version control are left out. A version is stored whole or not at all, holds exactly the files of the folder, and
    stays as it is: other files under the same number are kept beside it, and are the newest then.

    \b
    Examples:
      bioengine apps upload ./my-app
      bioengine apps upload ./my-app && bioengine apps run my-workspace/my-app --app-id my-app --wait
    """
    place = place_of(ctx, server_url, token, worker)

    async def work() -> None:
        folder = await asyncio.to_thread(checked, app_dir)
        if public:
            place.screen.note(
                "Note: --public changes nothing; who may call the app is authorized_users in its manifest.", "yellow"
            )
        async with await place.the_worker(as_somebody=True, timeout_s=UPLOAD_TIMEOUT_S) as service:
            artifact_id = await send(place, service, folder)
        place.screen.result(f"Application created successfully!\nArtifact ID: {artifact_id}")
        place.screen.next(place.command("apps", "run", artifact_id, "--app-id", folder.manifest.id, "--wait"))

    place.run(work)


@app.command()
def run(
    ctx: typer.Context,
    artifact_id: Annotated[str, typer.Argument(metavar="ARTIFACT_ID", help="WORKSPACE/ALIAS, or the alias alone.")],
    app_id: AppIdOption = None,
    version: Annotated[str | None, typer.Option("--version", help="Left out: the newest.")] = None,
    gpu: Gpu = None,
    env: Env = None,
    hypha_token: HyphaToken = None,
    wait: Wait = False,
    timeout: Timeout = 600.0,
    worker: Worker = None,
    token: Token = None,
    server_url: ServerUrl = DEFAULT_SERVER,
) -> None:
    """Run an uploaded app, or update the one that runs under --app-id.

    An update keeps what you do not name: variables, secrets, tokens, parameters, GPU use. Only the version moves to the
    newest, unless you name one, and with it who may call the app, as its manifest says. Callers are served throughout;
    a version that does not come up leaves the old one.
    With --env, the plain variables you give replace those it has; secrets you do not name stay.

    \b
    Examples:
      bioengine apps run my-workspace/my-app --app-id my-app --wait
      bioengine apps run my-workspace/my-app --app-id my-app --version 1.2.0      back to an older one
      API_KEY=… bioengine apps run my-app --app-id my-app --env LEVEL=3 --env _API_KEY
    """
    place = place_of(ctx, server_url, token, worker)
    wish = Wish(app_id, version, _disabled(gpu), variables(env or []), hypha_token)

    async def work() -> None:
        async with await place.the_worker(as_somebody=True, timeout_s=timeout) as service:
            await start(place, service, artifact_id, wish, wait=wait, timeout_s=timeout)

    place.run(work, secrets=wish.secrets)


@app.command()
def deploy(
    ctx: typer.Context,
    app_dir: Folder,
    app_id: AppIdOption = None,
    gpu: Gpu = None,
    env: Env = None,
    hypha_token: HyphaToken = None,
    wait: Wait = False,
    timeout: Timeout = 600.0,
    worker: Worker = None,
    token: Token = None,
    server_url: ServerUrl = DEFAULT_SERVER,
) -> None:
    """Upload a folder and run exactly that version: `apps upload`, then `apps run`.

    \b
    Examples:
      bioengine apps deploy ./my-app --app-id my-app --wait
      bioengine apps deploy ./my-app --app-id my-app --no-gpu --env LEVEL=3
      bioengine apps deploy ./my-app --app-id my-app --env _HYPHA_TOKEN     the app acts as you
    """
    place = place_of(ctx, server_url, token, worker)
    env_variables = variables(env or [])

    async def work() -> None:
        folder = await asyncio.to_thread(checked, app_dir)
        async with await place.the_worker(as_somebody=True, timeout_s=max(timeout, UPLOAD_TIMEOUT_S)) as service:
            artifact_id = await send(place, service, folder)
            place.screen.result(f"Artifact ID: {artifact_id}")
            version = await newest_version(service, artifact_id)
            wish = Wish(app_id, version, _disabled(gpu), env_variables, hypha_token)
            await start(place, service, artifact_id, wish, wait=wait, timeout_s=timeout)

    place.run(work, secrets=Wish(env=env_variables, hypha_token=hypha_token).secrets)


@app.command("list")
def list_(
    ctx: typer.Context,
    as_json: Json = False,
    worker: Worker = None,
    token: Token = None,
    server_url: ServerUrl = DEFAULT_SERVER,
) -> None:
    """List the uploaded app folders, and which apps run from them.

    \b
    Examples:
      bioengine apps list
      bioengine apps list --json | jq keys
    """
    place = place_of(ctx, server_url, token, worker, json=as_json)

    async def work() -> None:
        async with await place.the_worker() as service:
            artifacts: dict[str, Any] = await service.ask("list_apps")
            if as_json:
                place.screen.document(artifacts)
                return
            running = await statuses_of(service, None, NO_LOGS)
        if artifacts:
            place.screen.result(artifacts_table(artifacts, running))
            place.screen.next(place.command("apps", "run", sorted(artifacts)[0], "--app-id", "ID", "--wait"))
        else:
            place.screen.note("There are no app folders yet.")
            place.screen.next(place.command("apps", "upload", "./my-app"))

    place.run(work)


@app.command()
def status(
    ctx: typer.Context,
    app_ids: Annotated[list[str] | None, typer.Argument(metavar="[APP_ID]...", help="Left out: all.")] = None,
    logs: Annotated[
        int | None, typer.Option("--logs", metavar="N", min=-1, help="Show the last N lines of each replica; -1: all.")
    ] = None,
    as_json: Json = False,
    wait: Wait = False,
    timeout: Timeout = 600.0,
    worker: Worker = None,
    token: Token = None,
    server_url: ServerUrl = DEFAULT_SERVER,
) -> None:
    """Show the running apps; those that are named in full.

    \b
    Examples:
      bioengine apps status
      bioengine apps status my-app --logs 50
      bioengine apps status my-app --wait --timeout 120     exit 1 when it is not up by then
      bioengine apps status --json | jq 'map_values(.status)'
    """
    place = place_of(ctx, server_url, token, worker, json=as_json)

    async def work() -> None:
        # The wire's own default, for those who read the whole answer.
        tail = logs if logs is not None else 30 if as_json else NO_LOGS
        async with await place.the_worker() as service:
            if wait:
                waited_for = app_ids or list(await statuses_of(service, None, NO_LOGS))
                if waited_for:
                    await wait_until_up(place, service, waited_for, timeout)
            statuses = await statuses_of(service, app_ids or None, tail)
        if as_json:
            place.screen.document(statuses)
            return
        if not statuses:
            place.screen.note("No app is running.")
            place.screen.next(place.command("apps", "list"))
            return
        place.screen.result(apps_table(statuses))
        for app_id, one in statuses.items() if app_ids or logs is not None else ():
            place.screen.result("")
            for line in app_in_full(app_id, one):
                place.screen.result(line)
            for line in log_lines(one) if logs is not None else ():
                place.screen.result(line)
        app_id, one = next(iter(statuses.items()))
        if one.get("status") == "RUNNING":
            place.screen.next(how_to_call(place, app_id, one))
        elif one.get("status") == "NOT_RUNNING" and not one.get("deployments"):
            place.screen.next(place.command("apps", "status"))
        else:
            place.screen.next(place.command("apps", "logs", app_id, "--previous", "1"))

    place.run(work)


@app.command()
def logs(
    ctx: typer.Context,
    app_id: Annotated[str, typer.Argument(metavar="APP_ID", help="The app.")],
    tail: Annotated[int, typer.Option("--tail", "-n", metavar="N", min=-1, help="Lines per replica; -1: all.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")] = False,
    previous: Annotated[
        int, typer.Option("--previous", metavar="N", min=-1, help="Also of the last N replicas that are gone; -1: all.")
    ] = 0,
    as_json: Json = False,
    worker: Worker = None,
    token: Token = None,
    server_url: ServerUrl = DEFAULT_SERVER,
) -> None:
    """Show what an app's replicas wrote, each line with the replica that wrote it.

    \b
    Examples:
      bioengine apps logs my-app -n 20
      bioengine apps logs my-app -f
      bioengine apps logs my-app --previous 1       also of the replica that crashed
    """
    place = place_of(ctx, server_url, token, worker, json=as_json)
    if follow and as_json:
        raise typer.BadParameter("cannot go with --json, which is one document", param_hint="--follow")
    if follow:
        place.run(lambda: _follow(place, app_id, tail, previous), interrupted=0)
        return

    async def work() -> None:
        async with await place.the_worker() as service:
            found = (await statuses_of(service, [app_id], tail, previous))[app_id]
        if found.get("status") == "NOT_RUNNING" and not found.get("deployments"):
            raise _not_running(place, app_id)
        if as_json:
            deployments = found.get("deployments") or {}
            place.screen.document({name: one.get("logs") for name, one in deployments.items()})
            return
        lines = list(log_lines(found))
        for line in lines:
            place.screen.result(line)
        if not lines:
            place.screen.note(f"{app_id} wrote nothing, or you may not see its lines.")
        place.screen.next(place.command("apps", "logs", app_id, "--follow"))

    place.run(work)


@app.command()
def stop(
    ctx: typer.Context,
    app_id: Annotated[str, typer.Argument(metavar="APP_ID", help="The app.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Wait = False,
    timeout: Timeout = 120.0,
    worker: Worker = None,
    token: Token = None,
    server_url: ServerUrl = DEFAULT_SERVER,
) -> None:
    """Stop an app. Its uploaded folder stays.

    \b
    Examples:
      bioengine apps stop my-app
      bioengine apps stop my-app --yes --wait       answers when it is really gone
    """
    place = place_of(ctx, server_url, token, worker)
    if not yes:
        _confirm(f"Stop {app_id}? Its callers will be refused.")

    async def work() -> None:
        async with await place.the_worker(as_somebody=True, timeout_s=timeout) as service:
            await service.ask("stop_app", application_id=app_id)
            if wait:
                await wait_until_gone(place, service, app_id, timeout)
        if wait:
            place.screen.result(f"{app_id} is stopped.")
            place.screen.next(place.command("apps", "list"))
        else:
            place.screen.result(f"Stopping {app_id}.")
            place.screen.next(place.command("apps", "status", app_id))

    place.run(work)


def _confirm(question: str) -> None:
    """Raises Abort unless the answer is yes."""
    try:
        sure = typer.confirm(question, err=True)
    except typer.Abort:  # nobody answers, so the question's line has not ended
        typer.echo(err=True)
        raise
    if not sure:
        raise typer.Abort


def _disabled(gpu: bool | None) -> bool | None:
    return None if gpu is None else not gpu


def _not_running(place: Place, app_id: str) -> Trouble:
    return Trouble(f"{app_id} is not running.", f"What runs: {place.command('apps', 'status')}")


async def _follow(place: Place, app_id: str, tail: int, previous: int) -> None:
    """New lines as they come, through lost connections, until the app is gone. Raises Trouble if it never was there."""
    follower, window, begun = Follower(), tail if tail == -1 else max(tail, FOLLOWED), False
    while True:
        try:
            async with await place.the_worker() as service:
                while True:
                    found = (await statuses_of(service, [app_id], window, previous))[app_id]
                    if found.get("status") == "NOT_RUNNING":
                        break
                    for origin, lines in follower.fresh(lines_of(found)).items():
                        for line in lines if begun or tail == -1 else lines[len(lines) - min(tail, len(lines)) :]:
                            place.screen.result(log_line(str(origin), line))
                    begun = True
                    await asyncio.sleep(FOLLOW_EVERY_S)
        except Trouble as trouble:
            if not begun:
                raise
            place.screen.note(f"{trouble.message} Trying again.", "yellow")
            await asyncio.sleep(FOLLOW_EVERY_S)
            continue
        if not begun:
            raise _not_running(place, app_id)
        place.screen.note(f"{app_id} is not running any more.")
        return
