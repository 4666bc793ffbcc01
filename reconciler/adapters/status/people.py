"""Who asks. Identity is what Hypha put into the context; nothing that a caller sends is ever believed.

Law: a missing id or e-mail matches nothing, neither does `*`, and an anonymous caller is nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from reconciler.planning.people import Person


@dataclass(frozen=True, slots=True)
class Caller(Person):
    """One caller, as Hypha describes them."""

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


NOBODY = Caller()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
