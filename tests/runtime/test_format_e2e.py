"""An app of format 0.6.0 with a package of its own on a real Ray: prepared, deployed, called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ray import serve

from bioengine_runtime.apps import store
from bioengine_runtime.apps.prepare import ArtifactFiles, Builders
from bioengine_runtime.apps.supervisor import Supervisor
from bioengine_runtime.contract.manifest import AppManifest
from tests.runtime.apps_world import Artifacts, a_ray, a_spec, an_environment, apply, call, is_up, pids, until

pytestmark = pytest.mark.e2e

MANIFEST = """
id: cells
name: Cells
id_emoji: "🔬"
description: Counts what is brighter than a threshold.
type: ray-serve
format_version: 0.6.0
version: 1.0.0
entry: cells.entry:Entry
"""
ENTRY = '''
import bioengine
import numpy as np

from .options import pip
from .runtimes import Counter, Masker

logger = bioengine.logger


@bioengine.app(num_cpus=0, pip=pip("requirements-entry.txt"), env_vars={"UNIT": "cells"})
class Entry:
    def __init__(self, masker: Masker, counter: Counter, threshold: float = 0.5):
        self.masker, self.counter, self.threshold, self.tested = masker, counter, threshold, 0

    @bioengine.smoke_test
    async def try_it(self):
        self.tested = await self.count(np.array([[0.0, 1.0]]))

    @bioengine.method
    async def count(self, image: np.ndarray) -> int:
        """Pixels above the threshold."""
        return await self.counter.count(image, threshold=self.threshold)

    @bioengine.method
    async def rows(self, image: np.ndarray):
        """The mask, row by row."""
        async for row in self.masker.rows.options(stream=True)(image, self.threshold):
            yield row

    @bioengine.method(context=True)
    async def about(self, context: dict) -> dict:
        """Who asks, and what is around."""
        import os

        return {
            "who": context["user"]["id"],
            "unit": os.environ["UNIT"],
            "tested": self.tested,
            "version": bioengine.__version__,
            "datasets": await self.bioengine_datasets.list_datasets(),
            "same": await bioengine.datasets.list_datasets(),
            "module": __name__,
        }
'''
FILES = {
    "manifest.yaml": MANIFEST,
    "cells/__init__.py": "",
    "cells/entry.py": ENTRY,
    "cells/options.py": """
from pathlib import Path

def pip(name):
    return (Path(__file__).parent / name).read_text().split()
""",
    "cells/requirements-entry.txt": "numpy\nHypha_RPC\n",
    "cells/runtimes/__init__.py": "from .counter import Counter\nfrom .masker import Masker\n",
    "cells/runtimes/masker.py": """
import bioengine

@bioengine.app(num_cpus=0)
class Masker:
    def mask(self, image, threshold):
        return image > threshold

    def rows(self, image, threshold):
        for row in image > threshold:
            yield row.tolist()
""",
    "cells/runtimes/counter.py": """
import bioengine
from cells.runtimes.masker import Masker

@bioengine.app(num_cpus=0)
class Counter:
    def __init__(self, masker: "Masker"):
        self.masker = masker

    async def count(self, image, threshold):
        return int((await self.masker.mask(image, threshold)).sum())
""",
}
IMAGE = np.array([[0.1, 0.9], [0.8, 0.7]])


def an_artifact(version: str, **changes: str) -> ArtifactFiles:
    """The app, with files replaced: masker="…" replaces cells/runtimes/masker.py."""
    named = {path.rsplit("/", 1)[-1].removesuffix(".py"): path for path in FILES}
    files = {**FILES, **{named[name]: text for name, text in changes.items()}}
    manifest = AppManifest.model_validate(yaml.safe_load(files["manifest.yaml"]))
    return ArtifactFiles("ws/cells", version, manifest, {path: text.encode() for path, text in files.items()})


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with a_ray() as folder:
        yield folder


@pytest.fixture(scope="module")
async def supervisor(home: Path) -> AsyncIterator[Supervisor]:
    artifacts = Artifacts()
    artifacts.versions = {
        ("ws/cells", "1"): an_artifact("1"),
        ("ws/cells", "own-pydantic"): an_artifact("own-pydantic", **{"requirements-entry.txt": "pydantic==1.10.2"}),
        ("ws/cells", "broken"): an_artifact("broken", masker="import bioengine\ndef f(:\n"),
    }
    supervisor = Supervisor(reader=artifacts, environment=an_environment(home))
    await supervisor.start()
    yield supervisor
    await supervisor.stop()


def cells(version: str = "1", **fields: Any) -> Any:
    return a_spec("cells", folder="cells", version=version, **fields)


async def test_an_app_with_a_package_is_composed_by_its_annotations(supervisor: Supervisor):
    assert await apply(supervisor, cells(kwargs={"Entry": {"threshold": 0.75}}))
    state = await until(supervisor, "cells", is_up)
    assert set(pids(state)) == {"Entry", "Masker", "Counter"} and state.methods == ["count", "rows", "about"]
    assert await call("cells", "count", IMAGE) == 2
    assert await call("cells", "count", image=IMAGE) == 2


@pytest.mark.usefixtures("supervisor")
async def test_import_bioengine_works_in_a_replica():
    about = await call("cells", "about", context={"user": {"id": "anna"}})
    assert about.pop("version")
    assert about == {
        "who": "anna", "unit": "cells", "tested": 1, "datasets": {}, "same": {}, "module": "cells.entry"
    }  # fmt: skip


@pytest.mark.usefixtures("supervisor")
async def test_a_stream_passes_from_deployment_to_deployment():
    stream: Any = serve.get_app_handle("cells").rows.options(stream=True).remote(IMAGE)
    assert [row async for row in stream] == [[False, True], [True, False]]


@pytest.mark.parametrize(
    ("version", "fields", "problem"),
    [
        ("own-pydantic", {}, "cells.entry:Entry: pydantic==1.10.2 against pydantic"),
        ("broken", {}, "cells/runtimes/masker.py:2: Python cannot read it"),
        (
            "1",
            {"kwargs": {"Entry": {"treshold": 1}}},
            'no parameter "treshold"; it takes threshold; did you mean "threshold"?',
        ),
        ("1", {"kwargs": {"Entry": {"threshold": "high"}}}, 'parameter "threshold": Input should be a valid number'),
        ("1", {"kwargs": {"Entry": {"masker": 1}}}, '"masker" is the handle of another deployment'),
        ("1", {"kwargs": {"Enty": {"threshold": 1}}}, 'the app has *, Counter, Entry, Masker; did you mean "Entry"?'),
    ],
)
async def test_what_is_wrong_is_told_before_anything_is_touched(
    supervisor: Supervisor, version: str, fields: dict[str, Any], problem: str
):
    before = pids(await until(supervisor, "cells", is_up))
    prepared = await supervisor.prepare(cells(version, **fields), wait_s=60)
    assert not prepared.ok and problem in prepared.message
    assert pids(await until(supervisor, "cells", is_up)) == before


@pytest.mark.usefixtures("home")
async def test_a_folder_is_packed_once_for_all_of_its_apps_but_anew_when_it_was_uploaded_anew():
    builders, artifact = Builders(), an_artifact("1")
    first = await builders.folder(artifact)
    stored = store.last_put(store.CODE, first.package)
    assert await builders.folder(artifact) is first
    assert store.last_put(store.CODE, first.package) == stored
    changed = await builders.folder(an_artifact("1", options="# another\n" + FILES["cells/options.py"]))
    assert changed.package != first.package
