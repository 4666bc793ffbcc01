"""Where the worker is: six keys whatever happens, and never an error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest

from bioengine_runtime.worker import geo
from bioengine_runtime.worker.geo import locate
from bioengine_runtime.worker.settings import read_settings

KNOWN = {
    "region": "Stockholm",
    "country_name": "Sweden",
    "country_code": "SE",
    "latitude": 59.33,
    "longitude": 18.06,
    "timezone": "Europe/Stockholm",
}
UNKNOWN = dict.fromkeys(KNOWN)
Answer = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


def answering(answer: Answer) -> httpx.MockTransport:
    return httpx.MockTransport(answer)  # type: ignore[arg-type]


async def test_the_six_keys_and_nothing_else_of_the_answer() -> None:
    asked: list[httpx.URL] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return httpx.Response(200, json={**KNOWN, "ip": "192.0.2.1", "org": "Some Lab"})

    assert await locate(answering(answer)) == KNOWN
    assert [url.scheme for url in asked] == ["https"]


async def test_what_is_missing_in_the_answer_is_none() -> None:
    answer = httpx.Response(200, json={"country_code": "SE", "latitude": None})
    assert await locate(answering(lambda _: answer)) == {**UNKNOWN, "country_code": "SE"}


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(429, json=KNOWN),
        httpx.Response(500),
        httpx.Response(302, headers={"location": "http://elsewhere.example/"}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[KNOWN]),
        httpx.Response(200, json={**KNOWN, "latitude": "north"}),
        httpx.Response(200, json={"error": True, "reason": "RateLimited"}),
        httpx.Response(200, content=b"\xff"),
    ],
)
async def test_an_answer_that_is_none_leaves_everything_unknown(answer: httpx.Response) -> None:
    assert await locate(answering(lambda _: answer)) == UNKNOWN


@pytest.mark.parametrize("error", [httpx.ConnectError("offline"), httpx.ReadTimeout("slow"), OSError("no socket")])
async def test_no_network_leaves_everything_unknown(error: Exception) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    assert await locate(answering(fail)) == UNKNOWN


async def test_a_provider_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geo, "TIMEOUT_S", 0.1)

    async def late(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        return httpx.Response(200, json=KNOWN)

    began = time.monotonic()
    assert await locate(answering(late)) == UNKNOWN
    assert time.monotonic() - began < 30


def test_it_is_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPHA_TOKEN", "t0ken")
    needed = [
        "--server-url",
        "http://h",
        "--workspace",
        "w",
        "--client-id",
        "c",
        "--ray-address",
        "r:1",
        "--home",
        "/h",
    ]
    assert not read_settings(needed).geo_location
    assert read_settings([*needed, "--geo-location"]).geo_location
