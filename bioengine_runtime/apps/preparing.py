"""Build and look, before anything that runs is touched: the part that happens on a node, in a Ray task.

The task needs no CPU of Ray's, so a full cluster still prepares. What goes wrong comes back as words, not as Ray's
traceback of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from bioengine_runtime.apps import store
from bioengine_runtime.apps.describing import Description, Request
from bioengine_runtime.apps.errors import AppError
from bioengine_runtime.apps.layer import build_layer, layer_path
from bioengine_runtime.apps.package import in_use, unpack
from bioengine_runtime.apps.requirements import packages_of
from bioengine_runtime.apps.zygote import describe_in_child


class Job(TypedDict):
    """One class to prepare. `requirements` is None when only the code itself can tell them."""

    request: Request
    requirements: list[str] | None
    look: bool


class Done(TypedDict):
    """What came of it."""

    requirements: list[str]
    layer: str | None
    description: Description | None


class Answer(TypedDict):
    """Of one node: what was done, or the problem that stopped it."""

    problem: str
    done: list[Done]


def prepare_here(package: str, cache: str, layers: str, jobs: list[Job]) -> Answer:
    """Unpack the code, build what each class needs, look at the classes that are asked to be looked at."""
    done: list[Done] = []
    for job in jobs:
        request = job["request"]
        name = request["class_name"]
        try:
            done.append(_prepare(job, str(_code(package, cache)), layers))
        except AppError as error:
            return Answer(problem=f"{request['module']}:{name}: {error}", done=[])
        description = done[-1]["description"]
        if description and description["problem"]:
            return Answer(problem=description["problem"], done=[])
    return Answer(problem="", done=done)


def _prepare(job: Job, code: str, layers: str) -> Done:
    requirements = job["requirements"]
    request: Request = {**job["request"], "code": code}
    if requirements is None:
        requirements = _computed_requirements(request)
    layer = layer_path(requirements, layers)
    if layer:
        build_layer(requirements, layer)
    description = describe_in_child({**request, "layer": layer}) if job["look"] else None
    return Done(requirements=list(requirements), layer=layer, description=description)


def _computed_requirements(request: Request) -> list[str]:
    """First look without any packages; the file must get as far as its decorator without them."""
    description = describe_in_child(request)
    if not description["options"]:
        raise AppError(
            f"{description['problem']} (write runtime_env: pip as a plain list, so that it can be read first)"
        )
    options: dict[str, Any] = description["options"].get("ray_actor_options") or {}
    return list(packages_of(dict(options.get("runtime_env") or {})))


def _code(package: str, cache: str) -> Path:
    target = Path(cache) / package
    if in_use(target):
        return target
    content = store.get(store.CODE, package)
    if content is None:
        raise AppError(f"the app's code {package} is gone from the cluster; ask again")
    return unpack(content, package, cache)
