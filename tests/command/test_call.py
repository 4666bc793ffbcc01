"""`bioengine call`: what arrives at the method, and what its answer looks like."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import numpy
import pytest

from tests.command.fake_worker import FakeServer, bioengine, remote

APP = "lab/demo"


class FakeApp:
    """An app that echoes, and can be told what to answer."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        self.answer: Any = "pong"

    def service(self) -> dict[str, Any]:
        async def ping(**given: Any) -> Any:
            self.given = given
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        schema = {
            "name": "ping",
            "description": "Say pong.\n\nAnd more.",
            "parameters": {
                "properties": {"name": {"type": "string", "description": "Whom to\n greet."}, "n": {"type": "integer"}},
                # The context is given by Hypha; some workers say that callers must.
                "required": ["name", "context"],
            },
        }
        ping.__schema__ = schema  # type: ignore[attr-defined]

        async def items() -> str:
            return "a method of that name"

        return {"id": APP, "ping": ping, "items": items, "_hidden": items, "config": {}}


@pytest.fixture
def fake_app(server: FakeServer) -> FakeApp:
    found = FakeApp()
    server.services[APP] = found.service()
    return found


def test_the_methods_with_what_they_take(server: FakeServer, fake_app: FakeApp) -> None:  # noqa: ARG001
    result = bioengine(server, "call", APP, "--list-methods")
    assert result.stdout.splitlines() == [
        "items(…)",
        "ping(name: str, n: int = …)",
        "    Say pong.",
        "    name: Whom to greet.",
    ]
    assert bioengine(server, "call", APP).stdout == result.stdout
    assert "Next:  bioengine call lab/demo METHOD --arg NAME=VALUE" in result.stderr
    as_json = json.loads(bioengine(server, "call", APP, "--list-methods", "--json").stdout)
    assert [one["name"] for one in as_json] == ["items", "ping"] and as_json[1]["description"].startswith("Say pong.")


def test_arguments_arrive_typed_and_arg_wins(server: FakeServer, fake_app: FakeApp) -> None:
    args = '{"name": "a", "flags": [1, null]}'
    result = bioengine(
        server, "call", APP, "ping", "--args", args, "--arg", "name=007", "--arg", "n=7", "--arg", "x=a=b"
    )
    assert result.exit_code == 0, result.stderr
    assert fake_app.given == {"name": "007", "flags": [1, None], "n": 7, "x": "a=b"}
    assert server.open == 0


@pytest.mark.parametrize("words", [["--args", "{"], ["--args", "[1]"], ["--arg", "name"]])
def test_arguments_that_are_none_are_a_usage_error(server: FakeServer, fake_app: FakeApp, words: list[str]) -> None:
    assert bioengine(server, "call", APP, "ping", *words).exit_code == 2
    assert fake_app.given == {} and server.addresses == []


def test_a_pipe_gets_json_with_every_element(server: FakeServer, fake_app: FakeApp) -> None:
    fake_app.answer = {"mask": numpy.arange(100).reshape(10, 10), "score": numpy.float64(0.5)}
    answer = json.loads(bioengine(server, "call", APP, "ping", "--arg", "name=a").stdout)
    assert answer["mask"][9][9] == 99 and answer["score"] == 0.5


def test_a_stream_is_told_item_by_item(server: FakeServer, fake_app: FakeApp) -> None:
    async def numbers() -> AsyncIterator[Any]:
        for number in range(3):
            yield {"number": number}

    fake_app.answer = numbers()
    assert bioengine(server, "call", APP, "ping", "--arg", "name=a").stdout.splitlines() == [
        f'{{"number": {n}}}' for n in range(3)
    ]


def test_an_error_of_the_app_is_one_line(server: FakeServer, fake_app: FakeApp) -> None:
    fake_app.answer = remote("ValueError", "no such image:\nx.tif", "async")
    result = bioengine(server, "call", APP, "ping", "--arg", "name=a")
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.splitlines() == [
        "Error: ValueError: no such image: x.tif",
        "Hint:  See bioengine call lab/demo --list-methods or bioengine apps logs demo",
    ]
    assert server.open == 0


def test_a_method_that_is_not_there(server: FakeServer, fake_app: FakeApp) -> None:  # noqa: ARG001
    result = bioengine(server, "call", APP, "pong")
    assert result.exit_code == 1
    assert "Error: lab/demo has no method pong.\nHint:  It has items, ping." in result.stderr


def test_a_call_that_lacks_something_is_not_made(server: FakeServer, fake_app: FakeApp) -> None:
    result = bioengine(server, "call", APP, "ping", "--arg", "n=1")
    assert result.exit_code == 1 and fake_app.given == {}
    assert "Error: ping needs name.\nHint:  It is ping(name: str, n: int = …)." in result.stderr


def test_a_call_that_takes_too_long(server: FakeServer, fake_app: FakeApp) -> None:
    fake_app.answer = TimeoutError()
    result = bioengine(server, "call", APP, "ping", "--arg", "name=a", "--timeout", "5")
    assert result.exit_code == 1 and "ping did not answer in 5 s" in result.stderr
    assert server.addresses[0].timeout_s == 5


def test_of_several_services_one_that_lives_is_called_and_named(server: FakeServer, fake_app: FakeApp) -> None:
    ids = [f"ws-user-github|1/{client}:demo" for client in ("dead", "lives")]
    keys = [f"services:public|bioengine-app:{one}@*".encode() for one in ids]
    server.services[APP] = remote("AssertionError", f"Multiple services found for {APP}, e.g. {keys}. You can …")
    server.services[ids[1]] = fake_app.service()
    result = bioengine(server, "call", APP, "ping", "--arg", "name=a")
    assert result.exit_code == 0 and json.loads(result.stdout) == "pong"
    assert f"2 services answer to {APP}; this is {ids[1]}" in result.stderr
