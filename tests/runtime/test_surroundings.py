"""Which variables reach a process of the embedded default, and which of them other people's code finds."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bioengine_runtime.apps import zygote
from bioengine_runtime.apps.surroundings import settle_in
from bioengine_runtime.code_runs import task
from bioengine_runtime.local.environment import child_environment
from bioengine_runtime.local.home import HOME_MARKER

TOKENS = {
    "UV_PUBLISH_TOKEN": "pypi-canary",
    "UV_PUBLISH_PASSWORD": "canary",
    "UV_INDEX_LAB_PASSWORD": "canary",
    "PIP_INDEX_URL": "https://me:canary@pypi.lab.example/simple",
    "HYPHA_TOKEN": "canary",
    "GITHUB_TOKEN": "canary",
}


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables of this process, for as long as the test lasts."""
    mine = {"PATH": os.environ["PATH"], **TOKENS}
    monkeypatch.setattr(os, "environ", mine)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    return mine


def test_what_packages_are_fetched_with_is_passed_and_what_they_are_published_with_is_not(
    surroundings: dict[str, str],
) -> None:
    passed = {name for name in child_environment({}) if name in surroundings.keys() & TOKENS.keys()}
    assert passed == {"UV_INDEX_LAB_PASSWORD", "PIP_INDEX_URL"}


def test_an_app_finds_no_password_of_whoever_started_its_ray(surroundings: dict[str, str], tmp_path: Path) -> None:
    settle_in(str(tmp_path / "home"), {"HYPHA_WORKSPACE": "lab"}, ())
    assert [name for name, value in surroundings.items() if "canary" in value] == ["GITHUB_TOKEN"]
    assert surroundings["HYPHA_WORKSPACE"] == "lab"


def test_an_app_keeps_the_variables_that_it_was_given(surroundings: dict[str, str], tmp_path: Path) -> None:
    settle_in(str(tmp_path / "home"), {}, {"UV_INDEX_LAB_PASSWORD"})
    assert "UV_INDEX_LAB_PASSWORD" in surroundings and "PIP_INDEX_URL" not in surroundings


def test_what_looks_at_code_or_runs_it_carries_the_mark_of_its_home_and_no_token() -> None:
    inherited = {**TOKENS, HOME_MARKER: "here", "LANG": "C"}
    for found in (zygote.environment(inherited, None), task.environment(inherited, ())):
        assert found == {HOME_MARKER: "here", "LANG": "C"}
    assert zygote.environment(inherited, "layer")["PYTHONPATH"] == "layer"
