"""Where the worker stands, as its public address tells: for maps of workers.

Off unless the worker is started with `--geo-location`, because asking tells a public service that this worker is there.
Nothing waits for the answer, and nothing needs it.
"""

from __future__ import annotations

import asyncio
import logging

import httpx
from pydantic import BaseModel, ValidationError

log = logging.getLogger(__name__)

PROVIDER = "https://ipapi.co/json/"
TIMEOUT_S = 5.0

Place = dict[str, str | float | None]


class _Answer(BaseModel):
    """What of the provider's answer is shown."""

    region: str | None = None
    country_name: str | None = None
    country_code: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    timezone: str | None = None


async def locate(transport: httpx.AsyncBaseTransport | None = None) -> Place:
    """region, country_name, country_code, latitude, longitude (degrees) and timezone; None for what is not known.

    Never raises, and takes TIMEOUT_S at most. `transport`: how to reach the provider, for tests."""
    try:
        async with asyncio.timeout(TIMEOUT_S), httpx.AsyncClient(transport=transport) as http:
            response = await http.get(PROVIDER)
        found = _Answer.model_validate_json(response.raise_for_status().content)
    except (httpx.HTTPError, OSError, TimeoutError, ValidationError) as error:
        log.info("event=not_located error=%s", type(error).__name__)
        found = _Answer()
    return found.model_dump()
