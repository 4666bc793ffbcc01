"""How heavy the arguments of a call are: light ones go in one message, heavy ones through Ray's store of objects."""

from __future__ import annotations

from typing import Any

LIGHT_BYTES = 256 * 1024
"""Well below what a replica takes in one message (Serve's default: 4 MB), and where the store begins to be faster."""
ITEM_BYTES = 64
"""What one value is counted as, so that a long list of small ones is not looked through to its end."""


def is_light(*values: Any) -> bool:
    """Whether these are plain values below the limit; of what is no plain value the weight is not known."""
    left, rest = LIGHT_BYTES, list(values)
    while rest:
        value = rest.pop()
        left -= ITEM_BYTES
        if isinstance(value, str | bytes | bytearray):
            left -= len(value)
        elif isinstance(value, dict):
            left -= ITEM_BYTES * len(value)
            if left > 0:
                rest += value.keys()
                rest += value.values()
        elif isinstance(value, list | tuple):
            left -= ITEM_BYTES * len(value)
            if left > 0:
                rest += value
        elif value is not None and not isinstance(value, bool | int | float):
            left -= getattr(value, "nbytes", LIGHT_BYTES)
        if left <= 0:
            return False
    return True
