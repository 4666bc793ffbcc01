"""The embedded Hypha: who reaches it hands it the admin's token, so it must be the one that was started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bioengine_runtime.contract.cluster import HyphaSpec
from bioengine_runtime.local.home import HOME_MARKER, Home
from bioengine_runtime.local.state import ProcessRecord, State, write_state
from reconciler.cli.place import address_of
from reconciler.errors import Unreachable
from reconciler.secrets import LocalSecrets


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "id").write_text("an id")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "admin_token").write_text("of-the-admin\n")
    return Home(tmp_path)


@pytest.fixture
def process(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """One that `reconcile up` could have started; it waits for its stdin to end."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    marked = {**os.environ, HOME_MARKER: home.marker}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=marked) as started:
        yield started


def reach(home: Home, pid: int) -> str | None:
    write_state(home.state_file, State({"hypha": 4711}, (ProcessRecord("hypha", pid, 1.0),)))
    return address_of(HyphaSpec(), home.path, LocalSecrets(home.path / "key")).token


def test_it_is_reached_while_it_lives(home: Home, process: subprocess.Popen[bytes]) -> None:
    assert reach(home, process.pid) == "of-the-admin"


def test_after_its_end_whoever_listens_on_its_port_gets_no_token(home: Home, process: subprocess.Popen[bytes]) -> None:
    """Caught: only the state was read, and it is not written when a start is killed."""
    process.kill()
    process.wait()
    with pytest.raises(Unreachable, match="is not running"):
        reach(home, process.pid)


def test_another_process_that_got_its_number_is_not_taken_for_it(home: Home) -> None:
    with pytest.raises(Unreachable, match="is not running"):
        reach(home, os.getpid())


def test_a_home_in_which_nothing_was_started_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="is not running"):
        address_of(HyphaSpec(), tmp_path, LocalSecrets(tmp_path / "key"))
