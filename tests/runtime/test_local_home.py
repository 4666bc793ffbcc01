"""The folder of the embedded default: closed to others, and made by one alone."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bioengine_runtime.local.embedded import embedded
from bioengine_runtime.local.errors import HomeBusy, LocalError
from bioengine_runtime.local.home import make_ray_temp, open_home
from bioengine_runtime.local.lock import held
from bioengine_runtime.local.secrets import write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def opened(tmp_path: Path) -> Path:
    """A folder that is there already, for everybody to read."""
    folder = tmp_path / "given"
    folder.mkdir()
    folder.chmod(0o755)
    return folder


def test_a_folder_that_was_there_is_closed_before_anything_is_put_into_it(opened: Path) -> None:
    open_home(opened)
    assert mode(opened) == 0o700


def test_a_home_that_somebody_has_opened_is_closed_again(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    home.path.chmod(0o755)
    open_home(home.path)
    assert mode(home.path) == 0o700


def test_an_open_folder_of_other_things_is_refused_and_left_as_it_is(opened: Path) -> None:
    (opened / "thesis.tex").touch()
    with pytest.raises(LocalError, match="holds other things than a home does") as refused:
        open_home(opened)
    assert f"chmod 700 {opened}" in refused.value.hint
    assert mode(opened) == 0o755 and [path.name for path in opened.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", ["home", "x" * 100])
def test_around_what_ray_opens_to_everybody_there_is_a_closed_folder(name: str) -> None:
    with TemporaryDirectory(dir="/tmp") as short:
        home = open_home(Path(short) / name)
        temp = make_ray_temp(home)
        assert mode(temp.parent) == 0o700 and temp.parent != home.path
        temp.rmdir()
        temp.parent.rmdir()


async def test_who_does_not_have_the_home_makes_nothing_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bioengine_runtime.local.embedded.hypha_python", lambda: None)
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with held(home), pytest.raises(HomeBusy):
        async with embedded(home, progress=lambda _: None):
            pass
    assert [path.name for path in home.iterdir()] == ["lock"]


def test_two_who_write_a_file_at_once_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync: Callable[[int], None] = os.fsync

    def the_other_comes_first(_: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        other = threading.Thread(target=write_private, args=(tmp_path / "token", "theirs"))
        other.start()
        other.join()

    monkeypatch.setattr(os, "fsync", the_other_comes_first)
    write_private(tmp_path / "token", "ours")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("token", "ours")]
    assert mode(tmp_path / "token") == 0o600


def test_who_has_just_taken_a_home_is_not_called_by_a_number(tmp_path: Path) -> None:
    with held(tmp_path):
        (tmp_path / "lock").write_text("")  # as between taking it and saying who
        with pytest.raises(HomeBusy) as refused, held(tmp_path):
            pass
    assert "in use by another process on" in refused.value.message
    assert "kill" not in str(refused.value)
