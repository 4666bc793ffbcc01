"""ManagedDeployment: the class that Serve runs, with the app's own class inside it.

In the replica, in this order: packages, environment, secrets, code, `__init__`, `async_init`, `test_deployment`. Only
then does Serve send it requests, so a version that cannot start or fails its test never serves one. All of it runs on
one event loop; what the author wrote without `async` runs beside it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import functools
import importlib
import inspect
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from bioengine_runtime.apps import store
from bioengine_runtime.apps.datasets import EmptyDatasets
from bioengine_runtime.apps.layer import build_layer, packages_in
from bioengine_runtime.apps.loading import load_class
from bioengine_runtime.apps.package import unpack

USER_PART = "user"
HANG_GRACE_S = 5.0
SERVE_MAY_CALL = ("__call__", "__del__")
log = logging.getLogger("ray.serve")


class ManagedDeployment:
    """One replica. Everything it needs comes in as plain values, so a newer worker can still start an older app."""

    async def __init__(
        self,
        *,
        app_id: str,
        deployment: str,
        package: str,
        cache: str,
        layer: str | None,
        requirements: list[str],
        module: str,
        kwargs: Mapping[str, Any],
        handles: Mapping[str, Any],
        home: str,
        environment: Mapping[str, str],
        sealed: str | None,
        seal_key_file: str,
        code_digest: str,
        start_timeout_s: float,
    ) -> None:
        self._user: Any = None
        self._user_config: Any = None
        started = time.time()
        # Code that blocks the event loop cannot be timed out from it: the process ends, with all its stacks logged.
        faulthandler.dump_traceback_later(start_timeout_s + HANG_GRACE_S, exit=True, file=2)
        try:
            async with asyncio.timeout(start_timeout_s):
                if layer:
                    await asyncio.to_thread(_lay, requirements, layer)
                _settle_in(home, environment)
                if sealed:
                    os.environ.update(_open_secrets(seal_key_file, sealed, place(app_id, deployment)))
                code = await asyncio.to_thread(_fetch, package, cache)
                _, user_class = load_class(str(code), module, deployment)
                self._user = await _construct(user_class, {**kwargs, **handles})
                await _call_if_there(self._user, "async_init")
                await _call_if_there(self._user, "test_deployment")
        except TimeoutError as error:
            if time.time() - started < start_timeout_s:
                raise
            raise TimeoutError(f"{deployment} did not come up within {start_timeout_s:g} s") from error
        finally:
            faulthandler.cancel_dump_traceback_later()
        await asyncio.to_thread(_say_what_runs, code_digest, started)

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Our record changes often and concerns nobody here; the author's part is handed on when it changes."""
        mine = config.get(USER_PART)
        if mine is not None and mine != self._user_config:
            self._user_config = mine
            await _call(self._user.reconfigure, mine)

    def __getattr__(self, name: str) -> Any:
        """Everything public is the author's object's. `check_health` exists only if the author wrote one."""
        if name.startswith("_") and name not in SERVE_MAY_CALL:
            raise AttributeError(name)
        user = self.__dict__.get("_user")
        if user is None:
            raise AttributeError(name)
        found = getattr(user, name)
        if name == "check_health" and not inspect.iscoroutinefunction(found):
            return functools.partial(asyncio.to_thread, found)
        if inspect.isasyncgenfunction(inspect.unwrap(found)) and not inspect.isasyncgenfunction(found):
            return _streaming(found)
        return found


def place(app_id: str, deployment: str) -> bytes:
    """What the secrets of one deployment are sealed for."""
    return f"{app_id}/{deployment}".encode()


def _lay(requirements: list[str], layer: str) -> None:
    """Make sure of the app's packages; they were prepared, unless this node joined since."""
    built = build_layer(requirements, layer)
    if layer not in sys.path:
        sys.path.insert(0, layer)
    if built:
        importlib.invalidate_caches()
        early = sorted(packages_in(layer) & {name.split(".")[0] for name in sys.modules})
        if early:  # imported already, from the worker's environment; only a new process finds the app's own
            raise RuntimeError(f"{', '.join(early)} was installed on this node just now; starting again with it")


def _settle_in(home: str, environment: Mapping[str, str]) -> None:
    temporary = Path(home) / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    os.environ.update(environment)
    os.environ.update(HOME=home, TMPDIR=str(temporary), TEMP=str(temporary), TMP=str(temporary))
    os.chdir(home)


def _open_secrets(seal_key_file: str, sealed: str, associated: bytes) -> dict[str, str]:
    from bioengine_runtime.sealing import read_key, unseal

    return json.loads(unseal(read_key(seal_key_file), sealed, associated))


def _fetch(package: str, cache: str) -> Path:
    target = Path(cache) / package
    if target.is_dir():
        return target
    content = store.get(store.CODE, package)
    if content is None:
        raise RuntimeError(f"the app's code {package} is gone from the cluster; deploy the app again")
    return unpack(content, package, cache)


def _streaming(method: Callable[..., Any]) -> Callable[..., Any]:
    """hypha-rpc's schema decorator hides that a method is an async generator, and Serve goes by its kind."""

    @functools.wraps(method)
    async def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for item in method(*args, **kwargs):
            yield item

    return stream


async def _construct(user_class: type, kwargs: Mapping[str, Any]) -> Any:
    """`bioengine_datasets` is there before `__init__` runs, as the guide promises."""
    user: Any = object.__new__(user_class)
    user.bioengine_datasets = EmptyDatasets()
    result = user.__init__(**kwargs)
    if inspect.isawaitable(result):
        await result
    return user


async def _call_if_there(user: Any, name: str) -> None:
    method = getattr(user, name, None)
    if method is not None:
        started = time.monotonic()
        await _call(method)
        log.info("%s took %.1f s", name, time.monotonic() - started)


async def _call(method: Callable[..., Any], *args: Any) -> Any:
    if inspect.iscoroutinefunction(method):
        return await method(*args)
    result = await asyncio.to_thread(method, *args)
    return await result if inspect.isawaitable(result) else result


def _say_what_runs(code_digest: str, started: float) -> None:
    """The replica itself says what it runs; Serve's word for it has been wrong before."""
    from ray import serve
    from ray.runtime_context import get_runtime_context

    replica = serve.get_replica_context().replica_id
    note = {
        "code_digest": code_digest,
        "pid": os.getpid(),
        "node_id": get_runtime_context().get_node_id(),
        "started_at": started,
    }
    name = f"{replica.deployment_id.app_name}/{replica.deployment_id.name}/{replica.unique_id}"
    store.put(store.REPLICA, name, json.dumps(note).encode())
