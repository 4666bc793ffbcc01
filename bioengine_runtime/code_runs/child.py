"""The process in which somebody's code runs: made for one run, and gone with it.

It gets one job on its standard input and keeps that open: when it closes, whoever started us is gone, and so are we.
The code's own input is empty; its output and errors are the process's own, so what C code and subprocesses print counts
too. The answer is plain data and leaves through a pipe of its own.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import io
import linecache
import os
import signal
import struct
import sys
import textwrap
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any, BinaryIO, TypedDict, cast

from bioengine_runtime.code_runs.plain_data import NotPlain, pack, unpack

LENGTH = struct.Struct(">Q")
RESULT_LIMIT = 256 * 1024**2
FILE = "<run_code>"
MODULE = "run_code_source"


class Job(TypedDict):
    """`code` is source (text) or a function pickled with cloudpickle (bytes)."""

    code: str | bytes
    function_name: str
    args: list[Any]
    kwargs: dict[str, Any]


class Answer(TypedDict, total=False):
    """`result`, or `error` and `traceback`."""

    result: Any
    error: str
    traceback: str


def main() -> None:
    answers = int(sys.argv[1])
    job = cast(Job, unpack(_receive(sys.stdin.buffer)))
    _end_with_parent()
    for stream in (sys.stdout, sys.stderr):
        cast(io.TextIOWrapper, stream).reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    answer = _packed(_run(job))
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the code has closed it
            continue
    with os.fdopen(answers, "wb") as pipe:
        pipe.write(answer)
    os._exit(0)  # threads that the code has left running are not waited for


def _receive(pipe: BinaryIO) -> bytes:
    (length,) = LENGTH.unpack(pipe.read(LENGTH.size))
    return pipe.read(length)


def _end_with_parent() -> None:
    lifeline = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def watch() -> None:
        os.read(lifeline, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def _run(job: Job) -> Answer:
    """Never raises for what the code does."""
    try:
        code = job["code"]
        function = _unpickled(code) if isinstance(code, bytes) else _defined(code, job["function_name"])
        result = function(*job["args"], **job["kwargs"])
        return Answer(result=asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result)
    except SystemExit as error:
        return _failed(f"SystemExit: the code ended itself with sys.exit({error.code!r})", error)
    except BaseException as error:
        return _failed(f"{type(error).__name__}: {error}".removesuffix(": "), error)


def _packed(answer: Answer) -> bytes:
    try:
        packed = pack(answer)
    except NotPlain as error:
        return pack(_failed(f"the function returned, but its result cannot be sent back: {error}"))
    if len(packed) > RESULT_LIMIT:
        return pack(
            _failed(
                f"the function returned, but its result cannot be sent back: it has {len(packed) / 1024**2:.0f} MB, "
                f"and {RESULT_LIMIT // 1024**2} MB is the most; store it and return where it is"
            )
        )
    return packed


def _defined(code: str, function_name: str) -> Callable[..., Any]:
    """Run the source as a module of its own, so that dataclasses and pickles of what it defines find it."""
    source = textwrap.dedent(code)
    module = sys.modules[MODULE] = types.ModuleType(MODULE)
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)  # tracebacks show its lines
    exec(compile(source, FILE, "exec"), module.__dict__)
    function = module.__dict__.get(function_name)
    if callable(function):
        return function
    defined = [name for name, value in vars(module).items() if inspect.isfunction(value)]
    raise NameError(f'the code defines no function "{function_name}"; it defines {", ".join(defined) or "none"}')


def _unpickled(func_bytes: bytes) -> Callable[..., Any]:
    """Pickles made with cloudpickle itself ask for it by name; Ray brings its own copy."""
    if importlib.util.find_spec("cloudpickle") is None:
        sys.modules["cloudpickle"] = importlib.import_module("ray.cloudpickle")
        sys.modules["cloudpickle.cloudpickle"] = importlib.import_module("ray.cloudpickle.cloudpickle")
    import pickle

    function = pickle.loads(func_bytes)
    if not callable(function):
        raise TypeError(f"func_bytes holds no function but {type(function).__name__}")
    return function


async def _awaited(result: Any) -> Any:
    return await result


def _failed(error: str, cause: BaseException | None = None) -> Answer:
    return Answer(error=error, traceback=_shown(cause) if cause else error)


def _shown(error: BaseException) -> str:
    """The traceback from the code's own first line on."""
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


if __name__ == "__main__":
    main()
