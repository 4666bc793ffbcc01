"""Handles as format 0.6.0 writes them: `await self.runtime_a.ping()`, without `.remote`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

APP_MARK = "__bioengine_app__"
"""Set by `@bioengine.app` on the author's class."""


class RuntimeHandle:
    """One other deployment of the app. `_raw` is Serve's own handle."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return RuntimeMethod(getattr(self._raw, name))


class RuntimeMethod:
    """One method of it: called as it is, or as Serve would have it, with `.options(stream=True)` and `.remote()`."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._raw.remote(*args, **kwargs)

    remote = __call__

    def options(self, **options: Any) -> RuntimeMethod:
        return RuntimeMethod(self._raw.options(**options))


def as_written_for(user_class: type, handles: Mapping[str, Any]) -> dict[str, Any]:
    """The handles in the form that the format of this class has."""
    if not getattr(user_class, APP_MARK, False):
        return dict(handles)
    return {name: RuntimeHandle(handle) for name, handle in handles.items()}
