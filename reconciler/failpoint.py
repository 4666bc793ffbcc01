"""A seam for crash tests: dies without a word at one side effect. Inert unless `RECONCILE_FAIL_AT` is set.

Every remote write stands inside `with side_effect("<address>/<call>")`. The variable names one of them by the end of
its name, and the side of it: `/commit:before`, `upload demo-app@1.0.0-g51ab07e0cafe/put_file:after`. A number N dies
before the N-th side effect of the process, counted from 0; so `0` proves that there was none.
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
    if wanted == str(next(_number)) or f"{name}:before".endswith(wanted):
        _die()
    yield
    if f"{name}:after".endswith(wanted):
        _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
