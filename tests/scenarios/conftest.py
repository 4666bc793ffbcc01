"""`pytest tests/scenarios --update` rewrites what the stories expect; look at the difference before you commit it."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite plan.txt and report.yaml of every story")
