"""`reconcile`: argv and environment → World → one verb → exit code."""

from reconciler.cli.commands import main

__all__ = ["main"]
