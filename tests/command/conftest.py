"""Fixtures of the command's tests."""

from __future__ import annotations

import pytest

from tests.command.fake_worker import WORKER, FakeServer, FakeWorker


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker()


@pytest.fixture
def server(worker: FakeWorker) -> FakeServer:
    """A server with one worker."""
    found = FakeServer()
    found.services[WORKER] = worker.service()
    return found
