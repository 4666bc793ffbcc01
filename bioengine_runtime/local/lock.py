"""One holder per home: the kernel keeps the lock, so it ends with its process, however that ends."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from bioengine_runtime.local.errors import HomeBusy


@contextmanager
def held(home: Path) -> Iterator[None]:
    """Hold `home` exclusively; raises HomeBusy, naming the holder, when another process has it."""
    path = home / "lock"
    # Python opens files close-on-exec: no child inherits the lock and keeps it when we are gone.
    with path.open("a+") as file:
        path.chmod(0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(home, file) from None
        _write_holder(file)
        try:
            yield
        finally:
            file.truncate(0)


def _write_holder(file: TextIO) -> None:
    file.truncate(0)
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    json.dump({"pid": os.getpid(), "since": since, "host": socket.gethostname()}, file)
    file.flush()


def _busy(home: Path, file: TextIO) -> HomeBusy:
    file.seek(0)
    try:
        holder = json.load(file)
        since = datetime.fromisoformat(holder["since"])
        return HomeBusy(home, pid=int(holder["pid"]), since=since, host=str(holder["host"]))
    except (ValueError, KeyError):
        # The holder took the lock a moment ago and has not said its name yet.
        return HomeBusy(home, pid=None, since=None, host=socket.gethostname())
