"""Who sent a message is what Hypha says of it, never what the message says of itself.

hypha-rpc takes the context of a call out of the message when it finds one there, and lets the part that Hypha passes on
unread replace what Hypha has written: who packs messages by hand could call as anybody. Here neither is read.

As a program it starts a module that way: Hypha's own server reads messages with hypha-rpc, too. It runs in the server's
environment, so it uses nothing else of ours.
"""

from __future__ import annotations

import runpy
import sys
from types import ModuleType
from typing import Any

import msgpack
from hypha_rpc import rpc

CONTEXT = frozenset(("ctx",))
"""What the head of a message, which Hypha completes, has no business to bring."""
OF_HYPHA = CONTEXT | {"from", "to", "user", "ws"}
"""What is for Hypha alone to say: the rest of a message is its sender's."""


class Parts(msgpack.Unpacker):
    """The parts of one message, the head first."""

    _not_read = CONTEXT

    def unpack(self) -> Any:
        part, not_read = super().unpack(), self._not_read
        self._not_read = OF_HYPHA
        # What is no map could be taken for one all the same: hypha-rpc only adds it to the head.
        return {key: value for key, value in part.items() if key not in not_read} if isinstance(part, dict) else {}


def believe_hypha_alone() -> None:
    """From now on, in this process. hypha-rpc unpacks every message in the same way, in one piece or in many."""
    reading = ModuleType(msgpack.__name__)
    vars(reading).update(vars(msgpack), Unpacker=Parts)
    rpc.msgpack = reading  # pyright: ignore[reportAttributeAccessIssue]


if __name__ == "__main__":
    believe_hypha_alone()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
