"""People, as Hypha knows them, and who says which of them count. Law: who is not known has no name."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Person:
    """One person (or program), by id and e-mail as far as Hypha knows them."""

    user_id: str = ""
    email: str = ""

    @property
    def name(self) -> str:
        return self.email or self.user_id or "an anonymous user"

    @property
    def names(self) -> frozenset[str]:
        """By which they may be named; none of nobody."""
        return frozenset({self.user_id, self.email} - {"", "*"})

    def is_one_of(self, names: Collection[str]) -> bool:
        """By id or e-mail."""
        return not self.names.isdisjoint(names)


NOBODY = Person()


@dataclass(frozen=True, slots=True)
class Anchor:
    """Who may approve and who may prune, said outside the repository; None: cluster.yaml says it."""

    approvers: tuple[str, ...] | None = None
    pruners: tuple[str, ...] | None = None


UNANCHORED = Anchor()
