"""Who asks. Identity is what Hypha put into the context; nothing that a caller sends is ever believed.

Law: a missing id or e-mail matches nothing, neither does `*`, and an anonymous caller is nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class Caller:
    """One caller, by id and e-mail as far as Hypha knows them."""

    user_id: str = ""
    email: str = ""

    @classmethod
    def of(cls, user: object) -> Caller:
        """From Hypha's own description of a user. A token that was made of another has an id of its own; whose it is,
        Hypha says as `parent`."""
        if not isinstance(user, Mapping):
            return NOBODY
        told = cast("Mapping[str, Any]", user)
        if told.get("is_anonymous"):
            return NOBODY
        return cls(_text(told.get("parent")) or _text(told.get("id")), _text(told.get("email")))

    @classmethod
    def from_context(cls, context: object) -> Caller:
        """From what hypha-rpc adds to a call."""
        return cls.of(cast("Mapping[str, Any]", context).get("user") if isinstance(context, Mapping) else None)

    @property
    def name(self) -> str:
        return self.email or self.user_id or "an anonymous user"

    def is_one_of(self, names: Collection[str]) -> bool:
        """By id or e-mail."""
        return any(name in names for name in (self.user_id, self.email) if name not in ("", "*"))


NOBODY = Caller()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
