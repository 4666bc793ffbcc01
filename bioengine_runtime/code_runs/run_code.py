"""run_code: one function of somebody's, run on the cluster in a process made for it, with its output as it is printed.

Law: none of the code ever runs in the worker's process. That takes more than calling it elsewhere: its source is not
executed here, its pickle not opened, and its result comes back as plain data, for a pickle would run what it likes.
"""

from __future__ import annotations

import asyncio
import codecs
import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import ray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray.exceptions import RayError

from bioengine_runtime.apps.fitting import Asked, impossible
from bioengine_runtime.apps.requirements import amount, resources
from bioengine_runtime.apps.room import nodes_now
from bioengine_runtime.code_runs.child import Job
from bioengine_runtime.code_runs.plain_data import NotPlain, pack, unpack
from bioengine_runtime.code_runs.task import OUTPUT_LIMIT, run_in_child
from bioengine_runtime.rpc.door import Invalid, in_words

log = logging.getLogger(__name__)

Tell = Callable[[str], Any]
END_WITHIN_S = 5.0
TELL_WITHIN_S = 10.0
TELL_REST_WITHIN_S = 30.0
TOLD_AT_ONCE = 64 * 1024

_ending: set[asyncio.Task[None]] = set()


class RemoteOptions(BaseModel):
    """What a caller may ask of Ray for the code; memory in bytes. The rest of Ray's options is ours."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    num_cpus: Annotated[float, Field(ge=0)] = 1
    num_gpus: Annotated[float, Field(ge=0)] = 0
    memory: Annotated[float, Field(gt=0)] | None = None
    resources: dict[str, Annotated[float, Field(gt=0)]] | None = None
    accelerator_type: str | None = None
    label_selector: dict[str, str] | None = None
    scheduling_strategy: Literal["DEFAULT", "SPREAD"] | None = None
    runtime_env: dict[str, Any] | None = None

    def for_ray(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)

    def needs(self) -> dict[str, float]:
        """What it takes of one node, in Ray's names."""
        kind = {f"accelerator_type:{self.accelerator_type}": 0.001} if self.accelerator_type else {}
        return {**resources(self.for_ray()), **kind}

    def variables(self) -> list[str]:
        """Names of the environment variables that the caller sets."""
        return list((self.runtime_env or {}).get("env_vars") or {})


async def run_code(
    *,
    code: str | None,
    function_name: str,
    func_bytes: bytes | None,
    mode: str,
    args: list[Any] | None,
    kwargs: dict[str, Any] | None,
    remote_options: dict[str, Any] | None,
    write_stdout: Tell | None,
    write_stderr: Tell | None,
    timeout: float,
    grows: bool = False,
) -> dict[str, Any]:
    """{result, stdout, stderr} or {error, traceback, stdout, stderr}. Raises Invalid when there is nothing to run.

    `timeout`: seconds for everything, waiting for a place included; then, and when this is cancelled, the code's
    process is ended with all it has started. The `write_` functions get every line as it is printed, or several joined
    when lines come faster than calls return; what goes wrong with them does not concern the code. `grows`: what fits
    on no node of now waits for one that may come.
    """
    job = _job(code, function_name, func_bytes, mode, args, kwargs)
    try:
        options = RemoteOptions.model_validate(
            {name: value for name, value in (remote_options or {}).items() if value is not None}
        )
    except ValidationError as error:
        known = ", ".join(RemoteOptions.model_fields)
        return _answer(_Printed(None), _Printed(None), error=f"remote_options: {in_words(error)}; there are {known}")
    stdout, stderr = _Printed(write_stdout), _Printed(write_stderr)
    run = _Run(job, options, stdout, stderr, grows=grows)
    try:
        outcome = await run.outcome(timeout)
        await asyncio.gather(stdout.finish(), stderr.finish())
    finally:
        if not run.over:
            _in_background(run.end())
        stdout.close()
        stderr.close()
    return _answer(stdout, stderr, **outcome)


def _job(
    code: str | None,
    function_name: str,
    func_bytes: bytes | None,
    mode: str,
    args: list[Any] | None,
    kwargs: dict[str, Any] | None,
) -> bytes:
    needed = {"source": ("code", code), "pickle": ("func_bytes", func_bytes)}
    if mode not in needed:
        raise Invalid(f'mode: give "source" or "pickle", not "{mode}"')
    name, what = needed[mode]
    if not what:
        raise Invalid(f'{name}: needed in mode "{mode}"')
    try:
        return pack(Job(code=what, function_name=function_name, args=args or [], kwargs=kwargs or {}))
    except NotPlain as error:
        raise Invalid(f"args, kwargs: {error}") from None


def _answer(
    stdout: _Printed, stderr: _Printed, *, error: str | None = None, traceback: str | None = None, result: Any = None
) -> dict[str, Any]:
    printed = {"stdout": stdout.text(), "stderr": stderr.text()}
    if error is not None:
        return {"error": error, "traceback": traceback or error, **printed}
    return {"result": result, **printed}


class _Run:
    """One job on the cluster, from its submission to its end."""

    def __init__(self, job: bytes, options: RemoteOptions, stdout: _Printed, stderr: _Printed, *, grows: bool) -> None:
        self._job = job
        self._grows = grows
        self._options = options
        self._printed = {"stdout": stdout, "stderr": stderr}
        self._submission: asyncio.Task[Any] | None = None
        self._following: asyncio.Task[dict[str, Any]] | None = None
        self._started = False

    @property
    def over(self) -> bool:
        return self._submission is None or (self._following is not None and self._following.done())

    async def outcome(self, timeout_s: float) -> dict[str, Any]:
        """`result`, or `error` and perhaps `traceback`; never raises for what happens to the code."""
        needs = self._options.needs()
        if not self._grows and (impediment := await _impediment(needs)):
            return {"error": impediment}
        self._submission = asyncio.create_task(asyncio.to_thread(self._submit))
        self._following = asyncio.create_task(self._follow(self._submission))
        # Not cancelled when time is up: it is still to take what was printed until then.
        done, _ = await asyncio.wait({self._following}, timeout=timeout_s)
        if done:
            return self._following.result()
        await self.end()
        if self._started:
            return {"error": f"timed out: the code had not finished after {timeout_s:g} s, and was ended"}
        asked = ", ".join(amount(name, value) for name, value in needs.items()) or "a process"
        why = await _impediment(needs) or f"no node had {asked} free in time, or its runtime_env was still being built"
        return {"error": f"timed out: the code had not started after {timeout_s:g} s, and never will: {why}"}

    async def end(self) -> None:
        """End the code for good: asked first, so that all it has started ends with it; then by force."""
        assert self._submission and self._following
        for force in (False, True):
            await asyncio.wait({self._submission}, timeout=END_WITHIN_S)
            if self._submission.done() and not self._submission.exception():
                ray.cancel(self._submission.result(), force=force)
            await asyncio.wait({self._following}, timeout=END_WITHIN_S)
            if self._following.done():
                return
        self._following.cancel()

    def _submit(self) -> Any:
        """Uploads what the runtime_env names, so it may take a while."""
        address = ray.get_runtime_context().gcs_address
        options = self._options
        return _task().options(name="run_code", **options.for_ray()).remote(self._job, address, options.variables())

    async def _follow(self, submission: asyncio.Task[Any]) -> dict[str, Any]:
        outcome: dict[str, Any] = {"error": "the code's process has ended without a word"}
        try:
            async for reference in await asyncio.shield(submission):
                kind, content = await reference
                outcome = self._take(kind, content) or outcome
        except RayError as error:
            return {"error": f"the code was lost with the process or node it ran on, or never got one: {error}"}
        except Exception as error:  # Ray's opinion of the options; or ours to find out
            return {"error": f"the code could not be run: {type(error).__name__}: {error}"}
        return outcome

    def _take(self, kind: str, content: bytes) -> dict[str, Any] | None:
        match kind:
            case "stdout" | "stderr":
                self._printed[kind].take(content)
            case "full":
                limit = f"\n[only the first {OUTPUT_LIMIT // 1024**2} MB of the output are kept]\n"
                self._printed["stderr"].take(limit.encode())
            case "answer":
                return _read(content)
            case "ended":
                return {"error": content.decode()}
            case _:
                self._started = True
        return None


def _read(content: bytes) -> dict[str, Any]:
    """What the code's process has answered; anybody's bytes, if the code wished so."""
    try:
        answer = unpack(content)
    except NotPlain as error:
        return {"error": f"the function returned, but its result cannot be sent back: {error}"}
    if isinstance(answer, dict) and "result" in answer:
        return {"result": answer["result"]}
    if isinstance(answer, dict) and "error" in answer:
        return {"error": str(answer["error"]), "traceback": str(answer.get("traceback", ""))}
    return {"error": "the code has written into the pipe of its answer, so nothing can be known of its result"}


async def _impediment(needs: Mapping[str, float]) -> str:
    """Why no node that there is could ever run it; empty when nothing speaks against it."""
    return impossible([Asked("the code", (needs,), 1)], await asyncio.to_thread(nodes_now))


@functools.cache
def _task() -> Any:
    return ray.remote(num_returns="streaming", max_retries=0)(run_in_child)


def _in_background(work: Any) -> None:
    task = asyncio.create_task(work)
    _ending.add(task)
    task.add_done_callback(_ending.discard)


class _Printed:
    """One of stdout and stderr: kept, and told line by line to whoever wants to hear it, one call at a time."""

    def __init__(self, tell: Tell | None) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._kept: list[str] = []
        self._begun = ""
        self._untold: list[str] = []
        self._more = asyncio.Event()
        self._finished = False
        self._telling = asyncio.create_task(self._tell(tell)) if tell else None

    def text(self) -> str:
        return "".join(self._kept)

    def take(self, part: bytes, *, final: bool = False) -> None:
        text = self._decoder.decode(part, final)
        self._kept.append(text)
        if self._telling is None:
            return
        # As progress bars do it, "\r" ends a line too; at the end of a part it may be the half of "\r\n".
        lines = (self._begun + text).splitlines(keepends=True)
        self._begun = "" if final or not lines or lines[-1].endswith("\n") else lines.pop()
        self._untold += [line.rstrip("\r\n") for line in lines]
        self._more.set()

    async def finish(self) -> None:
        """Nothing more will come. Waits until everything is told, or cannot be."""
        self.take(b"", final=True)
        self._finished = True
        self._more.set()
        if self._telling:
            await asyncio.wait({self._telling}, timeout=TELL_REST_WITHIN_S)

    def close(self) -> None:
        """Tell nothing any more."""
        if self._telling:
            self._telling.cancel()

    async def _tell(self, tell: Tell) -> None:
        try:
            while self._untold or not self._finished:
                await self._more.wait()
                self._more.clear()
                while self._untold:
                    async with asyncio.timeout(TELL_WITHIN_S):
                        answer = tell(self._next())
                        if inspect.isawaitable(answer):
                            await answer
        except Exception as error:
            log.info("event=run_code_listener_lost error=%s", type(error).__name__)

    def _next(self) -> str:
        """The next line; when more are waiting, as many as go into one message."""
        size, number = 0, 0
        for line in self._untold:
            size += len(line) + 1
            if number and size > TOLD_AT_ONCE:
                break
            number += 1
        told, self._untold = self._untold[:number], self._untold[number:]
        return "\n".join(told)
