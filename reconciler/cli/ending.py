"""How a command ends: its exit code, its errors in words, and its log on stderr."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any

import typer

from reconciler.cli.show import Screen
from reconciler.errors import ReconcilerError, Remedy
from reconciler.telling.logs import json_handler, text_handler

log = logging.getLogger(__name__)

INTERRUPTED = 130
"""Exit code of what a signal cut off, as shells have it."""


class Unusable(ReconcilerError):
    """A file or folder of this machine that we may not use as we must."""

    remedy = Remedy.OPERATOR


def unusable(error: BaseException) -> Unusable | None:
    """What an operating system's error says of a file, in words; None for one that is not about a file."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    hint = "Make it usable for this user. --home names another folder for what is kept on this machine."
    return Unusable(f"{error.filename}: {error.strerror}", hint=hint)


def leave(
    screen: Screen,
    work: Callable[[], Coroutine[Any, Any, int]],
    *,
    as_json: bool = False,
    trouble: int | None = None,
) -> None:
    """Run one verb to its exit code; troubles that have a name are shown by it. `as_json` is of the log; `trouble` is
    the exit code of every trouble, where 1 says something else; None: its own."""
    with _logging(screen, as_json=as_json):
        try:
            code = asyncio.run(work())
        except ReconcilerError as error:
            screen.error(error)
            code = trouble or error.exit_code
        except (KeyboardInterrupt, asyncio.CancelledError):  # the latter: somebody insisted on an end
            code = INTERRUPTED
        except Exception as error:  # the outermost boundary: a traceback may quote a secret, and logs are masked
            if known := unusable(error):
                screen.error(known)
            else:
                log.exception("event=bug This is a mistake in reconcile itself; please report it.")
            code = trouble or 1
    raise typer.Exit(code)


@contextmanager
def _logging(screen: Screen, *, as_json: bool) -> Generator[None, None, None]:
    """Logs go to stderr, masked. Set up before hypha-rpc is imported, which would set it up to write to stdout."""
    handler = (json_handler if as_json else text_handler)(lambda text: screen.masked(text))
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)
