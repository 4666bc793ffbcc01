"""The contracts on the fakes, and on real things that need no server: git and local secrets."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from bioengine_runtime.contract.app import AppSpec
from reconciler.adapters.git import GitSource
from reconciler.planning.steps import UploadArtifact
from reconciler.ports import Artifacts, Reports, Secrets, Source
from reconciler.secrets import LocalSecrets
from tests.contracts.ports import (
    ArtifactsContract,
    MemoryContract,
    ReportsContract,
    RuntimeContract,
    SecretsContract,
    SourceContract,
)
from tests.fakes import FakeArtifacts, FakeMemory, FakeReports, FakeRuntime, FakeSecrets, FakeSource, a_repository


class TestFakeArtifacts(ArtifactsContract):
    @pytest.fixture
    def artifacts(self) -> FakeArtifacts:
        return FakeArtifacts()

    @pytest.fixture
    def unreachable(self) -> FakeArtifacts:
        port = FakeArtifacts()
        port.fail("list")
        return port

    async def files_of(self, artifacts: Artifacts, upload: UploadArtifact) -> dict[str, int]:
        assert isinstance(artifacts, FakeArtifacts)
        stored = artifacts.files[upload.artifact_id, upload.version]
        return {path: len(content) for path, content in stored.items()}


class TestFakeRuntime(RuntimeContract):
    @pytest.fixture
    def runtime(self) -> FakeRuntime:
        return FakeRuntime()

    @pytest.fixture
    def unreachable(self) -> FakeRuntime:
        port = FakeRuntime()
        port.fail("observe")
        return port

    @pytest.fixture
    def spec(self) -> AppSpec:
        return AppSpec(app_id="hello", artifact_id="ws/hello", version="1.0.0", authorized_users=["*"])


class TestFakeSource(SourceContract):
    @pytest.fixture
    def source(self) -> Source:
        return FakeSource(a_repository("hello"))


class TestGitSource(SourceContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        for name, text in a_repository("hello").items():
            file = tmp_path / "lab" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "First"]):
            git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
            subprocess.run(git, cwd=tmp_path / "lab", check=True)
        return GitSource(str(tmp_path / "lab"), mirror_dir=tmp_path / "mirrors")


class TestFakeSecrets(SecretsContract):
    @pytest.fixture
    def value(self) -> str:
        return "c0rrect-horse"

    @pytest.fixture
    def secrets(self, value: str) -> Secrets:
        return FakeSecrets({"KNOWN": value})


class TestLocalSecrets(SecretsContract):
    @pytest.fixture
    def value(self) -> str:
        return "c0rrect-horse"

    @pytest.fixture
    def secrets(self, value: str, tmp_path: Path) -> Secrets:
        ours = LocalSecrets(tmp_path / "keys" / "fingerprint.key", environ={"KNOWN": value})
        ours.made_key()
        return ours


class TestFakeReports(ReportsContract):
    @pytest.fixture
    def reports(self) -> Reports:
        return FakeReports()

    async def newest(self, reports: Reports) -> Mapping[str, object]:
        assert isinstance(reports, FakeReports)
        return reports.published[-1]


class TestFakeMemory(MemoryContract):
    @pytest.fixture
    def memory(self) -> FakeMemory:
        return FakeMemory()

    @pytest.fixture
    def unreachable(self) -> FakeMemory:
        port = FakeMemory()
        for method in ("read", "append", "history"):
            port.fail(method)
        return port
