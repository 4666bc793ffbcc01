"""Numbers as people say them. What is not known ("NA", None) is a dash."""

from __future__ import annotations

import time


def number(value: object) -> str:
    """`0.5`, `8`, `-`."""
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else "-"


def memory(value: object) -> str:
    """Bytes as `1.5 GiB`."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "-"
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"


def age(since: object, now: float | None = None) -> str:
    """How long ago these seconds since the epoch are: `42s`, `5m`, `3h`, `2d`."""
    if not isinstance(since, int | float) or isinstance(since, bool):
        return "-"
    seconds = max(0.0, (time.time() if now is None else now) - since)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"
