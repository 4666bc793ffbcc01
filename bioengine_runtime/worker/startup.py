"""Apps that a worker deploys by itself when it has started: read and checked before, one by one afterwards.

Each is what `deploy_app` takes, as a JSON object; what is wrong with any of them is said before the worker starts. One
that was given no id is known by its artifact's alias, so that the next start finds it again and changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from bioengine_runtime.apps.errors import AppError
from bioengine_runtime.rpc.door import Invalid, arguments_model, checked
from bioengine_runtime.rpc.service import WorkerService

log = logging.getLogger(__name__)

Wish = Mapping[str, Any]


class BadStartup(ValueError):
    """Something is wrong with the startup applications; the message names all of it."""


def read_wishes(texts: Sequence[str]) -> tuple[Wish, ...]:
    """JSON objects as requests to deploy. Raises BadStartup naming every problem, and no value."""
    wishes: list[Wish] = []
    problems: list[str] = []
    for number, text in enumerate(texts, 1):
        try:
            wishes.append(_wish(text))
        except (Invalid, json.JSONDecodeError) as error:
            problems.append(f"startup application {number}: {error}")
    ids = [wish["application_id"] for wish in wishes]
    problems += [
        f'startup applications: two would be "{app_id}"; give each an application_id'
        for app_id in sorted({app_id for app_id in ids if ids.count(app_id) > 1})
    ]
    if problems:
        raise BadStartup("; ".join(problems))
    return tuple(wishes)


async def deploy_all(wishes: Sequence[Wish], deploy: Callable[[dict[str, Any]], Awaitable[str]]) -> dict[str, str]:
    """Deploy them side by side; answers id → reason of those that failed. None stops another, or the worker."""
    reasons = await asyncio.gather(*(_deploy(wish, deploy) for wish in wishes))
    return {wish["application_id"]: reason for wish, reason in zip(wishes, reasons, strict=True) if reason}


async def _deploy(wish: Wish, deploy: Callable[[dict[str, Any]], Awaitable[str]]) -> str | None:
    app_id = wish["application_id"]
    try:
        await deploy(dict(wish))
    except Exception as error:
        # Only our own words are known to hold no value of a secret.
        reason = str(error) if isinstance(error, AppError | Invalid) else type(error).__name__
        log.error("event=startup_application_failed app=%s reason=%r", app_id, reason)
        return reason
    log.info("event=startup_application_deployed app=%s", app_id)
    return None


def _wish(text: str) -> Wish:
    document = json.loads(text)
    if not isinstance(document, dict):
        raise Invalid('not a JSON object such as {"artifact_id": "my-app"}')
    if isinstance(artifact_id := document.get("artifact_id"), str):
        document.setdefault("application_id", artifact_id.rsplit("/", 1)[-1])
    given = checked(arguments_model(WorkerService.deploy_app), (), document)
    return {name: value for name, value in given.items() if value is not None}
