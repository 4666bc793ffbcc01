"""The `bioengine` command: what a person asks of a worker and its apps, from a shell. Needs no Ray."""

from bioengine_runtime.command.main import app, main

__all__ = ["app", "main"]
