"""The supervisor without Ray: what is kept and what is sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bioengine_runtime.apps import marks, store
from bioengine_runtime.apps.builder import Blueprint
from bioengine_runtime.apps.marks import Good
from bioengine_runtime.apps.record import AppRecord, Running
from bioengine_runtime.apps.supervisor import ArtifactFiles, Supervisor
from tests.runtime.apps_world import a_provenance, a_spec, an_environment
from tests.runtime.test_apps_parts import FACTS, a_record
from tests.runtime.test_watcher import Kept


class Unattached(Supervisor):
    """Everything is prepared and fits, and nothing reaches a cluster."""

    def __init__(self, home: Path) -> None:
        super().__init__(reader=self, environment=an_environment(home))
        self.sent: list[str] = []
        self._deployer: Any = self
        self._look: Any = self._nothing_runs

    async def fetch(self, artifact_id: str, version: str) -> ArtifactFiles:
        raise NotImplementedError

    async def deploy(self, app_id: str, blueprint: str, deployments: Sequence[bytes]) -> None:  # noqa: ARG002
        self.sent.append(app_id)

    async def _nothing_runs(self) -> dict[str, Running]:
        return {}

    async def _prepare(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(classes=())

    async def _fit(self, *_: Any, **__: Any) -> list[str]:
        return []

    def _facts(self, *_: Any, **__: Any) -> Any:
        return FACTS

    def _draw(self, record: AppRecord, *_: Any, **__: Any) -> Blueprint:  # noqa: ARG002
        return Blueprint((), {})


async def test_an_app_that_is_new_is_good_by_no_word_of_one_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "internal_kv", Kept())
    marks.keep_good("plain", Good(a_record().release()))  # whoever removed it died before taking this away
    supervisor = Unattached(tmp_path)
    assert await supervisor.apply(a_spec(version="1"), {}, {}, a_provenance(), "")
    assert (supervisor.sent, marks.read_good("plain")) == (["plain"], None)
