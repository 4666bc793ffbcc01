"""The probe of a version that is up: one call of one of its methods, and whether the answer is the expected one.

It is made and judged in a process of its own on the cluster: what an app answers or raises is pickled by the app, and
opening that would run the app's code in the worker.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import ray
from ray.exceptions import RayError

from bioengine_runtime.apps.errors import BadApp
from bioengine_runtime.apps.record import AppRecord, Method
from bioengine_runtime.contract.app import Probe
from bioengine_runtime.contract.status import PERSON

SHOWN = 80
ASKING_WITHIN_S = 60.0
"""What a process on the cluster may take to start, beside the answer."""
TRY_AGAIN_AFTER_S = 5.0

log = logging.getLogger(__name__)


class Probes:
    """The probes under way, at most one per app. `wake` is called when one is answered."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._asked: dict[str, tuple[str, asyncio.Task[str | None]]] = {}

    def answer(self, record: AppRecord, probe: Probe) -> str | None:
        """What is wrong with this release, "" for nothing; None while that is not known. It is asked only once."""
        app_id, what = record.spec.app_id, f"{record.release()} {probe.model_dump_json()}"
        known, task = self._asked.get(app_id, ("", None))
        if task is None or known != what:
            if task:
                task.cancel()
            task = asyncio.create_task(_ask(record, probe))
            task.add_done_callback(lambda _: self._wake())
            self._asked[app_id] = (what, task)
        if not task.done():
            return None
        del self._asked[app_id]
        return None if task.cancelled() else task.result()

    async def stop(self) -> None:
        """Whoever starts next asks again."""
        tasks = [task for _, task in self._asked.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def check_probe(probe: Probe | None, app_id: str, methods: list[dict[str, Any]]) -> None:
    """Raises BadApp when the probe calls what callers could not call."""
    names = [method["name"] for method in methods]
    if probe and probe.method not in names:
        raise BadApp(f'{app_id}: rollout.probe calls "{probe.method}"; the app has {", ".join(sorted(names))}')


async def _ask(record: AppRecord, probe: Probe) -> str | None:
    reference = _task().remote(
        record.spec.app_id, record.entry, probe.model_dump(), _caller(record) if _wants_context(record, probe) else None
    )
    try:
        future = asyncio.wrap_future(reference.future())
        return await asyncio.wait_for(future, probe.timeout_s + ASKING_WITHIN_S)
    except (RayError, TimeoutError) as error:  # of the cluster, not of the app
        log.warning("app=%s could not be probed: %s; trying again", record.spec.app_id, type(error).__name__)
        await asyncio.sleep(TRY_AGAIN_AFTER_S)
        return None
    finally:
        ray.cancel(reference)


@functools.cache
def _task() -> Any:
    return ray.remote(num_cpus=0, max_retries=0, max_calls=1)(ask_here)


def ask_here(app_id: str, entry: str, probe: Mapping[str, Any], caller: Mapping[str, Any] | None) -> str:
    """The part that runs on the cluster: what is wrong with the answer; empty when nothing is."""
    from ray.serve.handle import DeploymentHandle

    from bioengine_runtime.apps.calling import under_ray

    context = {} if caller is None else {"context": dict(caller)}
    response: Any = None
    try:
        method = getattr(DeploymentHandle(entry, app_name=app_id), probe["method"])
        response = method.remote(**{**probe["args"], **context})
        answer = response.result(timeout_s=probe["timeout_s"])
    except TimeoutError:
        if response is not None:
            response.cancel()
        return f"gave no answer within {probe['timeout_s']:g} s"
    except Exception as error:
        raised = under_ray(error)
        return f"raised {type(raised).__name__}: {raised}"
    return "" if probe["expected"] is None else differs(answer, probe["expected"], "answer")


def differs(answer: Any, expected: Any, where: str) -> str:
    """The first place at which an answer is not as expected; empty when there is none.

    Of a mapping only the keys that are expected count, and 1 equals 1.0. Only what is compared is told."""
    if hasattr(answer, "tolist"):
        answer = answer.tolist()  # numpy's arrays and numbers
    if isinstance(expected, Mapping):
        if not isinstance(answer, Mapping):
            return f"{where} is {_shown(answer)}, not a mapping"
        for key, value in expected.items():
            if key not in answer:
                return f"{where} has no {key}"
            if said := differs(answer[key], value, f"{where}.{key}"):
                return said
        return ""
    if isinstance(expected, list):
        if not isinstance(answer, list | tuple) or len(answer) != len(expected):
            return f"{where} is {_shown(answer)}, not a list of {len(expected)}"
        pairs = enumerate(zip(answer, expected, strict=True))
        return next((said for n, (one, other) in pairs if (said := differs(one, other, f"{where}[{n}]"))), "")
    return "" if _equal(answer, expected) else f"{where} is {_shown(answer)}, expected {_shown(expected)}"


def _equal(answer: Any, expected: Any) -> bool:
    if isinstance(answer, bool) or isinstance(expected, bool):
        return answer is expected
    if isinstance(answer, Real) and isinstance(expected, Real):
        return bool(answer == expected)
    return type(answer) is type(expected) and bool(answer == expected)


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, str | int | float):
        text = repr(value)
        return text if len(text) <= SHOWN else text[:SHOWN] + "…"
    return f"a {type(value).__name__}"


def _wants_context(record: AppRecord, probe: Probe) -> bool:
    return any(one["name"] == probe.method and _has_context(one) for one in record.methods)


def _has_context(method: Method) -> bool:
    return "context" in ((method["schema"].get("parameters") or {}).get("properties") or {})


def _caller(record: AppRecord) -> dict[str, Any]:
    """Who deployed the app, in the words in which Hypha names a caller."""
    who = record.provenance.by or record.provenance.owner.removeprefix(PERSON)
    workspace, client = record.worker.split(":")[0].split("/", 1)
    user = {"id": who, "email": who if "@" in who else None, "is_anonymous": False, "roles": []}
    return {"user": user, "ws": workspace, "from": f"{workspace}/{client}"}
