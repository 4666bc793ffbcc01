"""`bioengine call`: one method of any service, from a shell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from bioengine_runtime.command.connect import Service, plain, within
from bioengine_runtime.command.place import DEFAULT_SERVER, Json, Place, ServerUrl, Token, place_of
from bioengine_runtime.command.show import clean
from bioengine_runtime.command.trouble import Trouble, said
from bioengine_runtime.command.values import Schema, jsonable, key_and_value, readable, signature, typed

Timeout = Annotated[float, typer.Option("--timeout", min=1, metavar="SECONDS", help="How long the call may take.")]


def call(
    ctx: typer.Context,
    service_id: Annotated[
        str, typer.Argument(metavar="SERVICE_ID", help="WORKSPACE/APP, or WORKSPACE/CLIENT:APP in full.")
    ],
    method: Annotated[
        str | None, typer.Argument(metavar="METHOD", help="What to call; left out: list what there is.")
    ] = None,
    args: Annotated[str | None, typer.Option("--args", metavar="JSON", help="Arguments as one JSON object.")] = None,
    arg: Annotated[
        list[str] | None,
        typer.Option("--arg", metavar="K=V", help="One argument; several times. It wins over --args."),
    ] = None,
    list_methods: Annotated[bool, typer.Option("--list-methods", help="What can be called, and with what.")] = False,
    as_json: Json = False,
    timeout: Timeout = 300.0,
    token: Token = None,
    server_url: ServerUrl = DEFAULT_SERVER,
) -> None:
    """Call a method of an app (or of any other service) and print what it answers.

    `--arg` takes the type that the method's schema names; without one, true, false and numbers are recognised.
    Arrays are shown in words on a terminal; with --json, or into a pipe, every element is printed. A method that
    streams prints each item as it comes.

    \b
    Examples:
      bioengine call bioimage-io/my-app --list-methods
      bioengine call bioimage-io/my-app ping
      bioengine call bioimage-io/my-app segment --arg model=cyto3 --arg diameter=30
      bioengine call bioimage-io/my-app segment --args '{"images": ["a.tif"]}' --json | jq .
    """
    place = place_of(ctx, server_url, token, json=as_json)
    given = _arguments(args, arg or [])

    async def work() -> None:
        async with await place.service(service_id, timeout_s=timeout) as service:
            if list_methods or method is None:
                _list(place, service, as_json=as_json)
            else:
                await _call(place, service, method, given, timeout, as_json=as_json)

    place.run(work)


def _arguments(args: str | None, arg: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Those of --args, and those of --arg as they were written."""
    try:
        whole = json.loads(args) if args else {}
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint="--args") from None
    if not isinstance(whole, dict):
        raise typer.BadParameter('expected an object like {"name": "value"}', param_hint="--args")
    pairs = [key_and_value(text) for text in arg]
    if None in pairs:
        raise typer.BadParameter("expected NAME=VALUE", param_hint="--arg")
    return whole, dict(pair for pair in pairs if pair)


def _list(place: Place, service: Service, *, as_json: bool) -> None:
    schemas = {name: _schema(method) for name, method in sorted(service.methods.items())}
    if as_json:
        place.screen.document([{"name": name, **(schema or {})} for name, schema in schemas.items()])
        return
    for name, schema in schemas.items():
        place.screen.result(clean(signature(name, schema)))
        about = (schema or {}).get("description") or ""
        for line in about.strip().splitlines()[:1]:
            place.screen.result(f"    {clean(line)}")
        for parameter, told in _told(schema):
            place.screen.result(f"    {clean(parameter)}: {clean(told)}")
    if schemas:
        place.screen.next(f"{place.command('call', service.service_id, worker=False)} METHOD --arg NAME=VALUE")


async def _call(
    place: Place,
    service: Service,
    method: str,
    given: tuple[dict[str, Any], dict[str, str]],
    timeout: float,
    *,
    as_json: bool,
) -> None:
    function = service.methods.get(method)
    if function is None:
        known = ", ".join(sorted(service.methods)) or "nothing"
        raise Trouble(f"{service.service_id} has no method {method}.", f"It has {known}.")
    whole, single = given
    schema = _schema(function)
    wanted = _parameters(schema)
    arguments = {**whole, **{name: typed(text, wanted.get(name)) for name, text in single.items()}}
    if missing := _required(schema) - arguments.keys():
        raise Trouble(f"{method} needs {', '.join(sorted(missing))}.", f"It is {signature(method, schema)}.")
    try:
        answer = await within(function(**arguments), timeout)
        if hasattr(answer, "__aiter__"):
            async for item in answer:
                place.screen.result(_line(item))
            return
    except TimeoutError:
        raise Trouble(f"{method} did not answer in {timeout:g} s.", "Allow it more with --timeout.") from None
    except Exception as error:  # hypha-rpc has one type for everything the other side raises
        why = said(error)
        if why.kind == "PermissionError":
            raise service.refusal(why) from None
        see = place.command("call", service.service_id, "--list-methods", worker=False)
        app_id = service.service_id.replace(":", "/").split("/")[-1]
        raise Trouble(str(why), f"See {see} or {place.command('apps', 'logs', app_id, worker=False)}") from None
    if as_json or not place.screen.out.is_terminal:
        place.screen.document(jsonable(plain(answer), whole=True))
    else:
        place.screen.result(readable(plain(answer)))


def _line(item: Any) -> str:
    """One item of a stream, on one line."""
    return json.dumps(jsonable(plain(item), whole=True), ensure_ascii=False, default=str)


def _schema(method: Any) -> dict[str, Any] | None:
    found = getattr(method, "__schema__", None)
    return plain(found) if found else None


def _parameters(schema: Schema | None) -> Mapping[str, Any]:
    return ((schema or {}).get("parameters") or {}).get("properties") or {}


def _required(schema: Schema | None) -> set[str]:
    """What a caller must give; the context is given by Hypha."""
    required: list[str] = ((schema or {}).get("parameters") or {}).get("required") or []
    return set(required) - {"context"}


def _told(schema: Schema | None) -> list[tuple[str, str]]:
    """Parameters that the author described."""
    return [
        (name, " ".join(one["description"].split()))
        for name, one in _parameters(schema).items()
        if one.get("description")
    ]
