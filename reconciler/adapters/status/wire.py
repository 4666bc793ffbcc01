"""A method as hypha-rpc wants it: with a schema, its arguments checked, and errors without our traceback.

Law: no value that came in leaves again in an error.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from reconciler.adapters.status.people import Caller
from reconciler.errors import ReconcilerError

log = logging.getLogger(__name__)

Method = Callable[..., Awaitable[Any]]
"""`async def name(caller, …)`, each further parameter annotated with its description."""


def remote(method: Method) -> Callable[..., asyncio.Future[Any]]:
    """A function of its own at every call: hypha-rpc keeps what it knows of a function with the function."""
    name = method.__name__
    model = _arguments(method)

    async def work(context: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return await method(Caller.from_context(context), **_checked(model, args, kwargs))

    def called(*args: Any, context: object = None, **kwargs: Any) -> asyncio.Future[Any]:
        return _bare(name, asyncio.ensure_future(work(context, args, kwargs)))

    called.__name__ = name
    called.__doc__ = inspect.getdoc(method)
    parameters: dict[str, Any] = {"type": "object", "properties": {}, **model.model_json_schema()}
    schema = {"name": name, "description": called.__doc__ or "", "parameters": parameters}
    setattr(called, "__schema__", schema)  # noqa: B010 - no attribute that type checkers know
    return called


def _arguments(method: Method) -> type[BaseModel]:
    signature = inspect.signature(method, eval_str=True)
    fields: dict[str, Any] = {
        name: (parameter.annotation, ... if parameter.default is inspect.Parameter.empty else parameter.default)
        for name, parameter in signature.parameters.items()
        if name != "caller"
    }
    return create_model(method.__name__, __config__=ConfigDict(extra="forbid", hide_input_in_errors=True), **fields)


def _checked(model: type[BaseModel], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    names = list(model.model_fields)
    if len(args) > len(names):
        raise ValueError(f"{model.__name__} takes {len(names)} arguments, {len(args)} were given")
    # None for what may be left out is as good as leaving it out.
    said = {
        name: value for name, value in {**dict(zip(names, args, strict=False)), **kwargs}.items() if value is not None
    }
    try:
        valid = model.model_validate(said)
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False, include_context=False)
        raise ValueError("; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in wrong)) from None
    return {name: getattr(valid, name) for name in names}


def _bare(name: str, work: asyncio.Future[Any]) -> asyncio.Future[Any]:
    """hypha-rpc sends the whole traceback of what a method raises; an exception that was never raised has none. Who
    leaves before the answer does not undo what was asked for."""
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def settle(done: asyncio.Future[Any]) -> None:
        if answer.done():
            _ = done.cancelled() or done.exception()
        elif done.cancelled():
            answer.set_exception(RuntimeError("the call was cancelled"))
        elif error := done.exception():
            answer.set_exception(_plain(name, error))
        else:
            answer.set_result(done.result())

    work.add_done_callback(settle)
    _under_way.add(work)
    work.add_done_callback(_under_way.discard)
    return answer


_under_way: set[asyncio.Future[Any]] = set()


def _plain(name: str, error: BaseException) -> Exception:
    match error:
        case ReconcilerError():
            kind, text = type(error).__name__, f"{error}; {error.hint}" if error.hint else str(error)
        case ValueError() | PermissionError():
            kind, text = type(error).__name__, str(error)
        case _:
            log.error("event=fault method=%s", name, exc_info=error)
            kind, text = "RuntimeError", f"{type(error).__name__}; the reconciler's log says more"
    return type(kind, (Exception,), {"__module__": "builtins"})(text)
