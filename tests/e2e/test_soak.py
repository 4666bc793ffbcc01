"""Two minutes of benchmarks/soak.py: commits, hands and kills in any order, and at the end all is as git wants it.

RC-10: kill -9 of the worker, of the reconciler and of a replica, a paused reconciler, and Hypha restarted, half of the
time within a second of a push.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SECONDS = "120"
SEED = "213"
"""It begins with kills of each kind and both changes by hand."""


async def test_rc_10_after_two_minutes_of_commits_hands_and_kills_all_is_as_git_wants_it() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.soak", SECONDS, "--seed", SEED),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)  # so that it stops what it started
            await process.wait()
    assert process.returncode == 0, said.decode()[-6000:]
