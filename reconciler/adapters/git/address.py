"""What a person may name: a repository, a ref, a path. Checked before git sees it; credentials are taken out here."""

from __future__ import annotations

import base64
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

from reconciler.errors import SourceUnusable

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*|[0-9A-Fa-f:]+")
_SCP = re.compile(r"(?P<user>[A-Za-z0-9_][\w.-]*)@(?P<host>[A-Za-z0-9][\w.-]*):(?P<path>[^-:].*)")
_HEX = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True, slots=True)
class Address:
    """One repository. `url` is safe to print and to pass as an argument; `header` carries the credentials apart."""

    url: str
    local: bool
    protocols: str
    header: str = field(default="", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


def address(text: str) -> Address:
    """The repository that a person named by URL or path. Raises SourceUnusable; never shows a credential."""
    if not text or text.startswith("-") or _has_odd_character(text):
        raise SourceUnusable(f"{redacted(text)!r} is not a repository", hint=_HINT)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*::", text):
        raise SourceUnusable(f"{redacted(text)!r}: remote helpers run programs and are refused", hint=_HINT)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return _from_url(text)
    if "@" in text.split("/")[0] and ":" in text.split("/")[0]:
        return _from_scp(text)
    return Address(url=str(Path(text).expanduser().absolute()), local=True, protocols="none")


_HINT = "give https://host/owner/repository, ssh://git@host/owner/repository, git@host:owner/repository or a local path"


def _from_url(text: str) -> Address:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise SourceUnusable(f"{redacted(text)!r} is not a URL", hint=_HINT) from None
    if parts.scheme == "file":
        raise SourceUnusable("file:// URLs are refused", hint="give the plain path")
    if not _HOST.fullmatch(host) or (port is not None and not 0 < port < 65536):
        raise SourceUnusable(f"{redacted(text)!r}: the host is not valid", hint=_HINT)
    if parts.scheme == "ssh":
        return _from_ssh(parts)
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise SourceUnusable(f"{redacted(text)!r}: http is not encrypted", hint="use https://")
    if parts.scheme not in ("https", "http"):
        raise SourceUnusable(f"{parts.scheme}:// is refused", hint=_HINT)
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    if parts.username is None:
        return Address(url=url, local=False, protocols=parts.scheme)
    user, password = unquote(parts.username), unquote(parts.password or "")
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    secrets = {token, password or user, quote(password or user), parts.password or parts.username}
    return Address(
        url=url,
        local=False,
        protocols=parts.scheme,
        header=f"Authorization: Basic {token}",
        secrets=tuple(sorted(filter(None, secrets), key=len, reverse=True)),
    )


def _from_ssh(parts: SplitResult) -> Address:
    if parts.password is not None:
        raise SourceUnusable("ssh takes no password from a URL", hint="use a key, and an agent if it has a passphrase")
    if parts.username is not None and not re.fullmatch(r"[A-Za-z0-9_][\w.-]*", parts.username):
        raise SourceUnusable("the user name in the ssh URL is not valid", hint=_HINT)
    if parts.path.startswith("/-"):
        raise SourceUnusable("the path in the ssh URL is not valid", hint=_HINT)
    return Address(url=parts.geturl(), local=False, protocols="ssh")


def _from_scp(text: str) -> Address:
    if not _SCP.fullmatch(text):
        raise SourceUnusable(f"{redacted(text)!r} is not a repository", hint=_HINT)
    return Address(url=text, local=False, protocols="ssh")


def checked_ref(text: str | None) -> str | None:
    """A branch, tag or commit by the rules of `git check-ref-format`; None follows the default branch."""
    if text is None or text == "HEAD":
        return None
    parts = text.split("/")
    wrong = (
        text.startswith("-")
        or len(text) > 250
        or _has_odd_character(text)
        or re.search(r"[ ~^:?*\[\\]|\.\.|@\{", text)
        or text == "@"
        or text.endswith(".")
        or any(not part or part.startswith(".") or part.endswith(".lock") for part in parts)
    )
    if wrong:
        raise SourceUnusable(f"{text!r} is not a branch, tag or commit", hint="name it as `git branch` shows it")
    return text


def is_commit(ref: str) -> bool:
    """True when the text could be a (shortened) commit id."""
    return _HEX.fullmatch(ref) is not None


def checked_path(text: str) -> str:
    """A folder inside the repository, without slashes at its ends; "" is the repository's own root."""
    path = text.strip("/") if text not in (".", "./") else ""
    path = path.removeprefix("./")
    wrong = text.startswith(("/", "-")) or _has_odd_character(text) or "\\" in text or ":" in text
    if wrong or any(part in ("", ".", "..") or part.lower() == ".git" for part in path.split("/") if path):
        raise SourceUnusable(f"{text!r} is not a folder inside the repository", hint="give it relative to its root")
    return path


def redacted(text: str, secrets: tuple[str, ...] = ()) -> str:
    """The text without credentials: the given ones, and whatever stands before an @ in a URL."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return re.sub(r"(?<=://)[^/\s]*@", "***@", text)


def _has_odd_character(text: str) -> bool:
    """True for control, format (bidirectional marks) and other invisible characters."""
    return any(unicodedata.category(character)[0] == "C" for character in text)
