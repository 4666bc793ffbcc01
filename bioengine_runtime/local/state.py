"""What runs on a home, written down as it starts, so that the next start can find what a killed one left behind."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bioengine_runtime.local.secrets import write_private


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process we started. A pid is used again by the kernel; together with the start time it is not."""

    what: str
    pid: int
    created: float


@dataclass(frozen=True, slots=True)
class State:
    ports: Mapping[str, int] = field(default_factory=dict)
    processes: tuple[ProcessRecord, ...] = ()
    ray_temp: str | None = None


def read_state(path: Path) -> State:
    """The last state written; an absent or unreadable file says nothing, the environment marker finds what runs."""
    try:
        document = json.loads(path.read_text())
        return State(
            ports={str(name): int(port) for name, port in document["ports"].items()},
            processes=tuple(ProcessRecord(**record) for record in document["processes"]),
            ray_temp=document["ray_temp"],
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return State()


def write_state(path: Path, state: State) -> None:
    write_private(path, json.dumps(asdict(state), indent=2))
