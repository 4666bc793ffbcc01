"""Prepare an app: store its code, build its packages on every node that can host it, look at its classes.

Nothing that runs is touched. The result is everything that deploying needs to know.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import ray

from bioengine_runtime.apps import store
from bioengine_runtime.apps.describing import Description, Request, did_you_mean
from bioengine_runtime.apps.errors import BadApp, PrepareFailed
from bioengine_runtime.apps.fresh import Fresh
from bioengine_runtime.apps.package import pack
from bioengine_runtime.apps.preparing import Done, Job, prepare_here
from bioengine_runtime.apps.requirements import lacks, resources
from bioengine_runtime.contract.app import AppSpec, for_class
from bioengine_runtime.contract.base import ENTIRE
from bioengine_runtime.contract.code import ClassFacts, CodeError, read_class, requirements
from bioengine_runtime.contract.composition import deployments
from bioengine_runtime.contract.manifest import AppManifest, EntryPoint
from bioengine_runtime.on_node import NodeFailed, alive_nodes, on_node

STORED_FOR_S = 60.0
"""A package put so lately is still in the store; what nobody names is swept away later than that."""


@dataclass(frozen=True)
class ArtifactFiles:
    """One immutable version of an app folder."""

    artifact_id: str
    version: str
    manifest: AppManifest
    files: Mapping[str, bytes]


class ArtifactReader(Protocol):
    """Where app folders come from."""

    async def fetch(self, artifact_id: str, version: str) -> ArtifactFiles: ...


@dataclass(frozen=True, slots=True)
class Places:
    """Folders on every node: unpacked code, and layers of packages."""

    code: str
    layers: str


@dataclass(frozen=True, slots=True)
class ReadyClass:
    """One class that can be deployed."""

    module: str
    name: str
    handles: tuple[tuple[str, str], ...]
    requirements: tuple[str, ...]
    layer: str | None
    description: Description


@dataclass(frozen=True, slots=True)
class Ready:
    """An app that can be deployed; the entry first."""

    manifest: AppManifest
    package: str
    classes: tuple[ReadyClass, ...]
    nodes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Folder:
    """What every app of one artifact version shares: its deployments, what is read of them, its stored code."""

    artifact: ArtifactFiles
    entry_points: tuple[EntryPoint, ...]
    facts: tuple[ClassFacts, ...]
    package: str


class Builders:
    """How many nodes' tasks run at once. Each keeps a process of Ray's and a warm process of ours: looking is quick and
    shares few of them, installing is slow and must not hold up the looking.

    A folder is read, packed and stored once for all of its apps that are prepared about the same time."""

    def __init__(self) -> None:
        self._looking = asyncio.Semaphore(2)
        self._installing = asyncio.Semaphore(4)
        self._folders: Fresh[Folder] = Fresh(STORED_FOR_S)

    async def folder(self, artifact: ArtifactFiles) -> Folder:
        """Known by the object itself, which its Folder keeps alive: a version may have been uploaded anew."""
        task = self._folders.get(id(artifact), lambda: asyncio.to_thread(_folder, artifact))
        return await asyncio.shield(task)

    def turn(self, jobs: list[Job]) -> asyncio.Semaphore:
        return self._installing if any(job["requirements"] != [] for job in jobs) else self._looking


async def prepare(
    spec: AppSpec, artifact: ArtifactFiles, environment: Mapping[str, str], places: Places, builders: Builders
) -> Ready:
    """Raises BadApp for the author's mistakes, PrepareFailed when an environment cannot be built."""
    started = time.monotonic()
    folder = await builders.folder(artifact)
    entry_points, package = folder.entry_points, folder.package
    _check_class_names(spec, entry_points)
    jobs = [
        Job(request=_request(spec, index, entry_points, environment), requirements=_packages(one), look=True)
        for index, one in enumerate(folder.facts)
    ]
    known = await asyncio.to_thread(_recall, package, jobs, places)
    done, nodes = await _everywhere(package, jobs, places, folder.facts, builders) if known is None else (known, 0)
    if known is None:
        await asyncio.to_thread(_remember, package, jobs, places, done)
    classes = tuple(
        ReadyClass(
            module=entry_point.module,
            handles=entry_point.handles,
            name=entry_point.class_name,
            requirements=tuple(one["requirements"]),
            layer=one["layer"],
            description=cast(Description, one["description"]),
        )
        for entry_point, one in zip(entry_points, done, strict=True)
    )
    return Ready(artifact.manifest, package, classes, nodes, time.monotonic() - started)


async def _everywhere(
    package: str, jobs: list[Job], places: Places, facts: Sequence[ClassFacts], builders: Builders
) -> tuple[list[Done], int]:
    """Look on one node; build on the others too. Where nothing has to be built, one node is enough."""
    hosts = _hosts(facts, await alive_nodes())
    first, *others = hosts or [None]
    done = await _on_node(first, package, jobs, places, builders)
    if not any(one["layer"] for one in done):
        return done, 1
    build = [
        Job(request=job["request"], requirements=one["requirements"], look=False)
        for job, one in zip(jobs, done, strict=True)
    ]
    await asyncio.gather(*(_on_node(node, package, build, places, builders) for node in others))
    return done, 1 + len(others)


async def _on_node(
    node_id: str | None, package: str, jobs: list[Job], places: Places, builders: Builders
) -> list[Done]:
    given = package, places.code, places.layers, jobs
    try:
        async with builders.turn(jobs):
            answer = await on_node(node_id, prepare_here, *given, within_s=None, retries=2)
    except NodeFailed as failed:
        raise PrepareFailed(f"the app could not be prepared on {failed}") from failed
    if answer["problem"]:
        raise PrepareFailed(answer["problem"])
    return answer["done"]


def _hosts(facts: Sequence[ClassFacts], nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those of the nodes that are large enough for at least one of the classes."""
    asked = [resources(cast("dict[str, Any]", one.options.get("ray_actor_options") or {})) for one in facts]
    return [node["NodeID"] for node in nodes if any(not lacks(one, node["Resources"]) for one in asked)]


def _folder(artifact: ArtifactFiles) -> Folder:
    """Blocks for as long as packing takes."""
    entry_points = _deployments(artifact)
    facts = tuple(_read(artifact, entry_point) for entry_point in entry_points)
    package = pack(code_of(artifact))
    store.put(store.CODE, package.digest, package.content)
    return Folder(artifact, entry_points, facts, package.digest)


def _deployments(artifact: ArtifactFiles) -> tuple[EntryPoint, ...]:
    try:
        return deployments(artifact.manifest, lambda path: _text(artifact, path) if path in artifact.files else None)
    except CodeError as error:
        raise BadApp(error.told()) from error


def _read(artifact: ArtifactFiles, entry_point: EntryPoint) -> ClassFacts:
    filename = entry_point.file
    if filename not in artifact.files:
        raise BadApp(f"{artifact.artifact_id} {artifact.version} has no file {filename}")
    try:
        return read_class(_text(artifact, filename), entry_point.module, entry_point.class_name, filename)
    except CodeError as error:
        raise BadApp(f"{filename}:{error.line}: {error.message}" + (f"; {error.fix}" if error.fix else "")) from error


def _text(artifact: ArtifactFiles, filename: str) -> str:
    try:
        return artifact.files[filename].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadApp(f"{filename} is not text in UTF-8") from error


def _check_class_names(spec: AppSpec, entry_points: tuple[EntryPoint, ...]) -> None:
    known = {one.class_name for one in entry_points} | {ENTIRE}
    for field in ("kwargs", "env", "secrets", "replicas", "autoscaling"):
        for name in getattr(spec, field):
            if name not in known:
                near = did_you_mean(name, sorted(known))
                raise BadApp(f"{field} names {name}; the app has {', '.join(sorted(known))}{near}")


def _packages(facts: ClassFacts) -> list[str] | None:
    found = requirements(facts)
    return None if found is None else list(found)


def code_of(artifact: ArtifactFiles) -> dict[str, bytes]:
    """What replicas need: all but the page, which is served from the artifact. In a folder with code it may lie beside
    what the code reads, so such a folder is taken whole."""
    page = artifact.manifest.frontend_entry
    folder = page.rsplit("/", 1)[0] + "/" if page and "/" in page else None
    beside = [name for name in artifact.files if folder and name.startswith(folder)]
    left_out = set() if any(name.endswith(".py") for name in beside) else set(beside)
    return {name: content for name, content in artifact.files.items() if name not in left_out}


def _request(
    spec: AppSpec, index: int, entry_points: tuple[EntryPoint, ...], environment: Mapping[str, str]
) -> Request:
    point = entry_points[index]
    module, class_name = point.module, point.class_name
    names = {*spec.secrets.get(ENTIRE, ()), *spec.secrets.get(class_name, ())}
    return Request(
        code="",
        layer=None,
        module=module,
        class_name=class_name,
        kwargs=for_class(spec.kwargs, class_name),
        handles=[parameter for parameter, _ in point.handles],
        entry=index == 0,
        environment={**environment, **for_class(spec.env, class_name), **dict.fromkeys(names, "")},
    )


def _recall(package: str, jobs: list[Job], places: Places) -> list[Done] | None:
    """What an earlier look said, when nothing had to be built for it: a layer must be checked for on the nodes."""
    content = store.get(store.DESCRIBED, _key(package, jobs, places))
    return json.loads(content) if content else None


def _remember(package: str, jobs: list[Job], places: Places, done: list[Done]) -> None:
    if not any(one["layer"] for one in done):
        store.put(store.DESCRIBED, _key(package, jobs, places), json.dumps(done).encode())


def _key(package: str, jobs: list[Job], places: Places) -> str:
    text = json.dumps([ray.__version__, package, jobs, places.layers], sort_keys=True)
    return f"{package}/{hashlib.sha256(text.encode()).hexdigest()[:16]}"
