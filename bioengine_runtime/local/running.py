"""The children of one start, each written down before it is waited for, and stopped by name."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from bioengine_runtime.local.environment import child_environment
from bioengine_runtime.local.home import HOME_MARKER, Home
from bioengine_runtime.local.process import Child, start_child, stop_child
from bioengine_runtime.local.state import State, write_state


class Running:
    def __init__(self, home: Home, state: State) -> None:
        self._home = home
        self._marker = {HOME_MARKER: home.marker}
        self._state = state
        self._children: dict[str, Child] = {}
        self._save()

    async def start(self, what: str, argv: Sequence[str], *, environment: Mapping[str, str]) -> Child:
        """Start a child. Killed between the start and the note of it, the child is still found by its marker."""
        child = await start_child(
            what,
            argv,
            environment=child_environment({**environment, **self._marker}),
            log_file=self._home.log_file(what),
        )
        self._children[what] = child
        self._save()
        return child

    async def stop(self, what: str, *, grace_seconds: float) -> None:
        """Stop the child and forget it; nothing to do when it was never started."""
        child = self._children.get(what)
        if child is None:
            return
        await stop_child(child, grace_seconds=grace_seconds)
        del self._children[what]
        with suppress(OSError):  # a full disk is no reason to leave the others running; a note of what is gone is none
            self._save()

    async def first_to_end(self) -> Child:
        """Wait until one of the children ends by itself."""
        waits = {asyncio.create_task(child.process.wait()): child for child in self._children.values()}
        try:
            ended, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return waits[ended.pop()]
        finally:
            for wait in waits:
                wait.cancel()

    def _save(self) -> None:
        records = tuple(child.record for child in self._children.values())
        self._state = replace(self._state, processes=records)
        write_state(self._home.state_file, self._state)
