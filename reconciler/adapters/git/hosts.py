"""Where a host name leads. For who lets others name repositories: then none may lead into the network we stand in."""

from __future__ import annotations

import ipaddress
import re
import socket

from reconciler.errors import SourceUnusable, Unreachable


def public_addresses(url: str) -> tuple[str, ...]:
    """All addresses of the URL's host. Raises SourceUnusable when one of them is not public, Unreachable when there
    is none."""
    host = host_of(url)
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(f"{host} has no address: {error.strerror}", hint="Is the name right?") from None
    addresses = tuple(dict.fromkeys(str(one[4][0]).partition("%")[0] for one in found))
    private = next((one for one in addresses if not is_public(one)), None)
    if private:
        raise SourceUnusable(
            f"{host} leads to {private}, which is not a public address, and private hosts are denied",
            hint="name a repository on a public host, or allow private ones",
        )
    return addresses


def host_of(url: str) -> str:
    """`https://host:port/x`, `ssh://user@[::1]/x` and `user@host:x`; the URL was checked before."""
    rest = re.sub(r"^[a-z]+://", "", url)
    place = rest.split("/")[0].rpartition("@")[2]
    return place[1 : place.index("]")] if place.startswith("[") else place.split(":")[0]


def is_public(address: str) -> bool:
    one = ipaddress.ip_address(address)
    one = getattr(one, "ipv4_mapped", None) or one
    return one.is_global and not one.is_multicast


def pinned(url: str, addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Settings of git with which the host leads nowhere else, whatever a name server says a moment later. ssh needs
    none: another machine could not show the host's key."""
    port = re.match(r"(https?)://[^/]*?(?::(\d+))?(?:/|$)", url)
    if port is None:
        return ()
    number = port[2] or {"http": "80", "https": "443"}[port[1]]
    shown = ",".join(f"[{one}]" if ":" in one else one for one in addresses)
    return (f"http.curloptResolve={host_of(url)}:{number}:{shown}",)
