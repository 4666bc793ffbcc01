"""How the head of Ray is started: what a busy machine spoils is tried once more, and nothing of the try is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from bioengine_runtime.local.errors import LocalError
from bioengine_runtime.local.home import open_home
from bioengine_runtime.local.process import Child, running
from bioengine_runtime.local.ray_head import ray_program, start_ray
from bioengine_runtime.local.running import Running
from bioengine_runtime.local.state import State

FAILS = "echo the node timed out; exit 1"
STARTS = "touch {temp}/ray_current_cluster; exec sleep 600"


class Scripted(Running):
    """Starts real processes: what `scripts` says, one after the other, in place of `ray start`."""

    def __init__(self, home: Path, temp: Path, *scripts: str) -> None:
        super().__init__(open_home(home), State())
        self.left = [script.format(temp=temp) for script in scripts]
        self.started: list[Child] = []

    async def start(self, what: str, argv: Sequence[str], *, environment: Mapping[str, str]) -> Child:
        assert "--head" in argv
        child = await super().start(what, ["sh", "-c", self.left.pop(0)], environment=environment)
        self.started.append(child)
        return child


async def test_a_head_that_does_not_start_is_started_once_more(tmp_path: Path) -> None:
    scripted = Scripted(tmp_path / "home", tmp_path, FAILS, STARTS)
    await start_ray(open_home(tmp_path / "home"), scripted, port=1, temp=tmp_path)
    first, second = scripted.started
    assert running(first.record) is None
    assert running(second.record) is not None
    await scripted.stop("ray", grace_seconds=5)
    assert running(second.record) is None


async def test_a_head_that_fails_twice_says_what_ray_said(tmp_path: Path) -> None:
    scripted = Scripted(tmp_path / "home", tmp_path, FAILS, "echo no room; exit 3")
    with pytest.raises(LocalError, match="exit code 3") as refused:
        await start_ray(open_home(tmp_path / "home"), scripted, port=1, temp=tmp_path)
    assert "no room" in str(refused.value) + refused.value.hint


async def test_what_a_first_try_said_before_it_died_is_not_taken_for_the_second(tmp_path: Path) -> None:
    class HadSaidSo(Scripted):
        async def stop(self, what: str, *, grace_seconds: float) -> None:
            await super().stop(what, grace_seconds=grace_seconds)
            (tmp_path / "ray_current_cluster").touch()

    scripted = HadSaidSo(tmp_path / "home", tmp_path, FAILS, "sleep 0.3; exit 3")
    with pytest.raises(LocalError, match="exit code 3"):
        await start_ray(open_home(tmp_path / "home"), scripted, port=1, temp=tmp_path)


def test_a_python_that_ray_cannot_start_is_refused_before_it_is_tried(tmp_path: Path) -> None:
    assert ray_program(str(tmp_path / "bin" / "python")) == tmp_path / "bin" / "ray"
    with pytest.raises(LocalError, match="a space in it") as refused:
        ray_program(str(tmp_path / "my apps" / "bin" / "python"))
    assert "without any" in refused.value.hint
