"""ManagedDeployment: the class that Serve runs, with the app's own class inside it.

In the replica, in this order: packages, environment, secrets, code, `__init__`, `async_init`, `test_deployment`. Only
then does Serve send it requests, so a version that cannot start or fails its test never serves one. An instance may
have its test run beside the first requests instead; then a failure is one of health. All of it runs on one event loop;
what the author wrote without `async` runs beside it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import inspect
import json
import logging
import os
import time
from collections.abc import Collection, Mapping
from typing import Any

from bioengine_runtime.apps import store
from bioengine_runtime.apps.calling import FOR_GATEWAY, as_gateway_calls_it, as_serve_calls_it, call
from bioengine_runtime.apps.datasets import EmptyDatasets
from bioengine_runtime.apps.handles import as_written_for
from bioengine_runtime.apps.loading import load_class
from bioengine_runtime.apps.surroundings import fetch_code, lay_packages, open_secrets, settle_in

USER_PART = "user"
HANG_GRACE_S = 5.0
SERVES_OWN = ("__call__", "__serve_multiplex_wrapper")
"""What Serve asks a replica for by a private name."""
log = logging.getLogger("ray.serve")


class TestFailed(Exception):
    """The author's test, run beside the first requests."""


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
        test: str = "before-traffic",
        debug: bool = False,
        given: Collection[str] = (),
    ) -> None:
        self._user: Any = None
        self._user_config: Any = None
        self._debug = debug
        self._test: asyncio.Task[None] | None = None
        self._fault = ""
        started = time.time()
        if debug:
            log.setLevel(logging.DEBUG)
        # Code that blocks the event loop cannot be timed out from it: the process ends, with all its stacks logged.
        faulthandler.dump_traceback_later(start_timeout_s + HANG_GRACE_S, exit=True, file=2)
        try:
            try:
                async with asyncio.timeout(start_timeout_s):
                    if layer:
                        await asyncio.to_thread(lay_packages, requirements, layer)
                    settle_in(home, environment, given)
                    if sealed:
                        open_secrets(seal_key_file, sealed, app_id, deployment)
                    code = await asyncio.to_thread(fetch_code, package, cache)
                    _, user_class = load_class(code, module, deployment)
                    self._user = await _construct(user_class, {**kwargs, **as_written_for(user_class, handles)})
                    await _call_if_there(self._user, "async_init")
                    if test == "before-traffic":
                        await _call_if_there(self._user, "test_deployment")
            except TimeoutError as error:
                if time.time() - started < start_timeout_s:
                    raise
                raise TimeoutError(f"{deployment} did not come up within {start_timeout_s:g} s") from error
        except Exception:
            log.exception("%s did not start", deployment)  # Serve tells its controller, and the log would be empty
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()
        await asyncio.to_thread(_say_what_runs, code_digest, started)
        if test == "background" and hasattr(self._user, "test_deployment"):
            self._test = asyncio.create_task(_test_beside(self._user))

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Our record changes often and concerns nobody here; the author's part is handed on when it changes."""
        mine = config.get(USER_PART)
        if mine is not None and mine != self._user_config:
            self._user_config = mine
            await call(self._user.reconfigure, mine)

    def __getattr__(self, name: str) -> Any:
        """Everything public is the author's object's, but for what Serve asks of the replica itself."""
        user = self.__dict__.get("_user")
        if user is None or (name.startswith("_") and name not in ("__del__", *SERVES_OWN)):
            raise AttributeError(name)
        if name.startswith(FOR_GATEWAY):
            return as_gateway_calls_it(getattr(self, name.removeprefix(FOR_GATEWAY)))
        if name == "__del__":
            return self._end
        if name == "check_health":
            # Without a reason to look Serve must find none: a check waits for the loop, and a method may hold it long.
            if self._test is None and not hasattr(user, name):
                raise AttributeError(name)
            return self._is_well
        found = getattr(user, name)
        return as_serve_calls_it(found, debug=self._debug) if inspect.isroutine(found) else found

    async def _is_well(self) -> None:
        """Raises when it is not. Of why, Serve tells nobody; so we note it."""
        fault = ""
        try:
            await self._check()
        except Exception as error:
            fault = str(error) if isinstance(error, TestFailed) else f"check_health: {type(error).__name__}: {error}"
            raise
        finally:
            if fault != self._fault:
                self._fault = fault
                await asyncio.to_thread(_note_fault, fault)

    async def _check(self) -> None:
        """Raises on the author's word, or on that of the test."""
        test = self._test
        if test and test.done() and not test.cancelled() and (failure := test.exception()):
            raise TestFailed(f"test_deployment failed: {type(failure).__name__}: {failure}") from failure
        if check := getattr(self._user, "check_health", None):
            await call(check)

    async def _end(self) -> None:
        """Serve is done with this replica; what the author wrote as `__del__` comes last."""
        if self._test:
            self._test.cancel()
            await asyncio.wait([self._test], timeout=HANG_GRACE_S)
        if last := getattr(self._user, "__del__", None):
            result = last()
            if inspect.isawaitable(result):
                await result


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
        await call(method)
        log.info("%s took %.1f s", name, time.monotonic() - started)


async def _test_beside(user: Any) -> None:
    try:
        await _call_if_there(user, "test_deployment")
    except Exception:
        log.exception("test_deployment failed")  # Serve only says that a check of health failed
        raise


def _say_what_runs(code_digest: str, started: float) -> None:
    """The replica itself says what it runs; Serve's word for it has been wrong before."""
    from ray.runtime_context import get_runtime_context

    note = {
        "code_digest": code_digest,
        "pid": os.getpid(),
        "node_id": get_runtime_context().get_node_id(),
        "started_at": started,
    }
    store.put(store.REPLICA, _own_name(), json.dumps(note).encode())


def _note_fault(fault: str) -> None:
    if fault:
        store.put(store.FAULT, _own_name(), fault.encode())
    else:
        store.delete(store.FAULT, _own_name())


def _own_name() -> str:
    from ray import serve

    replica = serve.get_replica_context().replica_id
    return store.replica_name(replica.deployment_id.app_name, replica.deployment_id.name, replica.unique_id)
