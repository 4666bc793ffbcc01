"""How a command ends: its exit code, its errors in words, and its log on stderr."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any

import typer

from reconciler.cli.show import Screen
from reconciler.errors import ReconcilerError
from reconciler.secrets import masking_filter

log = logging.getLogger(__name__)


def leave(screen: Screen, work: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """Run one verb to its exit code; troubles that have a name are shown by it."""
    with _logging(screen):
        try:
            code = asyncio.run(work())
        except ReconcilerError as error:
            screen.error(error)
            code = error.exit_code
        except KeyboardInterrupt:
            code = 130
        except Exception:  # the outermost boundary: a traceback may quote a secret, and logs are masked
            log.exception("event=bug This is a mistake in reconcile itself; please report it.")
            code = 1
    raise typer.Exit(code)


@contextmanager
def _logging(screen: Screen) -> Generator[None, None, None]:
    """Logs go to stderr, masked. Set up before hypha-rpc is imported, which would set it up to write to stdout."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    handler.addFilter(masking_filter(lambda text: screen.masked(text)))
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)
