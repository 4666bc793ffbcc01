"""stdout and stderr of a run, whose readers may go away (`| head`, a log on a full disk) while there is work to do.

Law: what nobody can read any more is dropped, and stops nothing.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, cast


def begin() -> None:
    """Write to both through a pipe from now on."""
    sys.stdout, sys.stderr = cast("TextIO", Pipe(sys.stdout)), cast("TextIO", Pipe(sys.stderr))


def end(code: int) -> int:
    """The exit code when all is written. An answer that is lost is a failure, unless nobody wanted it any more."""
    sys.stdout.flush()
    lost = _broken()
    if lost is None or isinstance(lost, BrokenPipeError):
        return code
    sys.stderr.write(f"Error: not all of the answer could be written: {lost.strerror}\n")
    return code or 1


def is_read() -> bool:
    """Whether stdout still has a reader, as far as we wrote to it."""
    return _broken() is None


def _broken() -> OSError | None:
    return cast("OSError | None", getattr(sys.stdout, "broken", None))


class Pipe:
    """A text stream that is written to until it breaks. `broken` is why it did; None while it is whole."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.broken: OSError | None = None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no arrows is no reason to stop

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], object]) -> None:
        if self.broken is not None:
            return
        try:
            act()
        except OSError as error:
            self.broken = error
            self._drop_the_rest()

    def _drop_the_rest(self) -> None:
        """Or the interpreter writes what is left at its end, fails, and makes the exit code 120."""
        try:
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
        except OSError:
            return  # no stream of the system: nothing is left of it at the end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
