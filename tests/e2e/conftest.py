"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest_asyncio
from pytest import TempPathFactory

from tests.e2e.lab import Lab, a_lab


@pytest_asyncio.fixture(scope="module")
async def lab(tmp_path_factory: TempPathFactory) -> AsyncGenerator[Lab, None]:
    """One environment for all tests of a module."""
    async with a_lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab
