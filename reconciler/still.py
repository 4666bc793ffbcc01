"""The source of a command that does one thing and ends: read once."""

from __future__ import annotations

from reconciler.planning.source import SourceTree
from reconciler.ports import Source


class StillSource:
    """Implements ports.Source. Law: what was shown at the first look is what later ones see, whatever is pushed."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._tree: SourceTree | None = None

    async def fetch(self) -> SourceTree:
        """The commit that was the newest at first. Raises SourceUnusable or Unreachable until one was read."""
        if self._tree is None:
            self._tree = await self._source.fetch()
        return self._tree
