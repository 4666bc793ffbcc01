"""Which deployments an app has: the manifest's list (format 0.5.0), or what the code's annotations say (0.6.0).

In format 0.6.0 a parameter of `__init__` that is annotated with a class of the app is filled with a handle of it:

    from runtimes.a import RuntimeA
    @bioengine.app()
    class Entry:
        def __init__(self, runtime_a: RuntimeA): ...

Read from the syntax trees; nothing is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bioengine_runtime.contract.code import CodeError, Hint, deployment_classes, read_hints
from bioengine_runtime.contract.manifest import AppManifest, EntryPoint

Read = Callable[[str], str | None]
"""Text of a file of the app by its path; None when there is none."""

MOST = 32
"""Deployments of one app."""


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
    for hint in read_hints(source, point.class_name, point.file):
        other = _app_class(hint, point, read)
        if other is not None:
            yield hint.parameter, other


def _app_class(hint: Hint, point: EntryPoint, read: Read) -> EntryPoint | None:
    """The class that an annotation names, if it is one of the app's own deployments."""
    module, _, class_name = hint.type_name.rpartition(".")
    other = EntryPoint(module or point.module, class_name)
    source = read(other.file)
    if source is None or (other.module, other.class_name) == (point.module, point.class_name):
        return None
    return other if class_name in deployment_classes(source, other.file) else None
