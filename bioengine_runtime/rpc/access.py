"""Who may call what. Identity is what Hypha put into the context; nothing a caller sends is ever believed.

Law: a missing id or e-mail matches nothing, so `None` in a list opens nothing to callers without an e-mail. A token
that somebody made of their own and that may only read was made to be given away: it has none of its maker's rights
over the worker, or over what they deployed. It may still call the apps whose lists name its maker. One that may write
somewhere is its maker: those are the tokens that people get from Hypha's own page and deploy with, from any workspace.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from bioengine_runtime.contract.base import ENTIRE
from bioengine_runtime.contract.manifest import AuthorizedUsers
from bioengine_runtime.contract.status import PERSON

EVERYBODY = "*"
WRITING = ("rw", "a")
"""How Hypha writes the permissions `read_write` and `admin`."""


@dataclass(frozen=True, slots=True)
class Caller:
    """One authenticated caller; anonymous ones have an id that Hypha made up and no e-mail."""

    user_id: str | None
    email: str | None
    anonymous: bool = False
    token_id: str | None = field(default=None, compare=False)
    """The id of a token that Hypha made of another; `user_id` is whose it is."""
    given_away: bool = False
    """Made of another, to read only."""

    @classmethod
    def from_context(cls, context: Mapping[str, Any] | None) -> Caller:
        """The caller as Hypha names it; somebody unknown when the context says nothing usable.

        A token that Hypha made of another has an id of its own; whose it is, Hypha says as `parent`. A list may know
        it by either: what is made for one machine can be let in without its owner.
        """
        user = (context or {}).get("user")
        if not isinstance(user, Mapping):
            return cls(user_id=None, email=None, anonymous=True)
        own, parent = _text(user.get("id")), _text(user.get("parent"))
        return cls(
            user_id=parent or own,
            email=_text(user.get("email")),
            anonymous=bool(user.get("is_anonymous", False)),
            token_id=own if parent else None,
            given_away=bool(parent) and not _may_write(user),
        )

    def names(self) -> frozenset[str]:
        """Everything a list may know this caller by; empty when there is nothing."""
        return frozenset(name for name in (self.user_id, self.email, self.token_id) if name)

    def rights(self) -> frozenset[str]:
        """What it may be an admin or a deployer by: all its names, or the token's own id when that was given away."""
        return self.names() & {self.token_id} if self.given_away else self.names()

    def owner(self) -> str:
        """The owner recorded for what this caller deploys."""
        own = self.token_id if self.given_away else self.user_id or self.email
        return PERSON + (own or "unknown")

    def name(self) -> str:
        """What people know this caller by."""
        return self.email or self.user_id or "unknown"

    def __str__(self) -> str:
        if self.anonymous or not self.names():
            return "an anonymous user"
        by = " (by a token that was made to read only)" if self.given_away else ""
        return f"user {self.email or self.user_id}{by}"


def is_admin(caller: Caller, admins: Collection[str | None]) -> bool:
    """By id or e-mail; `*` is no admin, and an anonymous caller never is one."""
    return not caller.anonymous and not caller.rights().isdisjoint(_named(admins))


def may_call(
    caller: Caller,
    method: str,
    authorized_users: AuthorizedUsers | None,
    admins: Collection[str | None],
    owner: str | None = None,
) -> bool:
    """Admins and the deployer always; otherwise whom the list (of the method, else of `*`) names."""
    if is_admin(caller, admins) or owns(caller, owner):
        return True
    allowed = users_of(method, authorized_users)
    return EVERYBODY in allowed or not caller.names().isdisjoint(_named(allowed))


def owns(caller: Caller, owner: str | None) -> bool:
    """This very person deployed it."""
    if caller.anonymous or not owner or not owner.startswith(PERSON):
        return False
    return owner.removeprefix(PERSON) in caller.rights()


def users_of(method: str, authorized_users: AuthorizedUsers | None) -> Collection[str]:
    """The list that decides about one method; empty when nothing does."""
    if isinstance(authorized_users, Mapping):
        return authorized_users.get(method, authorized_users.get(ENTIRE, ()))
    return authorized_users or ()


def both(one: AuthorizedUsers, other: AuthorizedUsers) -> AuthorizedUsers:
    """The list of those whom both let in, method by method. Who is named by id in one and by e-mail in the other is in
    neither: it errs on the side of fewer."""
    if not isinstance(one, Mapping) and not isinstance(other, Mapping):
        return _both(one, other)
    methods = {ENTIRE: None, **dict.fromkeys(one if isinstance(one, Mapping) else ())}
    methods |= dict.fromkeys(other if isinstance(other, Mapping) else ())
    return {method: _both(users_of(method, one), users_of(method, other)) for method in methods}


def _both(one: Collection[str], other: Collection[str]) -> list[str]:
    if EVERYBODY in one or EVERYBODY in other:
        return list(other if EVERYBODY in one else one)
    return [name for name in one if name in other]


def _named(names: Collection[str | None]) -> frozenset[str]:
    return frozenset(name for name in names if name and name != EVERYBODY)


def _may_write(user: Mapping[str, Any]) -> bool:
    scope = user.get("scope")
    rights = scope.get("workspaces") if isinstance(scope, Mapping) else None
    if not isinstance(rights, Mapping):
        return False
    # Hypha adds one to every token, as if the token were a person: it says nothing of what the maker meant it for.
    its_own = f"ws-user-{user.get('id')}"
    return any(right in WRITING for workspace, right in rights.items() if workspace != its_own)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
