"""What the artifact store may answer, and what becomes of it."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest
import stamina

from reconciler.adapters.artifacts import _put_bytes
from reconciler.errors import Unreachable
from reconciler.ports import StepFailed

URL = "http://127.0.0.1/bucket/main.py?signature=SECRET"


async def put(*answers: int | Exception) -> int:
    """PUT to a store that gives these answers in turn, the last one for ever; the number of times it was asked."""
    asked = 0

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal asked
        now = answers[min(asked, len(answers) - 1)]
        asked += 1
        if isinstance(now, Exception):
            raise now
        return httpx.Response(now)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        with stamina.set_testing(True, attempts=5):
            await _put_bytes(client, URL, b"content", "main.py")
    return asked


async def test_a_store_in_trouble_is_asked_again() -> None:
    assert await put(500, httpx.ConnectError("refused"), 503, 200) == 4


async def test_a_store_that_stays_in_trouble_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="HTTP 500") as error:
        await put(500)
    assert "SECRET" not in str(error.value)


async def test_a_refusal_fails_the_step_without_its_signed_address() -> None:
    with pytest.raises(StepFailed, match=r"main\.py: HTTP 403") as error:
        await put(403)
    assert "SECRET" not in str(error.value)


def test_webrtc_is_not_loaded_for_a_reconciler_and_stays_there_for_others() -> None:
    """25 MiB that nothing of it uses, in a process that runs for years."""
    code = (
        "import sys; from reconciler.adapters.hypha import _hypha_rpc; "
        "assert _hypha_rpc().connect_to_server and 'av' not in sys.modules; import aiortc; assert 'av' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
