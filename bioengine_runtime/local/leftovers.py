"""Stop what a start that was killed left running on its home, and nothing else."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from bioengine_runtime.local.home import HOME_MARKER, Home, remove_ray_temp
from bioengine_runtime.local.process import kill_all, record_of, running
from bioengine_runtime.local.state import ProcessRecord, State, read_state


async def stop_leftovers(home: Home) -> list[ProcessRecord]:
    """Kill what still runs from an earlier start on `home`; the caller holds its lock, so nobody else needs it."""
    state = read_state(home.state_file)
    left = find_leftovers(home, state)
    await kill_all(left)
    if state.ray_temp:
        remove_ray_temp(Path(state.ray_temp))
    return left


def find_leftovers(home: Home, state: State) -> list[ProcessRecord]:
    """Processes written down in the state, and those that carry the home's marker.

    Ray's own Python processes overwrite their environment when they give themselves a name, and the marker with it;
    they are children of the raylet, which keeps it, and `kill_all` takes children along.
    """
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    marked = {record.pid: record for record in _marked(home.marker) if record.pid not in ours}
    written = {record.pid: record for record in state.processes if running(record)}
    return list({**marked, **written}.values())


def lives(home: Home, what: str) -> bool:
    """Whether what the state calls so still runs: by the home's marker, which no process of somebody else carries and
    which, unlike a start time, says the same after the machine's clock was set."""
    written = [record for record in read_state(home.state_file).processes if record.what == what]
    return any(_carries(record.pid, home.marker) for record in written)


def _marked(marker: str) -> Iterator[ProcessRecord]:
    for process in psutil.process_iter():
        if _carries(process.pid, marker):
            record = record_of(process, "leftover")
            if record is not None:
                yield record


def _carries(pid: int, marker: str) -> bool:
    try:
        return psutil.Process(pid).environ().get(HOME_MARKER) == marker
    except (psutil.Error, OSError):
        return False  # not ours to read, so not ours; or gone
