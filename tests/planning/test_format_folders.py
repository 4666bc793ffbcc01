"""App folders of format 0.6.0 as a plan reads them: nothing of the app is run."""

from __future__ import annotations

from bioengine_runtime.contract.code import requirements
from reconciler.planning.folder import FolderFacts, read_folder
from reconciler.planning.source import Blob, Folder
from tests.builders import an_oid

MANIFEST = """name: Cells
id: cells
id_emoji: "x"
description: Counts.
type: ray-serve
format_version: 0.6.0
entry: cells.entry:Entry
"""
ENTRY = """import bioengine
from .runtimes.masker import Masker
raise SystemExit("nobody runs this")

@bioengine.app(num_cpus=0)
class Entry:
    def __init__(self, masker: Masker, threshold: float): ...
    @bioengine.method
    async def count(self): ...
"""
MASKER = """import bioengine

@bioengine.app(pip=["numpy==2.3.4"], gpu_memory_mb=4096)
class Masker: ...
"""


def facts_of(**changes: str) -> FolderFacts:
    """Of the folder with files replaced by the end of their names."""
    files = {"manifest.yaml": MANIFEST, "cells/entry.py": ENTRY, "cells/runtimes/masker.py": MASKER}
    files = {path: changes.get(path.rsplit("/", 1)[-1].split(".")[0], text) for path, text in files.items()}
    content = {an_oid(text): text.encode() for text in files.values()}
    blobs = {path: Blob(an_oid(text), len(text)) for path, text in files.items()}
    return read_folder(Folder("apps/cells", an_oid(repr(files)), blobs), content.__getitem__)


def told(facts: FolderFacts) -> list[tuple[str, int, str]]:
    return [(one.where.path, one.where.line, f"{one.message} | {one.fix}") for one in facts.problems]


def test_the_classes_are_those_of_the_annotations() -> None:
    facts = facts_of()
    assert told(facts) == []
    entry, masker = facts.classes
    assert (entry.name, entry.handles, entry.required, entry.methods) == (
        "Entry",
        ("masker",),
        ("masker", "threshold"),
        ("count",),
    )
    assert (masker.module, requirements(masker)) == ("cells.runtimes.masker", ("numpy==2.3.4",))


def test_a_broken_file_on_the_way_is_told_at_its_line() -> None:
    ((path, line, text),) = told(facts_of(masker=MASKER + "def f(:\n"))
    assert (path, line) == ("apps/cells/cells/runtimes/masker.py", 5)
    assert "Python cannot read it" in text


def test_a_broken_entry_is_told_at_its_line() -> None:
    assert told(facts_of(entry="import bioengine\nx = (\n"))[0][:2] == ("apps/cells/cells/entry.py", 2)


def test_a_missing_entry_is_told_at_the_line_of_the_manifest() -> None:
    (problem,) = told(facts_of(manifest=MANIFEST.replace("cells.entry", "cells.enty")))
    assert problem == (
        "apps/cells/manifest.yaml",
        7,
        'no file cells/enty.py in apps/cells | did you mean "cells/entry.py"?',
    )


def test_a_bad_requirement_of_a_deployment_is_told_in_its_own_file() -> None:
    (problem,) = told(facts_of(masker=MASKER.replace("numpy==2.3.4", "numpy=2")))
    assert problem[0] == "apps/cells/cells/runtimes/masker.py" and "is not valid" in problem[2]


def test_both_formats_in_one_manifest_are_told_at_the_line_that_is_too_much() -> None:
    (problem,) = told(facts_of(manifest=MANIFEST + "deployments: [entry:Entry]\n"))
    assert problem[:2] == ("apps/cells/manifest.yaml", 8)
    assert "not in format_version 0.6.0 | remove it" in problem[2]
