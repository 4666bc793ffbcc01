"""Requests to addresses that an operator named: checked each time, sent to the checked address, never redirected.

Law: nothing is sent to a machine of a private network, or without encryption, that was not allowed by name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import stamina

from reconciler.errors import ReconcilerError, Remedy
from reconciler.planning.shown import plain

ATTEMPTS = 4
WITHIN_S = 60.0
PATIENCE = httpx.Timeout(10.0)
WHY_KEPT = 200
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which another attempt may help."""


class RefusedAddress(ReconcilerError):
    """The address is not one to send anything to."""

    remedy = Remedy.OPERATOR


class NotDelivered(Exception):
    """It did not arrive; says why, without what was sent or the path of the address. `for_now`: another time it may."""

    def __init__(self, why: str, *, for_now: bool = False) -> None:
        super().__init__(why)
        self.for_now = for_now


class _TryAgain(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Outlet:
    """One address. `private` are the hosts that may be of a private network or this machine, and reached by http."""

    url: str = field(repr=False)
    private: Collection[str] = ()

    def __post_init__(self) -> None:
        """Raises RefusedAddress for what no name server can mend."""
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL:
            raise RefusedAddress("a notification address is not a URL", hint=_HINT) from None
        allowed = url.host in self.private
        if url.scheme not in ("https", "http") or not url.host:
            raise RefusedAddress(f"notifications to {self.shown}: only https is known", hint=_HINT)
        if url.scheme == "http" and not allowed:
            raise RefusedAddress(f"notifications to {self.shown}: http is not encrypted", hint=_HINT)
        if url.userinfo:
            raise RefusedAddress(
                f"notifications to {self.shown}: a password does not belong into a URL",
                hint="Give a token or a secret by file.",
            )

    @property
    def shown(self) -> str:
        """Fit to be logged: many services carry their password in the path or the query."""
        url = httpx.URL(self.url)
        return f"{url.scheme}://{plain(url.host, 100)}{f':{url.port}' if url.port else ''}/…"

    async def send(self, content: bytes, headers: Mapping[str, str]) -> None:
        """POST it as JSON, a few times if need be. Raises NotDelivered."""
        try:
            async for attempt in stamina.retry_context(
                on=(httpx.TransportError, _TryAgain, OSError), attempts=ATTEMPTS, timeout=WITHIN_S, wait_initial=0.5
            ):
                with attempt:
                    await self._post(content, headers)
        except (httpx.HTTPError, _TryAgain, OSError) as error:
            raise NotDelivered(
                plain(f"{self.shown}: {error or type(error).__name__}", WHY_KEPT), for_now=True
            ) from None
        except RefusedAddress as error:
            raise NotDelivered(str(error)) from None

    async def _post(self, content: bytes, headers: Mapping[str, str]) -> None:
        url = httpx.URL(self.url)
        address = await self._checked(url)
        # To the very address that was checked: the name could mean another one a moment later.
        request = httpx.Request(
            "POST",
            url.copy_with(host=address),
            content=content,
            headers={**headers, "Host": url.netloc.decode(), "Content-Type": "application/json"},
            extensions={"sni_hostname": url.host, "timeout": PATIENCE.as_dict()},
        )
        async with httpx.AsyncClient(timeout=PATIENCE, follow_redirects=False, trust_env=False) as client:
            response = await client.send(request, stream=True)  # the answer's text is nobody's business, however long
            await response.aclose()
        if response.status_code in AGAIN:
            raise _TryAgain(f"answered {response.status_code}")
        if not response.is_success:
            redirect = ", a redirect, which is not followed" if response.is_redirect else ""
            raise NotDelivered(f"{self.shown}: answered {response.status_code}{redirect}")

    async def _checked(self, url: httpx.URL) -> str:
        """The address to send to. Raises RefusedAddress, or OSError when nobody knows the name."""
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        addresses = [str(info[4][0]) for info in found]
        if url.host not in self.private and not all(_is_public(address) for address in addresses):
            raise RefusedAddress(f"{self.shown} is in a private network", hint=_HINT)
        return addresses[0]


_HINT = "Give an https address, or allow the host by name: --private-host HOST."


def document(content: Mapping[str, Any]) -> bytes:
    """As it is sent and signed."""
    return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()


def _is_public(address: str) -> bool:
    """Of an IPv4 address inside an IPv6 one, that counts."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.sixtofour or ip
    return ip.is_global and not ip.is_multicast
