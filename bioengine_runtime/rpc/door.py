"""The door of a Hypha service: arguments are checked before anything runs, errors leave as one plain line.

Law: no value that came in leaves again in an error or a log (it may be a secret); fields are named instead. Of a fault
strangers are told the type alone: its text may hold addresses.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from bioengine_runtime.apps.errors import AppError
from bioengine_runtime.rpc.access import Caller
from bioengine_runtime.rpc.callers import Callers

log = logging.getLogger(__name__)

Method = Callable[..., Awaitable[Any]]
_MARK = "__exposed__"
FAULT = "the worker could not answer; its admins are told more, and its log says where"


class Invalid(ValueError):
    """The arguments do not say what the method needs; every field that is wrong is named."""


def arguments_model(function: Callable[..., Any], *, skip: tuple[str, ...] = ("self", "caller")) -> type[BaseModel]:
    """The parameters of a method as a closed pydantic model."""
    signature = inspect.signature(function, eval_str=True)
    fields: dict[str, Any] = {
        name: (parameter.annotation, ... if parameter.default is inspect.Parameter.empty else parameter.default)
        for name, parameter in signature.parameters.items()
        if name not in skip
    }
    config = ConfigDict(extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True)
    return create_model(function.__name__, __config__=config, **fields)


def checked(model: type[BaseModel], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as the method wants them, positional ones by order. Raises Invalid naming every wrong field."""
    names = list(model.model_fields)
    if len(args) > len(names):
        raise Invalid(f"{model.__name__} takes {len(names)} arguments, {len(args)} were given")
    given = dict(zip(names, args, strict=False))
    if twice := sorted(given.keys() & kwargs.keys()):
        raise Invalid(f"{twice[0]}: given twice, by position and by name")
    try:
        valid = model.model_validate(_said({**given, **kwargs}, model))
    except ValidationError as error:
        raise Invalid(in_words(error)) from None
    return {name: getattr(valid, name) for name in names}


def _said(given: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """What was really said: None for what may be left out is the same as leaving it out."""
    optional = {name for name, field in model.model_fields.items() if not field.is_required()}
    return {name: value for name, value in given.items() if value is not None or name not in optional}


def in_words(error: ValidationError) -> str:
    """`spec.app_id: String should match …; spec.version: Field required`, never a value."""
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'value'}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False, include_context=False)
    )


def answering(work: Coroutine[Any, Any, Any], *, cancel_with_caller: bool) -> asyncio.Future[Any]:
    """The work as a future whose error carries neither our traceback nor its cause.

    hypha-rpc sends the whole formatted traceback of what a method raises; a bare exception in a future has none.
    `cancel_with_caller=False` lets the work finish when the caller goes away (it may be half way through a deploy).
    """
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(work)

    def settle(done: asyncio.Task[Any]) -> None:
        if answer.done():
            _ = done.cancelled() or done.exception()
        elif done.cancelled():
            answer.set_exception(plain(RuntimeError("the call was cancelled")))
        elif error := done.exception():
            answer.set_exception(plain(error))
        else:
            answer.set_result(done.result())

    task.add_done_callback(settle)
    if cancel_with_caller:
        answer.add_done_callback(lambda _: task.cancel())
    else:
        _unowned.add(task)
        task.add_done_callback(_unowned.discard)
    return answer


_unowned: set[asyncio.Task[Any]] = set()


def plain(error: BaseException) -> Exception:
    """The error's own type and message with nothing attached, fit to be sent."""
    # Clients know a wrong argument as a ValueError.
    name = ValueError.__name__ if isinstance(error, Invalid) else type(error).__name__
    if not isinstance(error, Exception):
        return RuntimeError(f"{name}: {error}")
    return named(name, str(error))


def named(name: str, text: str) -> Exception:
    """An exception of this name. Of a fresh class: to rebuild the original could need arguments we do not have."""
    bare: Exception = type(name, (Exception,), {"__module__": "builtins"})(text)
    bare.__suppress_context__ = True
    return bare


def refusal(error: Exception) -> dict[str, Any]:
    """What the reconciler's methods answer instead of raising when the answer is no."""
    kind = "Denied" if isinstance(error, PermissionError) else "Invalid" if isinstance(error, Invalid) else "Refused"
    return {"error": {"kind": kind, "message": str(error)}}


@dataclass(frozen=True, slots=True)
class Exposed:
    """How a method is exposed: admins only or everybody; a "no" raised, or answered as a value; another name it has;
    whether what it does is done for nobody when its caller has gone."""

    admin: bool
    refusals_are_values: bool
    also: str | None
    ends_with_caller: bool


def exposed(
    *, admin: bool = False, refusals_are_values: bool = False, also: str | None = None, ends_with_caller: bool = False
) -> Callable[[Method], Method]:
    """Mark a method `async def name(self, caller, …)` as part of the service; `also` is a second spelling of it."""

    def mark(function: Method) -> Method:
        setattr(function, _MARK, Exposed(admin, refusals_are_values, also, ends_with_caller))
        return function

    return mark


def remote_methods(
    service: object, authorize: Callable[[Caller, str], None], is_insider: Callable[[Caller], bool], callers: Callers
) -> dict[str, Callable[..., Any]]:
    """The marked methods of an object as functions for hypha-rpc, each with its schema, under every name they have."""
    marked = {name: getattr(function, _MARK) for name, function in vars(type(service)).items() if _is_marked(function)}
    return {
        spelling: _remote(spelling, getattr(service, name), how, authorize, is_insider, callers)
        for name, how in marked.items()
        for spelling in (name, how.also)
        if spelling
    }


def _is_marked(function: object) -> bool:
    return hasattr(function, _MARK)


def _remote(
    name: str,
    method: Method,
    how: Exposed,
    authorize: Callable[[Caller, str], None],
    is_insider: Callable[[Caller], bool],
    callers: Callers,
) -> Callable[..., asyncio.Future[Any]]:
    model = arguments_model(method)

    async def work(caller: Caller, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            if how.admin:
                authorize(caller, name)
            return await method(caller, **checked(model, args, kwargs))
        except (AppError, Invalid, PermissionError) as no:
            log.info("event=refused method=%s kind=%s", name, type(no).__name__)
            if how.refusals_are_values:
                return refusal(no)
            raise
        except Exception as fault:
            # The traceback is for us; the message is left out of the log, it may quote what came in.
            log.error("event=fault method=%s error=%s", name, type(fault).__name__, exc_info=_where(fault))
            if is_insider(caller):
                raise
            raise named(type(fault).__name__, FAULT) from None

    def remote(*args: Any, context: dict[str, Any] | None = None, **kwargs: Any) -> asyncio.Future[Any]:
        doing = work(Caller.from_context(context), args, kwargs)
        if how.ends_with_caller:
            doing = callers.ending_with(str((context or {}).get("from")), doing)
        return answering(doing, cancel_with_caller=how.ends_with_caller)

    remote.__name__ = name
    remote.__doc__ = method.__doc__
    setattr(remote, "__schema__", _schema(name, method, model))  # noqa: B010 - no attribute that type checkers know
    return remote


def _schema(name: str, method: Method, model: type[BaseModel]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {}, **model.model_json_schema()}
    return {"name": name, "description": inspect.getdoc(method) or "", "parameters": parameters}


def _where(fault: Exception) -> tuple[type[BaseException], BaseException, Any]:
    """The place of a fault without its message."""
    nameless = RuntimeError("message withheld")
    return RuntimeError, nameless, fault.__traceback__
