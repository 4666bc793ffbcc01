"""The worker's own log: a file that does not grow for ever, and its last lines, without reading more than they take."""

from __future__ import annotations

import logging
import os
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 8 * 1024**2
BLOCK = 64 * 1024
LARGEST_BYTES = 64 * 1024**2
"""Then what is older is kept in `FILE.1` until the file is full again."""


def writer(file: Path) -> logging.Handler:
    """Appends to the file."""
    return RotatingFileHandler(file, maxBytes=LARGEST_BYTES, backupCount=1)


def tail(file: Path | None, lines: int) -> list[str]:
    """The last lines; 0 for all. At most MOST_BYTES, and then the first line says so.

    Raises RuntimeError when there is no file to read."""
    if file is None:
        raise RuntimeError(
            "this worker writes its log to its standard error, where it cannot read it again; "
            "start it with --log-file PATH, or look where its output goes"
        )
    try:
        with file.open("rb") as log:
            content, whole = _end_of(log, lines)
    except OSError as error:
        raise RuntimeError(
            f"the worker's log {file} cannot be read: {error.strerror}; a worker writes it again when it starts"
        ) from None
    found = content.decode(errors="replace").splitlines()
    if not whole:
        left_out = f"[older lines are left out: the last {MOST_BYTES // 1024**2} MB are shown; all are in {file}]"
        return [left_out, *found[1:]]  # the first one has lost its beginning
    return found[-lines:] if lines else found


def _end_of(log: BinaryIO, lines: int) -> tuple[bytes, bool]:
    """The end of the file, as much as it takes; and whether all that was asked for is in it."""
    size = log.seek(0, os.SEEK_END)
    reach = BLOCK if lines else MOST_BYTES
    while True:
        reach = min(reach, size, MOST_BYTES)
        log.seek(size - reach)
        content = log.read(reach)
        if reach == size or (lines and content.count(b"\n") > lines):
            return content, True
        if reach == MOST_BYTES:
            return content, False
        reach *= 2
