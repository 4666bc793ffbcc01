"""A seam for crash tests: dies without a word at one side effect. Inert unless `RECONCILE_FAIL_AT` is set.

Every remote write stands inside `with side_effect("<address>/<call>")`, so the variable can name each of them:
`RECONCILE_FAIL_AT="<address>/<call>:before"` or `…:after` dies there; a number N dies before the N-th side effect of
the process (counted from 0), which is how a test walks through all of them without knowing their names.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count

VARIABLE = "RECONCILE_FAIL_AT"
_number = count()


@contextmanager
def side_effect(name: str) -> Generator[None, None, None]:
    """One remote write."""
    wanted = os.environ.get(VARIABLE, "")
    if not wanted:
        yield
        return
    if wanted in (str(next(_number)), f"{name}:before"):
        _die()
    yield
    if wanted == f"{name}:after":
        _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
