"""Which deployments an app has: the manifest's list (format 0.5.0), or what the code's annotations say (0.6.0).

In format 0.6.0 a parameter of `__init__` that is annotated with a class of the app is filled with a handle of it:

    from runtimes.a import RuntimeA
    @bioengine.app()
    class Entry:
        def __init__(self, runtime_a: RuntimeA): ...

Read from the syntax trees; nothing is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

from bioengine_runtime.contract.code import CodeError, deployment_classes, read_hints, read_imports
from bioengine_runtime.contract.manifest import AppManifest, EntryPoint

Read = Callable[[str], str | None]
"""Text of a file of the app by its path; None when there is none."""

MOST = 32
"""Deployments of one app."""

HOPS = 8
"""Modules through which a name may be handed on."""


def deployments(manifest: AppManifest, read: Read) -> tuple[EntryPoint, ...]:
    """Every deployment once, the entry first. Raises CodeError for composition that cannot work."""
    if manifest.entry is None:
        return manifest.entry_points()
    found: dict[str, EntryPoint] = {}
    waiting = [EntryPoint.of(manifest.entry)]
    while waiting:
        point = waiting.pop(0)
        known = found.get(point.class_name)
        if known is not None:
            if known.module != point.module:
                raise CodeError(
                    f"class {point.class_name} is in {known.file} and in {point.file}; deployments of one app need"
                    " different class names"
                )
            continue
        others = list(_handed_to(point, read))
        handles = tuple((parameter, other.class_name) for parameter, other in others)
        found[point.class_name] = EntryPoint(point.module, point.class_name, handles)
        waiting += [other for _, other in others]
        if len(found) > MOST:
            raise CodeError(f"more than {MOST} deployments in one app")
    return tuple(found.values())


def _handed_to(point: EntryPoint, read: Read) -> Iterator[tuple[str, EntryPoint]]:
    source = read(point.file)
    if source is None:
        return
    with _about(point.file):
        hints = read_hints(source, point.class_name, point.file)
    for hint in hints:
        module, _, class_name = hint.type_name.rpartition(".")
        other = _app_class(module or point.module, class_name, read)
        if other is not None and other != EntryPoint(point.module, point.class_name):
            yield hint.parameter, other


def _app_class(module: str, class_name: str, read: Read, hops: int = HOPS) -> EntryPoint | None:
    """The class of this name, if it is one of the app's own deployments: in this module, or where that has it from."""
    found = EntryPoint(module, class_name)
    for path in (found.file, f"{module.replace('.', '/')}/__init__.py"):
        source = read(path)
        if source is None:
            continue
        with _about(path):
            if class_name not in deployment_classes(source, path):
                further, _, name = read_imports(source, path).get(class_name, "").rpartition(".")
                return _app_class(further, name, read, hops - 1) if further and hops else None
            if path != found.file:
                fix = "move it to a module beside it, and import it here"
                raise CodeError(f"{class_name} is a deployment in {path}, and a replica loads modules only", fix=fix)
            return found
    return None


@contextmanager
def _about(path: str) -> Generator[None]:
    """Errors say which file they are about."""
    try:
        yield
    except CodeError as error:
        error.filename = error.filename or path
        raise
    except RecursionError:
        raise CodeError("nested too deeply to be read", line=1, filename=path) from None
