"""Hypha to LiveState, all questions at once. Law: a question without an answer is `unseen`, never an empty answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from reconciler.errors import Unreachable
from reconciler.planning.live import LiveState, Unseen
from reconciler.planning.memory import NOTHING, Remembered
from reconciler.planning.people import NOBODY, Person
from reconciler.ports import Hypha

Answer = TypeVar("Answer")

TIMEOUT_S = 60.0


async def observe(hypha: Hypha, *, timeout_s: float = TIMEOUT_S) -> LiveState:
    """One look. Never raises because somebody did not answer."""
    async with asyncio.TaskGroup() as group:
        apps = group.create_task(_answer("apps", hypha.runtime.observe(), timeout_s))
        artifacts = group.create_task(_answer("artifacts", hypha.artifacts.list(), timeout_s))
        memory = group.create_task(_answer("memory", _remembered(hypha), timeout_s))
        identity = group.create_task(_answer("identity", _ourselves(hypha), timeout_s))
    worker, apps_unseen = apps.result()
    listed, artifacts_unseen = artifacts.result()
    remembered, memory_unseen = memory.result()
    ourselves, _ = identity.result()  # not to know it takes rights away, and hides nothing that runs
    unseen = tuple(unseen for unseen in (apps_unseen, artifacts_unseen, memory_unseen) if unseen)
    return LiveState(worker, listed, unseen, remembered, observed_at=time.time(), ourselves=ourselves or NOBODY)


async def _remembered(hypha: Hypha) -> Remembered:
    return await hypha.memory.read() if hypha.memory else NOTHING


async def _ourselves(hypha: Hypha) -> Person:
    return await hypha.running.me() if hypha.running else NOBODY


async def _answer(
    what: str, question: Awaitable[Answer], timeout_s: float
) -> tuple[Answer, None] | tuple[None, Unseen]:
    try:
        async with asyncio.timeout(timeout_s):
            return await question, None
    except Unreachable as error:
        return None, Unseen(what, f"{error}. {error.hint}".rstrip(". ") + ".")
    except TimeoutError:
        return None, Unseen(what, f"no answer in {timeout_s:g} s.")
