"""The shared language: what crosses a boundary between git, the reconciler, the worker and Ray.

Imports pydantic and the standard library only, so that planning in CI needs nothing else.
"""
