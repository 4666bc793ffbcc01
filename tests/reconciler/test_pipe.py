"""A reader that goes away ends no work; an answer that is lost in another way is a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import pytest

_RECONCILE = """
import sys
from reconciler.cli import commands
from tests.fakes import FakeSource, FakeWorld, a_repository

fake, told = FakeWorld(FakeSource(a_repository("one"))), sys.argv.pop(1)
commands.app.info.context_settings["obj"] = fake.world
try:
    commands.main()
finally:
    open(told, "w").write(" ".join(fake.runtime.apps))
"""


@pytest.fixture
def nobody() -> Iterator[IO[bytes]]:
    """A pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as pipe:
        yield pipe


def reconcile(
    told: Path, *words: str, stdout: IO[bytes] | int = subprocess.PIPE, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """As a process, on fakes; in the file stand the apps that run at its end."""
    command = [sys.executable, "-c", _RECONCILE, str(told), *words, "--home", str(told.parent / "home")]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, env={**os.environ, **(env or {})}, timeout=60, check=False
    )


def test_an_apply_whose_reader_went_away_does_it_all_and_ends_well(tmp_path: Path, nobody: IO[bytes]) -> None:
    """Caught: its steps were cancelled, and a mistake in reconcile was told."""
    done = reconcile(tmp_path / "told", "apply", "--auto-approve", "-o", "jsonl", stdout=nobody)
    assert (tmp_path / "told").read_text() == "one"
    assert done.returncode == 0 and b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr


def test_a_plan_whose_reader_went_away_ends_with_its_own_code(tmp_path: Path, nobody: IO[bytes]) -> None:
    done = reconcile(tmp_path / "told", "plan", "--detailed-exitcode", "-o", "json", stdout=nobody)
    assert (done.returncode, done.stderr) == (2, b"")


def test_an_answer_that_does_not_fit_on_the_disk_is_a_failure(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        done = reconcile(tmp_path / "told", "plan", "-o", "json", stdout=full)
    assert done.returncode == 1 and done.stderr.startswith(b"Error: not all of the answer could be written: No space")


def test_a_terminal_without_marks_gets_what_it_can_show(tmp_path: Path) -> None:
    """Caught: a mistake in reconcile was told."""
    done = reconcile(tmp_path / "told", "apply", "--auto-approve", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and b"\\u2714" in done.stdout, done.stderr
