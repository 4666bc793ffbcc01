"""Who asks. Identity is what Hypha put into the context; nothing that a caller sends is ever believed.

Law: a missing id or e-mail matches nothing, neither does `*`, and an anonymous caller is nobody. A token that somebody
made of their own is them only with the right to administer the workspace: one that may do less was made to be given
away, to an app or a pipeline, and is known by its own id alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from reconciler.planning.people import Person

ADMIN = "a"
"""How Hypha writes the permission."""


@dataclass(frozen=True, slots=True)
class Caller(Person):
    """One caller, as Hypha describes them."""

    @classmethod
    def of(cls, user: object, workspace: str) -> Caller:
        """From Hypha's own description of a user. A token that was made of another has an id of its own and its
        maker's e-mail; whose it is, Hypha says as `parent`. `workspace`: where it is to have rights."""
        if not isinstance(user, Mapping):
            return NOBODY
        told = cast("Mapping[str, Any]", user)
        if told.get("is_anonymous"):
            return NOBODY
        maker = _text(told.get("parent"))
        if maker and not _administers(told, workspace):
            return cls(_text(told.get("id")))
        return cls(maker or _text(told.get("id")), _text(told.get("email")))

    @classmethod
    def from_context(cls, context: object) -> Caller:
        """From what hypha-rpc adds to a call; `to` is who was called, as `<workspace>/<client>`."""
        if not isinstance(context, Mapping):
            return NOBODY
        told = cast("Mapping[str, Any]", context)
        return cls.of(told.get("user"), _text(told.get("to")).partition("/")[0])


NOBODY = Caller()


def _administers(user: Mapping[str, Any], workspace: str) -> bool:
    scope = user.get("scope")
    rights = cast("Mapping[str, Any]", scope).get("workspaces") if isinstance(scope, Mapping) else None
    if not isinstance(rights, Mapping):
        return False
    known = cast("Mapping[str, Any]", rights)
    return ADMIN in (known.get(workspace), known.get("*"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
