"""Asking the gateway to look, from a worker that has other things to do meanwhile."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve

from bioengine_runtime.gateway.deploy import refresh_gateway
from bioengine_runtime.serve_thread import in_serve_thread


async def test_the_gateway_is_asked_in_the_thread_of_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve asks the controller for a handle, and Ray for the nodes when it is first used."""
    asked_in: list[threading.Thread] = []

    async def answer() -> dict[str, str]:
        return {"demo": "w/gateway:demo"}

    def refresh() -> Any:
        asked_in.append(threading.current_thread())
        return answer()

    def handle(*_: Any, **__: Any) -> Any:
        asked_in.append(threading.current_thread())
        return SimpleNamespace(refresh=SimpleNamespace(remote=refresh))

    monkeypatch.setattr(serve, "get_deployment_handle", handle)
    assert await refresh_gateway("w/c:bioengine-worker") == {"demo": "w/gateway:demo"}
    assert asked_in == [await in_serve_thread(threading.current_thread)] * 2


async def test_a_controller_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(serve, "get_deployment_handle", lambda *_, **__: answered.wait(5))
    began = asyncio.get_running_loop().time()
    try:
        with pytest.raises(TimeoutError):
            await refresh_gateway("w/c:bioengine-worker", 0.05)
        assert asyncio.get_running_loop().time() - began < 4
    finally:
        answered.set()
