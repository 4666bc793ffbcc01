"""Handlers for the log: as JSON, one object per line, or as text. Both masked.

Law: whatever a message holds, it is one entry. Only a traceback takes further lines of text, and those are indented.
"""

from __future__ import annotations

import ast
import logging
import re
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from reconciler.planning.shown import plain
from reconciler.secrets import masking_filter
from reconciler.telling.runs import run_id

Masked = Callable[[str], str]

FIELD_LIMIT = 40
"""Fields of one message at most."""
_RENAMED = {"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "traceback"}
_RESERVED = frozenset({"message", "run", "taskName", *_RENAMED.values(), *vars(logging.makeLogRecord({}))})
_PAIR = re.compile(r"""(?P<key>[a-z_]+)=(?P<value>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\S*)(?:\s+|$)""")
_FREE = ("why", "error")
"""Keys whose value is the rest of the message."""


def json_handler(masked: Masked, stream: TextIO | None = None) -> logging.Handler:
    """One JSON object per line: time, level, logger, run, message, and the `key=value` facts of the message."""
    from pythonjsonlogger.json import JsonFormatter  # for this only

    handler = logging.StreamHandler(stream or sys.stderr)
    shape = "%(asctime)s %(levelname)s %(name)s %(message)s"
    handler.setFormatter(JsonFormatter(shape, rename_fields=_RENAMED, datefmt="%Y-%m-%dT%H:%M:%S%z"))
    handler.addFilter(masking_filter(masked))
    handler.addFilter(_with_fields)
    return handler


def text_handler(masked: Masked, stream: TextIO | None = None) -> logging.Handler:
    """One line of text per entry, for people."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Text("%(asctime)s %(levelname)s %(name)s %(message)s"))
    handler.addFilter(masking_filter(masked))
    return handler


def fields(message: str) -> dict[str, str]:
    """The facts of a message such as `event=step address='upload a' seconds=1.2 why=no answer`; none, when it does not
    begin with its event. What is said first of a thing stays."""
    return dict(reversed(list(_pairs(message)))) if message.startswith("event=") else {}


def _pairs(message: str) -> Iterator[tuple[str, str]]:
    at = 0
    for _ in range(FIELD_LIMIT):
        found = _PAIR.match(message, at)
        if found is None:
            return
        if found["key"] in _FREE:
            yield found["key"], message[found.start("value") :]
            return
        yield found["key"], _unquoted(found["value"])
        at = found.end()


def _unquoted(value: str) -> str:
    """What `%r` quoted."""
    if value[:1] not in ("'", '"'):
        return value
    try:
        return str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return value


def _with_fields(record: logging.LogRecord) -> bool:
    """After masking: the message is whole, and without arguments."""
    said = {key: value for key, value in fields(str(record.msg)).items() if key not in _RESERVED}
    for key, value in ({"run": run_id.get()} | said).items():
        if value:
            setattr(record, key, value)
    return True


class _Text(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        run = run_id.get()
        return plain(super().formatMessage(record)) + (f" run={run}" if run else "")

    def format(self, record: logging.LogRecord) -> str:
        first, *more = super().format(record).splitlines()
        return "\n".join([first, *(f"    {plain(line)}" for line in more)])
