"""One session with a Hypha server: connects when first needed, drops what broke, and connects again.

Law: every trouble of the wire is `Unreachable`, naming the server and a way out; every "no" of the other side is
`RemoteError`, its last line only. Nobody is asked but the one who was meant: a service has the client and the workspace
that its id says. The token is asked for when connecting and is kept nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any, cast

from reconciler.errors import Unreachable

_GONE = re.compile(
    r"not connected|Method (expired or )?not found|Session not found|Connection (was|is|lost|closed)|"
    r"Client disconnected|is not available",
    re.IGNORECASE,
)
_LOST = (ConnectionError, OSError)
_AFTER_RESTART_S = 3.0
"""What was asked before the server was restarted is answered within that time, or never."""
_ALIVE_WITHIN_S = 3.0


class RemoteError(Exception):
    """The other side answered with an error: `kind` is its type there, `message` its text without a traceback."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message

    @classmethod
    def read(cls, error: BaseException) -> RemoteError:
        """The last line of a remote traceback: `ValueError: Version '1' already exists`."""
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        match = re.match(r"^(?:RemoteError:)?\s*(?:[A-Za-z_][\w.]*\.)?([A-Za-z_]\w*): (.*)$", lines[-1].strip())
        if not match:
            return cls(type(error).__name__, lines[-1].strip().removeprefix("RemoteError:").strip())
        return cls(match[1], match[2].strip().strip("\"'"))


class NoSuchService(Unreachable):
    """Nobody offers a service of this id."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and who we are there. Without a workspace it is the one the token belongs to."""

    server_url: str
    token: str | None = field(default=None, repr=False)
    workspace: str | None = None


class HyphaSession:
    """One connection to one workspace. Close it when done.

    `address` is asked before each connection, so that a server which came back elsewhere, or a token which was
    exchanged, is found; it raises Unreachable when there is none.
    """

    def __init__(self, address: Callable[[], Address], *, connect_timeout_s: float = 20.0) -> None:
        self._address = address
        self._connect_timeout_s = connect_timeout_s
        self._server: Any = None
        self._url = "Hypha"
        self._services: dict[str, Any] = {}
        self._connecting = asyncio.Lock()
        self._restarted = asyncio.Event()
        self.restarts = 0
        """How often hypha-rpc has connected again by itself. It offers our services again then, and may fail to."""

    async def workspace(self) -> str:
        """The workspace we are in."""
        return str((await self.connection()).config.workspace)

    async def user_id(self) -> str:
        """Who we are to the server."""
        user: Any = unwrapped((await self.connection()).config.user)
        return str(user["id"])

    async def ask(self, service_id: str, method: str, *, timeout_s: float, **arguments: Any) -> Any:
        """Call one method and return plain values. Raises Unreachable or RemoteError."""
        question = f"{service_id.split('/')[-1]}.{method}"
        server = await self.connection()
        service = await self.service(service_id)
        try:
            call: Callable[..., Awaitable[Any]] = getattr(service, method)
        except AttributeError:
            raise RemoteError("AttributeError", f"{service_id} has no method {method}") from None
        try:
            return await self._answered(server, question, call(**arguments), timeout_s)
        except Unreachable:
            self._services.pop(service_id, None)
            raise

    async def service(self, service_id: str) -> Any:
        """A service by id, found once. Raises Unreachable when nobody offers it, or another one answers; RemoteError
        when it is ambiguous."""
        if service_id not in self._services:
            server = await self.connection()
            self._services[service_id] = await self._found(server, service_id, server.get_service(service_id))
        return self._services[service_id]

    async def find(self, service_id: str) -> str:
        """The full id, `workspace/client:service`, of who offers it; only Hypha is asked. Raises as `service` does."""
        server = await self.connection()
        # "exact" is not what Hypha does in the workspace `public`: there it takes any one of several.
        found = await self._found(server, service_id, server.get_service_info(service_id, {"mode": "exact"}))
        return str(found["id"]).partition("@")[0]

    async def _found(self, server: Any, service_id: str, looking: Awaitable[Any]) -> Any:
        try:
            found = await self._answered(server, f"get_service({service_id})", looking, 20.0, raw=True)
        except RemoteError as error:
            if "Multiple services" in error.message:
                raise
            raise NoSuchService(
                f"{self._url}: no service {service_id!r} ({error.message[:200]})",
                hint="Is the worker running? Its service id is `hypha.worker` in cluster.yaml.",
            ) from None
        workspace, answered = str(server.config.workspace), str(found["id"])
        if not _is_meant(service_id, workspace, answered):
            raise Unreachable(
                f"{self._url}: {service_id!r} was looked for in workspace {workspace!r}, and {answered!r} was found; "
                "it is not asked",
                hint="Give the full id of the one you mean: <workspace>/<client>:<service>.",
            )
        return found

    async def register(self, service: dict[str, Any]) -> str:
        """Offer a service of ours; returns its full id."""
        server = await self.connection()
        registering = server.register_service(service, overwrite=True)
        registered = await self._answered(server, "register_service", registering, 30.0)
        return str(registered["id"])

    async def _drop(self, server: Any) -> None:
        """Hang up, if it is still this connection: a late trouble of an older one is none of a newer one's."""
        if self._server is server:
            await self.close()

    async def close(self) -> None:
        """Hang up; the next question connects again."""
        server, self._server = self._server, None
        self._services.clear()
        if server is not None:
            with contextlib.suppress(Exception):  # a broken connection may fail to be closed; it is gone either way
                await asyncio.wait_for(server.disconnect(), 5.0)

    async def connection(self) -> Any:
        """The live connection, made when there is none. Raises Unreachable."""
        async with self._connecting:
            if self._server is None:
                self._server = await self._connect()
            return self._server

    async def _connect(self) -> Any:
        connect_to_server: Any = _hypha_rpc().connect_to_server
        for name in ("RPC", "websocket-client"):  # each of their warnings reaches us as an exception, too
            logging.getLogger(name).setLevel(logging.CRITICAL)

        address = self._address()
        self._url = address.server_url.rstrip("/")
        said = {key: value for key, value in asdict(address).items() if value is not None}
        config = {**said, "server_url": self._url, "method_timeout": 60, "logger": None}
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                server = await connect_to_server(config)
            server.rpc.on("manager_refreshed", self._note_restart)
            return server
        except TimeoutError:
            reason, hint = f"no answer in {self._connect_timeout_s:g} s", "Is the server up, and the URL right?"
        except Exception as error:  # whatever hypha-rpc raises while connecting: nobody is reached
            reason, hint = _why_not_connected(error)
        raise Unreachable(f"cannot connect to Hypha at {self._url}: {reason}", hint=hint)

    def _note_restart(self, _: Any) -> None:
        """hypha-rpc has connected again by itself: what was asked of the server before is lost with it."""
        self._services.clear()
        self.restarts += 1
        self._restarted.set()
        self._restarted = asyncio.Event()

    async def _answered(
        self, server: Any, question: str, call: Awaitable[Any], timeout_s: float, *, raw: bool = False
    ) -> Any:
        """The connection is shared. So it is given up for its own trouble only, not because one peer is gone or slow:
        that would take the others' answers and the services that we offer along."""
        try:
            async with asyncio.timeout(timeout_s):
                answer = await _unless_restarted(self._restarted, call)
            return answer if raw else unwrapped(answer)
        except _Restarted:
            why = "the server was restarted meanwhile"
        except TimeoutError:
            why = f"no answer in {timeout_s:g} s"
        except _LOST as error:
            why = f"connection lost ({error})"
        except Exception as error:  # hypha-rpc has one type for everything the other side raises
            remote = RemoteError.read(error)
            why = remote.message[:200]
            if not _GONE.search(remote.message):
                raise remote from None
        # Ours, or the peer's? hypha-rpc says both in the same words; the connection itself knows.
        if not await _alive(server):
            await self._drop(server)
        raise Unreachable(f"{self._url}: {question}: {why}", hint="Try again; nothing was assumed.")


def _is_meant(service_id: str, workspace: str, answered: str) -> bool:
    """Whether the full id `answered` says all that `service_id` says; what that leaves out is our own workspace, and
    whichever client."""
    there, meant = _parts(answered), _parts(service_id)
    return there == (meant[0] or workspace, meant[1] or there[1], meant[2])


def _parts(service_id: str) -> tuple[str, str, str]:
    """Workspace, client and service; "" for what is not said. What comes after an @ is the server's own."""
    workspace, _, rest = service_id.partition("@")[0].rpartition("/")
    client, _, service = rest.rpartition(":")
    return workspace, client, service


class _Restarted(Exception):
    """The server was restarted while it was asked."""


async def _unless_restarted(restarted: asyncio.Event, call: Awaitable[Any]) -> Any:
    """The answer. Raises _Restarted when the server went and came back, and the answer does not come soon after."""
    asked, again = asyncio.ensure_future(call), asyncio.ensure_future(restarted.wait())
    try:
        await asyncio.wait({asked, again}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            await asyncio.wait({asked}, timeout=_AFTER_RESTART_S)
        if not asked.done():
            raise _Restarted
        return asked.result()
    finally:
        again.cancel()
        asked.cancel()


async def _alive(server: Any) -> bool:
    """Whether the server still answers on this connection."""
    try:
        await asyncio.wait_for(server.echo("?"), _ALIVE_WITHIN_S)
    except Exception:  # of whatever kind: it does not
        return False
    return True


def _hypha_rpc() -> Any:
    """The library, made to believe Hypha alone who calls us; late, because it takes its time."""
    library = _without_webrtc()
    importlib.import_module("bioengine_runtime.true_sender").believe_hypha_alone()
    return library


def _without_webrtc() -> Any:
    """A reconciler never speaks it. Where it is installed for the worker's sake, it would cost another 25 MiB and
    0.2 s."""
    if "hypha_rpc" in sys.modules or "aiortc" in sys.modules:
        return importlib.import_module("hypha_rpc")
    sys.modules["aiortc"] = cast("ModuleType", None)  # says to `import` that there is none
    try:
        return importlib.import_module("hypha_rpc")
    finally:
        del sys.modules["aiortc"]


def unwrapped(value: Any) -> Any:
    """hypha-rpc's dictionaries as ours."""
    if isinstance(value, dict):
        # By way of `dict`: on hypha-rpc's own kind of it, a key named `items` hides the method.
        return {str(key): unwrapped(item) for key, item in dict[Any, Any].items(cast("dict[Any, Any]", value))}
    if isinstance(value, list | tuple):
        return [unwrapped(item) for item in cast("list[Any]", value)]
    return value


def _why_not_connected(error: Exception) -> tuple[str, str]:
    text = RemoteError.read(error).message[:300]
    if "uthentication" in text or "401" in text or "403" in text or "ermission" in text:
        return text, "The token was refused. Give another: hypha.token in cluster.yaml, --token-file or HYPHA_TOKEN."
    return text, "Is the server up, and the URL right? (hypha.server_url in cluster.yaml, or --server-url)"
