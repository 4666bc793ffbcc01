"""The way to a service: connect, find it, ask it, hang up. Every trouble on the way is a `Trouble` with a way out."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from bioengine_runtime.command.trouble import Said, Trouble, said

CONNECT_TIMEOUT_S = 30.0
HANG_UP_TIMEOUT_S = 5.0
LOGIN_TIMEOUT_S = 300.0

OLDER_NAMES = {
    "upload_app": "save_application",
    "deploy_app": "run_application",
    "stop_app": "stop_application",
    "get_app_status": "get_application_status",
    "list_apps": "list_applications",
    "get_app_manifest": "get_application_manifest",
}
"""What workers before 0.7 call the same methods."""

_SEVERAL = re.compile(r"services:\w+\|[^:']*:([^/']+/[^:']+:[^@']+)@")
"""Full ids in Hypha's complaint that several services answer to one id."""


@dataclass(frozen=True, slots=True)
class Address:
    """A server and who we are there. `timeout_s` bounds each call."""

    server_url: str
    token: str | None = field(repr=False)
    timeout_s: float


Connect = Callable[[Address], AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def connected(address: Address) -> AsyncIterator[Any]:
    """The server's manager; the connection is closed at the end, whatever happens. Raises what hypha-rpc raises."""
    logging.basicConfig(stream=sys.stderr, level=logging.CRITICAL)  # before hypha-rpc, which would write to stdout
    from hypha_rpc import connect_to_server  # late: it takes half a second that --help need not wait

    config = {
        "server_url": address.server_url,
        "token": address.token,
        "method_timeout": address.timeout_s,
        "logger": None,
    }
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        server: Any = await connect_to_server({k: v for k, v in config.items() if v is not None} | {"logger": None})
    try:
        yield server
    finally:
        with suppress(Exception):  # a broken connection may fail to be closed; it is gone either way
            await asyncio.wait_for(server.disconnect(), HANG_UP_TIMEOUT_S)


async def signed_in(server_url: str, note: Callable[[str], None]) -> str:
    """A token of the person at the terminal, who is sent to the server's login page. Raises Trouble."""
    from hypha_rpc import login

    async def show(context: Mapping[str, Any]) -> None:
        note(f"No token is set. Log in here: {context['login_url']}")

    try:
        config = {"server_url": server_url, "login_callback": show, "login_timeout": LOGIN_TIMEOUT_S}
        return str(await login(config))
    except Exception as error:  # whatever hypha-rpc raises: nobody logged in
        raise Trouble(f"Not logged in: {said(error)}", "Set HYPHA_TOKEN to a token, or try again.") from None


async def open_service(
    connect: Connect, address: Address, service_id: str, *, note: Callable[[str], None] | None
) -> Service:
    """The service, to be closed by `async with`. Raises Trouble.

    When several answer to the id, the first that lives is taken and `note` told which; without `note` it is a trouble.
    """
    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(connect(address))
        except Exception as error:  # hypha-rpc raises many things here; nobody is reached
            raise _not_connected(address, error) from None
        found = await _find(server, address, service_id, note)
        return Service(found, service_id, address, stack.pop_all())


class Service:
    """A service that was found. Leaving `async with` closes the connection."""

    def __init__(self, found: Any, service_id: str, address: Address, stack: AsyncExitStack) -> None:
        self.service_id = service_id
        self._methods: dict[str, Any] = {
            # By way of `dict`: on hypha-rpc's own kind of it, a method named `items` hides the one of the dictionary.
            str(name): value
            for name, value in dict.items(found)
            if callable(value) and not str(name).startswith("_")
        }
        self._address = address
        self._stack = stack

    async def __aenter__(self) -> Service:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def methods(self) -> Mapping[str, Any]:
        """Every method by name, each with its `__schema__` where the service gave one."""
        return self._methods

    def knows(self, method: str) -> bool:
        """Whether a worker has this method, under whatever name."""
        return self._name(method) in self._methods

    async def ask(self, method: str, **arguments: Any) -> Any:
        """Call a worker's method under the name this worker knows; plain values. Raises Trouble."""
        known = self._name(method)
        if known not in self._methods:
            raise Trouble(f"{self.service_id} has no method {method}.", "Is it the service id of a BioEngine worker?")
        try:
            return plain(await within(self._methods[known](**arguments), self._address.timeout_s))
        except Exception as error:  # hypha-rpc has one type for everything the other side raises
            raise self.refusal(said(error)) from None

    def _name(self, method: str) -> str:
        return method if method in self._methods else OLDER_NAMES.get(method, method)

    def refusal(self, why: Said) -> Trouble:
        """A worker's "no" as a trouble."""
        hint = ""
        if why.kind == "PermissionError":
            hint = "Use a token of somebody who may: set HYPHA_TOKEN to it."
            if self._address.token is None:
                hint = "You are nobody in particular here: set HYPHA_TOKEN to your token."
        elif why.kind == "TimeoutError":
            return Trouble(f"{self.service_id} did not answer in {self._address.timeout_s:g} s.", "Try again.")
        elif why.kind == "UnknownApp":
            hint = "What there is: bioengine apps list; what runs: bioengine apps status"
        return Trouble(why.message or why.kind, hint)


async def within(answer: Awaitable[Any], timeout_s: float) -> Any:
    """The answer, waited for no longer than that. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        return await answer


def plain(value: Any) -> Any:
    """hypha-rpc's dictionaries as ours."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in dict.items(value)}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


async def _find(server: Any, address: Address, service_id: str, note: Callable[[str], None] | None) -> Any:
    try:
        return await within(server.get_service(service_id), CONNECT_TIMEOUT_S)
    except Exception as error:  # see `ask`
        why = said(error)
        candidates = sorted(set(_SEVERAL.findall(str(error))))
    if "Multiple services found" not in why.message:
        raise _not_found(address, service_id, why)
    if note is None:
        raise Trouble(
            f"Several services answer to {service_id}: {', '.join(candidates) or why.message}",
            "Name one of them by its full id.",
        )
    for candidate in candidates:
        with suppress(Exception):  # one that died lately is still listed; the next one may live
            found = await within(server.get_service(candidate), CONNECT_TIMEOUT_S)
            note(f"{len(candidates)} services answer to {service_id}; this is {candidate}")
            return found
    raise _not_found(address, service_id, why)


def _not_connected(address: Address, error: Exception) -> Trouble:
    why = Said("TimeoutError", "no answer") if isinstance(error, TimeoutError) else said(error)
    message = f"Cannot connect to {address.server_url}: {why.message or why.kind}"
    if re.search(r"authentic|permission|token|\b40[13]\b", str(error), re.IGNORECASE):
        return Trouble(message, "The token was refused: set HYPHA_TOKEN to one that is valid on this server.")
    return Trouble(message, "Is the server up, and BIOENGINE_SERVER_URL right?")


def _not_found(address: Address, service_id: str, why: Said) -> Trouble:
    if why.kind == "PermissionError" or "ermission denied" in why.message:
        return Trouble(f"{service_id} is not for you: {why.message}", "Set HYPHA_TOKEN to a token of somebody who may.")
    return Trouble(
        f"There is no service {service_id} on {address.server_url}.",
        "Is it running, and the id right? It looks like WORKSPACE/NAME, or WORKSPACE/CLIENT:NAME in full.",
    )
