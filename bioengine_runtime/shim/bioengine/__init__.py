"""`import bioengine` as apps write it, in a replica of ours: what the formats 0.5.0 and 0.6.0 promise, and no more."""

from __future__ import annotations

import logging
from importlib.metadata import version

from bioengine import datasets
from bioengine.authoring import app, async_init, health_check, method, multiplexed, smoke_test
from bioengine_runtime.apps.datasets import MissingDataServerError

__version__ = version("bioengine-gitops")
logger = logging.getLogger("ray.serve")

__all__ = [
    "MissingDataServerError",
    "app",
    "async_init",
    "datasets",
    "health_check",
    "logger",
    "method",
    "multiplexed",
    "smoke_test",
]
