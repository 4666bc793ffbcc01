"""Values that are nothing but data, as bytes: numbers, text, bytes, lists, dicts, sets, numpy arrays of numbers.

Law: reading them runs nobody's code, whoever wrote them. Pickles are not like that: whoever reads one runs what its
writer likes. So this is how the results of other people's code reach the worker.
"""

from __future__ import annotations

import sys
from typing import Any

import msgpack

ARRAY, SET = 1, 2
NUMBERS = "biufc"
"""Kinds of numpy's dtypes: bool, int, unsigned, float, complex."""


class NotPlain(ValueError):
    """The value holds something that is more than data; the message names its type."""


def pack(value: Any) -> bytes:
    """Tuples become lists. Raises NotPlain."""
    try:
        packed: Any = msgpack.packb(value, default=_other)
        return packed
    except NotPlain:
        raise
    except (TypeError, ValueError, OverflowError) as error:  # nested too deeply, or in itself; an int of over 64 bits
        raise NotPlain(str(error)) from None


def unpack(data: bytes) -> Any:
    """Raises NotPlain for bytes that `pack` has not written."""
    try:
        return msgpack.unpackb(data, ext_hook=_read_other, strict_map_key=False)
    except NotPlain:
        raise
    except Exception as error:  # msgpack raises many kinds, all of them for the same reason
        raise NotPlain(f"not readable: {type(error).__name__}: {error}") from None


def _other(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return msgpack.ExtType(SET, pack(list(value)))
    numpy = sys.modules.get("numpy")  # who has not imported it has no array
    if numpy and isinstance(value, numpy.ndarray) and value.dtype.kind in NUMBERS:
        return msgpack.ExtType(ARRAY, pack([value.dtype.str, value.shape, value.tobytes()]))
    if numpy and isinstance(value, numpy.generic) and value.dtype.kind in "biuf":
        return value.item()
    what = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    if numpy and isinstance(value, numpy.ndarray):
        what += f" of {value.dtype}"
    raise NotPlain(
        f"{what} is not plain data: numbers, text, bytes, lists, dicts, sets and numpy arrays of numbers are"
    )


def _read_other(code: int, data: bytes) -> Any:
    if code == SET:
        return set(unpack(data))
    if code != ARRAY:
        raise NotPlain(f"not readable: unknown kind {code}")
    import numpy

    kind, shape, content = unpack(data)
    dtype = numpy.dtype(kind)
    if dtype.kind not in NUMBERS:
        raise NotPlain(f"not readable: an array of {dtype}")
    return numpy.frombuffer(content, dtype).reshape(shape).copy()  # what reads it may write into it
