"""SG-07: where a host name leads, when private networks are denied."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from reconciler.adapters.git import GitSource
from reconciler.adapters.git.hosts import host_of, is_public, pinned, public_addresses
from reconciler.errors import SourceUnusable, Unreachable
from tests.reconciler.git_http import git_server
from tests.reconciler.git_world import Repository

PUBLIC, OTHER = "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"


def names(monkeypatch: pytest.MonkeyPatch, **table: list[str]) -> None:
    """A name server that knows these, with - for a dot."""

    def look_up(host: str, port: object, **_: object) -> list[tuple[object, ...]]:
        known = table.get(host.replace(".", "_").replace("-", "_"))
        if known is None:
            raise socket.gaierror(-2, "Name or service not known")
        return [(0, 0, 0, "", (address, port)) for address in known]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("::1", "fe80::1", "fd00::1", "::ffff:10.0.0.1", "224.0.0.1", "::"),
    ],
)
def test_sg_07_a_host_that_leads_into_a_private_network_is_refused(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    assert not is_public(address)
    names(monkeypatch, git_example=[PUBLIC, address])
    with pytest.raises(SourceUnusable, match="not a public address"):
        public_addresses("https://git.example/lab/apps")


def test_sg_07_a_public_host_is_pinned_to_the_addresses_that_were_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a second answer of the name server, for git, cannot lead elsewhere."""
    names(monkeypatch, git_example=[PUBLIC, OTHER])
    found = public_addresses("https://git.example/lab/apps")
    assert pinned("https://git.example/lab/apps", found) == (f"http.curloptResolve=git.example:443:{PUBLIC},[{OTHER}]",)
    assert pinned("https://git.example:8443/x", (PUBLIC,)) == (f"http.curloptResolve=git.example:8443:{PUBLIC}",)
    assert pinned("git@git.example:lab/apps", found) == ()


def test_sg_07_a_name_that_nobody_knows_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch)
    with pytest.raises(Unreachable, match=r"git\.example has no address"):
        public_addresses("ssh://git@git.example/x")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://h.example/x", "h.example"),
        ("http://127.0.0.1:80/x", "127.0.0.1"),
        ("ssh://git@h.example:22/x", "h.example"),
        ("ssh://git@[::1]:22/x", "::1"),
        ("https://[2001:db8::1]/x", "2001:db8::1"),
        ("git@h.example:lab/apps", "h.example"),
    ],
)
def test_the_host_of_a_url(url: str, host: str) -> None:
    assert host_of(url) == host


def test_sg_07_it_is_refused_before_anything_is_sent_and_allowed_when_nothing_is_denied(tmp_path: Path) -> None:
    Repository(tmp_path / "repo")
    with git_server(tmp_path) as server:
        url = f"{server.url}/repo/.git"
        with pytest.raises(SourceUnusable, match="private hosts are denied"):
            GitSource(url, mirror_dir=tmp_path / "mirrors", deny_private_hosts=True).fetch_blocking()
        assert server.requests == []
        assert GitSource(url, mirror_dir=tmp_path / "mirrors").fetch_blocking().folders


def test_sg_07_git_goes_where_it_was_pinned_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that no name server has, held to be public at the address of our server."""
    Repository(tmp_path / "repo")
    with git_server(tmp_path) as server:
        monkeypatch.setattr("reconciler.adapters.git.mirror.public_addresses", lambda _: ("127.0.0.1",))
        monkeypatch.setattr("reconciler.adapters.git.address._LOOPBACK", {"git.invalid"})
        url = f"http://git.invalid:{server.server_port}/repo/.git"
        assert GitSource(url, mirror_dir=tmp_path / "mirrors", deny_private_hosts=True).fetch_blocking().folders
