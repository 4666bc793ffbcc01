"""`reconcile doctor`: what is amiss is found, said with its remedy, and never touched."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bioengine_runtime.contract.status import NodeState, WorkerState
from reconciler.adapters.hypha import Address
from reconciler.cli import doctor_here, doctor_there
from reconciler.cli.checkup import Check, Level
from reconciler.cli.commands import app
from reconciler.cli.doctor import examine
from reconciler.cli.doctor_there import Greeting, HyphaWire, Standing
from reconciler.cli.place import Place
from reconciler.errors import SourceUnusable, Unreachable
from reconciler.planning.memory import Holder, Remembered
from tests.builders import a_cluster
from tests.fakes import FakeMemory, FakeSource, FakeWorld, a_repository

GIB = 2.0**30
URL = "http://127.0.0.1:9"


class FakeWire:
    """A Hypha that is well, unless told otherwise."""

    def __init__(self, address: Callable[[], Address] | None = None, **told: Any) -> None:
        del address
        self.told: dict[str, Any] = {"seconds": 0.004, "skew": 0.0, "grant": "rw", "away": False, **told}

    async def greet(self) -> Greeting:
        if self.told["away"]:
            raise Unreachable(f"{URL} does not answer", hint="Is the server up?")
        skew = self.told["skew"]
        return Greeting(self.told["seconds"], None if skew is None else time.time() + skew)

    async def standing(self) -> Standing:
        return Standing("ws", self.told["grant"])


@pytest.fixture
def fake() -> FakeWorld:
    cluster = f"hypha: {{server_url: '{URL}'}}\n"
    there = FakeWorld(FakeSource(a_repository("one", cluster=cluster)), memory=FakeMemory())
    observe = there.runtime.observe

    async def with_nodes() -> WorkerState:
        node = NodeState(node_id="n", address="a", head=True, total={"CPU": 4, "GPU": 1, "memory": 8 * GIB})
        return (await observe()).model_copy(update={"nodes": [node]})

    there.runtime.observe = with_nodes
    return there


async def checks(fake: FakeWorld, home: Path, **wire: Any) -> dict[str, Check]:
    place = Place("lab", home_option=home)
    found = examine(place, fake.world, webhook_secret_file=wire.pop("hook", None), wired=lambda _: FakeWire(**wire))
    return {check.name: check async for check in found}


async def test_when_all_is_well_nothing_fails_and_nothing_is_touched(
    fake: FakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPHA_TOKEN", a_token(time.time() + 90 * 86400))
    found = await checks(fake, tmp_path / "home")
    assert {name for name, check in found.items() if check.level is not Level.OK} == {"webhook secret", "slurm"}
    assert found["rights"].saw == "may write in ws (rw)" and "1 node, 4 CPUs, 1 GPU" in found["ray"].saw
    assert not fake.writes and not (tmp_path / "home").exists()
    assert all(check.fix for check in found.values() if check.level in (Level.WARN, Level.FAIL))


async def test_what_cannot_be_looked_at_is_said_to_be_so(fake: FakeWorld, tmp_path: Path) -> None:
    whole = await checks(fake, tmp_path)
    away = await checks(fake, tmp_path, away=True)
    assert away["hypha"].level is Level.FAIL and away["worker"].level is Level.NOT_NEEDED
    fake.source.fail("fetch", SourceUnusable("the branch is gone", hint="Push it."))
    gone = await checks(fake, tmp_path)
    assert gone["source"].level is Level.FAIL and gone["source"].fix == "Push it."
    well = {name for name in whole if not name.startswith("rights:")}
    assert away.keys() == well and gone.keys() == well, "no check is left out in silence"


async def test_what_is_wrong_in_the_repository_is_found(fake: FakeWorld, tmp_path: Path) -> None:
    fake.source.commit({"cluster.yaml": "name: lab\nreplicsa: 2\n"})
    found = await checks(fake, tmp_path)
    assert found["cluster.yaml"].level is Level.FAIL and "reconcile validate" in found["cluster.yaml"].fix


@pytest.mark.parametrize(
    ("wire", "name", "level"),
    [
        ({"skew": 45.0}, "clock", Level.WARN),
        ({"skew": -900.0}, "clock", Level.FAIL),
        ({"skew": None}, "clock", Level.WARN),
        ({"seconds": 3.0}, "hypha", Level.WARN),
        ({"grant": "r"}, "rights", Level.FAIL),
        ({"grant": ""}, "rights", Level.WARN),
        ({"grant": "a"}, "rights", Level.OK),
    ],
)
async def test_what_hypha_tells_is_judged(
    wire: dict[str, Any], name: str, level: Level, fake: FakeWorld, tmp_path: Path
) -> None:
    assert (await checks(fake, tmp_path, **wire))[name].level is level


async def test_questions_without_an_answer_fail(fake: FakeWorld, tmp_path: Path) -> None:
    fake.artifacts.fail("list")
    assert fake.memory is not None
    fake.memory.fail("read")
    found = await checks(fake, tmp_path)
    assert found["rights: artifacts"].level is Level.FAIL and found["memory"].level is Level.FAIL
    assert found["rights: worker"].level is Level.OK and found["lease"].level is Level.NOT_NEEDED


def test_the_token_is_read_for_its_end_and_never_shown() -> None:
    now = 1_800_000_000.0
    for end, level in ((now - 1, Level.FAIL), (now + 86400, Level.WARN), (now + 30 * 86400, Level.OK)):
        token = a_token(end)
        check = doctor_there.token(lambda token=token: Address(URL, token), now)
        assert check.level is level and token not in f"{check.saw} {check.fix}"
    assert doctor_there.token(lambda: Address(URL), now).level is Level.WARN
    assert doctor_there.token(lambda: Address(URL, "no-jwt-at-all"), now).level is Level.WARN


def test_a_worker_of_another_release_or_mode_fails() -> None:
    node = NodeState(node_id="n", address="a", head=True, total={"CPU": 4.0})
    state = WorkerState(
        service_id="ws/c:w", workspace="ws", mode="slurm", bioengine_version="0.1.0", ray_version="2.9.0", nodes=[node]
    )
    worker, ray = doctor_there.worker(state, a_cluster())
    assert worker.level is Level.FAIL and "single-machine" in worker.saw
    assert ray.level is Level.FAIL and doctor_here.locked_version("ray") in ray.saw
    locked = {"mode": "single-machine", "ray_version": doctor_here.locked_version("ray")}
    _, empty = doctor_there.worker(state.model_copy(update={**locked, "nodes": []}), a_cluster())
    assert empty.level is Level.WARN
    assert [check.level for check in doctor_there.worker(state.model_copy(update=locked), a_cluster())] == [
        Level.OK
    ] * 2


async def test_a_dead_holder_of_the_lease_is_told(fake: FakeWorld, tmp_path: Path) -> None:
    now = time.time()
    lives = Holder("anna", "elsewhere", 1, 1, since=now, renewed=now)
    for holder, level in ((lives, Level.OK), (replace(lives, renewed=now - 600), Level.WARN)):
        assert fake.memory is not None
        await fake.memory.write(Remembered(holder))
        found = await checks(fake, tmp_path)
        assert found["lease"].level is level and "anna" in found["lease"].saw


# ── this machine ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_secrets_that_others_may_read_fail(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    tmp_path.chmod(0o700)
    key = secrets / "fingerprint.key"
    key.write_text("x")
    key.chmod(0o600)
    assert next(doctor_here.home(tmp_path)).level is Level.OK
    key.chmod(0o644)
    check = next(doctor_here.home(tmp_path))
    assert check.level is Level.FAIL and "fingerprint.key 0644" in check.saw and "chmod" in check.fix
    key.chmod(0o600)
    tmp_path.chmod(0o777)
    assert next(doctor_here.home(tmp_path)).level is Level.FAIL


@pytest.mark.parametrize("inside", ["", "x/y"])
def test_a_home_that_is_a_file_or_below_one_fails(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").write_text("")
    check, _ = doctor_here.home(tmp_path / "file" / inside)
    assert check.level is Level.FAIL and "is no folder" in check.saw and "--home" in check.fix


def test_a_full_disk_is_told_before_it_hurts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, level in ((10**8, Level.FAIL), (10**9, Level.WARN), (10**11, Level.OK)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: shutil._ntuple_diskusage(free, 0, free))  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        assert list(doctor_here.home(tmp_path / "not" / "there"))[1].level is level


def test_the_webhook_secret_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "hook.secret"
    assert doctor_here.webhook_secret(None).level is Level.NOT_NEEDED
    assert doctor_here.webhook_secret(file).level is Level.FAIL
    file.write_text("a-secret-of-the-webhook\n")
    file.chmod(0o644)
    open_to_all = doctor_here.webhook_secret(file)
    assert open_to_all.level is Level.FAIL and "a-secret" not in open_to_all.saw + open_to_all.fix
    file.chmod(0o600)
    assert doctor_here.webhook_secret(file).level is Level.OK


def test_slurm_is_asked_only_where_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor_here.slurm(a_cluster()).level is Level.NOT_NEEDED
    cluster = a_cluster(compute={"mode": "slurm"})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "sbatch, squeue, sinfo, scancel" in doctor_here.slurm(cluster).saw
    for tool in doctor_here.SLURM_TOOLS:
        (tmp_path / tool).write_text("#!/bin/sh\necho slurm 23.11\n")
        (tmp_path / tool).chmod(0o755)
    assert doctor_here.slurm(cluster) == Check("slurm", Level.OK, "slurm 23.11")
    (tmp_path / "sinfo").write_text("#!/bin/sh\necho 'no controller' >&2\nexit 1\n")
    assert doctor_here.slurm(cluster).level is Level.FAIL


def test_a_git_that_is_old_or_not_locked_down_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert next(doctor_here.git()).level is Level.OK
    wrapper = tmp_path / "git"
    real = shutil.which("git")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for script in ("echo git version 2.20.1", f'exec {real} -c core.hooksPath=x "$@" -c core.hooksPath=y', "exit 1"):
        wrapper.write_text(f"#!/bin/sh\n{script}\n")
        wrapper.chmod(0o755)
        assert next(doctor_here.git()).level is Level.FAIL, script
    wrapper.write_text(
        f'#!/bin/sh\nfor word; do [ "$word" = --list ] && exec {real} config --list; done\nexec {real} "$@"\n'
    )
    check = next(doctor_here.git())
    assert check.level is Level.FAIL and "core.hookspath" in check.saw


async def test_a_real_socket_that_does_not_answer_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    hypha, clock = await doctor_there.hypha(HyphaWire(lambda: Address(f"http://127.0.0.1:{port}")), time.time)
    assert hypha.level is Level.FAIL and str(port) in hypha.saw and clock.level is Level.NOT_NEEDED


# ── the command ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_says_what_to_do_next(fake: FakeWorld, tmp_path: Path) -> None:
    words = ["doctor", "lab", "--home", str(tmp_path), "--server-url", "http://127.0.0.1:9"]
    result = CliRunner().invoke(app, words, obj=fake.world)
    assert result.exit_code == 1 and "✗ hypha" in result.stdout and "fix: " in result.stdout
    assert result.stdout.rstrip().splitlines()[-1].startswith("Next: mend what fails, then reconcile doctor lab")
    as_json = CliRunner().invoke(app, [*words, "-o", "json"], obj=fake.world)
    document = json.loads(as_json.stdout)
    assert as_json.exit_code == 1 and document["ok"] is False and document["format_version"] == "1.0"
    assert {"name", "level", "saw", "fix"} == document["checks"][0].keys()


def test_sp_11_and_ss_01_nothing_foreign_drives_the_terminal_and_no_token_is_shown(
    fake: FakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = a_token(time.time() + 1e6)
    monkeypatch.setenv("HYPHA_TOKEN", token)
    fake.source.fail("fetch", SourceUnusable("\x1b]52;c;aGk=\x07 gone\nforged: ok"))
    for more in ([], ["-o", "json"]):
        result = CliRunner().invoke(app, ["doctor", "lab", "--home", str(tmp_path), *more], obj=fake.world)
        assert "\x1b" not in result.output and "\nforged" not in result.output and token not in result.output


def test_sp_11_no_check_drives_the_terminal(fake: FakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forged = "\x1b[2J gone\nforged: ok"
    monkeypatch.setattr(doctor_here, "versions", lambda: [Check("python", Level.FAIL, forged, forged)])
    result = CliRunner().invoke(app, ["doctor", "lab", "--home", str(tmp_path)], obj=fake.world)
    assert "python" in result.output and "\x1b" not in result.output and "\nforged" not in result.output


def a_token(end: float) -> str:
    parts = ({"alg": "HS256"}, {"exp": end, "sub": "canary-user"})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "canary-signature"])
