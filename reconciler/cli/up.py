"""`reconcile up`: the embedded default, then the same passes as anywhere, until somebody says stop."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeVar

from rich.text import Text

from bioengine_runtime.contract.cluster import EMBEDDED
from bioengine_runtime.contract.status import AppState
from reconciler.adapters.hypha import HyphaSession, RemoteError
from reconciler.board import Board
from reconciler.cli.doors import Doors
from reconciler.cli.keep import on_signals, show
from reconciler.cli.keeper import Keeper
from reconciler.cli.place import Front, Place, address_of, alone, opened
from reconciler.cli.show import Screen
from reconciler.cli.verbs import show_settled
from reconciler.errors import HomeInUse, ReconcilerError, Remedy, Unreachable
from reconciler.planning import render_text
from reconciler.planning.declare import declare
from reconciler.planning.steps import PlanOptions
from reconciler.ports import World
from reconciler.reconcile import carry_out, look
from reconciler.secrets import LocalSecrets
from reconciler.settle import Verdict, Waited, judge, reconcile_until_settled

if TYPE_CHECKING:
    from bioengine_runtime.local.embedded import Embedded
    from bioengine_runtime.local.progress import StartEvent

Value = TypeVar("Value")


class NotStarted(ReconcilerError):
    """The embedded default, or a part of it, does not run."""

    remedy = Remedy.OPERATOR


async def up(place: Place, screen: Screen, *, doors: Doors, once: bool, timeout_s: float) -> int:
    from bioengine_runtime.local.errors import HomeBusy, LocalError

    _require_local()
    stop = asyncio.Event()
    on_signals(stop)
    await _check(place, screen)
    try:
        code = await _unless(stop, _live(place, screen, doors, once=once, timeout_s=timeout_s))
    except HomeBusy as busy:
        raise HomeInUse(busy.message, hint=busy.hint) from None
    except LocalError as error:
        log_file = f" Its log: {error.log_file}" if error.log_file else ""
        raise NotStarted(error.message, hint=f"{error.hint}{log_file}") from None
    if code is None:
        screen.note("Stopped; nothing is left running.")
        return 1 if once else 0
    return code


def _require_local() -> None:
    """The light installation plans and applies; only this command needs Ray and what starts it."""
    missing = [name for name in ("ray", "psutil") if importlib.util.find_spec(name) is None]
    if missing:
        raise NotStarted(
            f"`reconcile up` needs {' and '.join(missing)}, which this installation lacks",
            hint="in a checkout: make setup; elsewhere: pip install 'bioengine-gitops[local]'",
        )


async def _live(place: Place, screen: Screen, doors: Doors, *, once: bool, timeout_s: float) -> int:
    """Start everything, and stop it all however this ends: cut off anywhere, too."""
    from bioengine_runtime.local.embedded import embedded

    async with embedded(place.home, progress=_StartProgress(screen)) as there:
        front = Front(Board(lambda text: screen.masked(text)))
        with alone(place.home):
            async with opened(place, writes=True, front=front) as world, AsyncExitStack() as ends:
                screen.masked = world.secrets.masked
                keeper = Keeper(world, asyncio.Event())
                await show(keeper, front, doors, place, screen, ends)
                waited = await _first_pass(world, screen, timeout_s)
                state = await waited.last.look.hypha.runtime.observe()
                apps = {app.app_id: app for app in state.apps}
                _show(there, apps, screen)
                if once:
                    return await _call_all(place, waited, apps, screen)
                screen.note("\nReconciling until Ctrl-C. Push a commit and watch; or, in another terminal:")
                screen.note(f"  {screen.typed('reconcile get')}")
                await keeper.keep(asyncio.Event())
                return 0


async def _check(place: Place, screen: Screen) -> None:
    """Say what is wrong with the repository before anything is started."""
    async with opened(place, writes=False) as world:
        desired = declare(await world.source.fetch())
    if desired.problems:
        screen.problems(desired.problems)
    if desired.cluster.hypha.server_url != EMBEDDED:
        raise NotStarted(
            f"cluster.yaml names a Hypha server of its own ({desired.cluster.hypha.server_url})",
            hint="Keep that one true with: reconcile run",
        )


async def _first_pass(world: World, screen: Screen, timeout_s: float) -> Waited:
    seen = await look(world, PlanOptions())
    screen.note(render_text.render(seen.plan, command=""))
    with screen.progress(len(seen.plan.steps)) as tell:
        done = await carry_out(world, seen, tell=tell, one_wave=True)
        waited = await reconcile_until_settled(world, PlanOptions(), done, timeout_s=timeout_s, tell=tell)
    show_settled(waited.apps.values(), screen)
    return waited


async def _call_all(place: Place, waited: Waited, apps: Mapping[str, AppState], screen: Screen) -> int:
    """Call one method of each app the way anybody would. 0 when every app that git asks for is well and answered."""
    desired = waited.last.look.desired
    secrets = LocalSecrets(place.home / "secrets" / "unused")
    spec = place.hypha_of(desired.cluster)
    session = HyphaSession(lambda: address_of(spec, place.home, secrets))
    well = waited.ok and not desired.problems
    screen.result("")
    try:
        for app_id, wanted in desired.apps.items():
            if judge(app_id, wanted.spec.digest(), apps.get(app_id)).verdict is not Verdict.HEALTHY:
                well = False
                continue
            try:
                method, answer = await _call_one(session, apps[app_id])
                screen.result(f"{app_id}.{method}() → {json.dumps(answer, ensure_ascii=False, default=str)[:500]}")
            except (RemoteError, Unreachable) as error:
                well = False
                screen.result(f"{app_id}: ✗ {error}")
    finally:
        await session.close()
    return 0 if well else 1


async def _call_one(session: HyphaSession, app: AppState) -> tuple[str, Any]:
    """The answer of `ping`, or else of the first method that needs no argument."""
    if app.service_id is None:
        raise Unreachable(f"{app.app_id} has no Hypha service")
    service = await session.service(app.service_id)
    for method in sorted(app.methods, key=lambda name: (name != "ping", app.methods.index(name))):
        required: list[str] = _schema(getattr(service, method, None)).get("parameters", {}).get("required", [])
        if not [name for name in required if name != "context"]:
            return method, await session.ask(app.service_id, method, timeout_s=60.0)
    raise RemoteError("NoMethod", f"none of {', '.join(app.methods) or 'no methods'} goes without arguments")


def _schema(method: Any) -> Mapping[str, Any]:
    return getattr(method, "__schema__", None) or {}


def _show(there: Embedded, apps: Mapping[str, AppState], screen: Screen) -> None:
    """What runs where, and how to call it."""
    screen.result(f"\nHypha    {there.server_url}  workspace {there.workspace}  token in {there.token_file}")
    screen.result(f"Worker   {there.worker_service_id}   Ray {there.ray_address}")
    for app_id, app in sorted(apps.items()):
        screen.result(
            Text.assemble(("\n" + app_id, "bold"), f"  {app.status.lower()}  {app.service_id or 'no service'}")
        )
        if app.service_id and app.methods:
            method = "ping" if "ping" in app.methods else app.methods[0]
            screen.result(f"  methods  {', '.join(app.methods)}")
            screen.result(f"  call     {curl(there.server_url, there.token_file, app.service_id, method)}")
        if app.static_site_url:
            screen.result(f"  page     {app.static_site_url}")


def curl(server_url: str, token_file: Path, service_id: str, method: str) -> str:
    """One line for a shell. `<workspace>/<client>:<service>` is /<workspace>/services/<client>:<service> over HTTP.

    The token goes in through a pipe: on the command line every user of the machine could read it.
    """
    workspace, _, service = service_id.split("@")[0].partition("/")
    url = f"{server_url}/{workspace}/services/{service}/{method}"
    token = f"""printf 'header = "Authorization: Bearer %s"' "$(cat {quote(str(token_file))})\""""
    return f"{token} | curl -s -K - -X POST -H 'Content-Type: application/json' -d '{{}}' {url}"


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, Value]) -> Value | None:
    """The result of the work; None when `stop` came first, and then only after the work has cleaned up behind it.
    Raises what kept it from that."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return await working
        working.cancel()
        await asyncio.wait({working})
        if not working.cancelled() and (error := working.exception()):
            raise error
        return None
    finally:
        stopping.cancel()


class _StartProgress:
    """Which part is starting and how long it took; a spinner on a terminal, lines elsewhere."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def __call__(self, event: StartEvent) -> None:
        match event.state:
            case "starting":
                if not self._screen.err.is_terminal:
                    return
                self._screen.note(f"◎ {event.what} is starting …", style="dim")
            case "ready":
                self._screen.note(f"✔ {event.what} is ready after {event.seconds:.1f} s")
            case "failed":
                self._screen.note(f"✗ {event.what} did not start ({event.seconds:.1f} s); its log: {event.log_file}")
