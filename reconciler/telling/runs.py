"""The name of the pass that is under way: the same in its log lines, its history and its notifications."""

from __future__ import annotations

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

run_id: ContextVar[str] = ContextVar("run_id", default="")
"""8 hex digits; "" outside of a pass."""


def new_id() -> str:
    return secrets.token_hex(4)


@contextmanager
def run() -> Generator[str, None, None]:
    """One pass, under a new name, for all that it starts."""
    token = run_id.set(new_id())
    try:
        yield run_id.get()
    finally:
        run_id.reset(token)
