"""How a worker is started: what its command line takes, what it refuses and why, and what it deploys by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bioengine_runtime.apps.errors import BadApp
from bioengine_runtime.contract.status import NodeState
from bioengine_runtime.rpc.access import Caller
from bioengine_runtime.worker.nodes import cluster_summary
from bioengine_runtime.worker.pending import NOTHING, summary
from bioengine_runtime.worker.presence import names_of
from bioengine_runtime.worker.settings import read_settings
from bioengine_runtime.worker.startup import BadStartup, deploy_all, read_wishes
from bioengine_runtime.worker.tokens import kept_token

NEEDED = (
    *("--server-url", "http://127.0.0.1:1", "--workspace", "lab", "--client-id", "worker"),
    *("--ray-address", "127.0.0.1:2", "--workspace-dir", "/home/of/worker"),
)


@pytest.fixture(autouse=True)
def with_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPHA_TOKEN", "of the environment")


def test_the_options_of_todays_workers_are_taken(tmp_path: Path) -> None:
    (tmp_path / "app").write_text('{"artifact_id": "other", "hypha_token": "t"}')
    settings = read_settings(
        [
            *(*NEEDED, "--mode", "external-cluster", "--admin-users", "ann@lab.example", "bob"),
            *("--worker-name", "Lab", "--log-file", "off", "--debug", "--graceful-shutdown-timeout", "5"),
            *("--startup-applications", '{"artifact_id": "lab/demo"}', f"@{tmp_path}/app", "--geo-location"),
        ]
    )
    assert (settings.home, settings.mode, settings.worker_name) == (Path("/home/of/worker"), "external-cluster", "Lab")
    assert settings.admin_users == ("ann@lab.example", "bob") and settings.log_file is None
    assert settings.debug and settings.geo_location and settings.graceful_shutdown_timeout == 5
    assert [wish["application_id"] for wish in settings.startup_applications] == ["demo", "other"]


@pytest.mark.parametrize(
    ("options", "stops"),
    [
        (("--mode", "external-cluster"), False),
        (("--mode", "single-machine"), True),
        (("--mode", "single-machine", "--apps-at-exit", "keep"), False),
        (("--mode", "external-cluster", "--apps-at-exit", "stop"), True),
    ],
)
def test_only_an_external_cluster_keeps_the_apps_unless_it_is_said(options: tuple[str, ...], stops: bool) -> None:
    assert read_settings([*NEEDED, *options]).stop_apps is stops


@pytest.mark.parametrize("option", [["--token", "sesame"], ["--token=sesame"]])
def test_a_token_on_the_command_line_is_refused_with_the_way_out(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read_settings([*NEEDED, *option])
    said = capsys.readouterr().err
    assert "--token-file FILE" in said and "HYPHA_TOKEN" in said and "sesame" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--token-file", "/nowhere/token"), "--token-file: /nowhere/token holds none; give --token-file FILE, or set"),
        (("--log-file", "/nowhere/worker.log"), "--log-file: there is no folder /nowhere; make it, or"),
        (("--mode", "slurm"), "--mode: invalid choice: 'slurm'"),
    ],
)
def test_what_could_not_work_ends_with_a_sentence_and_code_2(
    options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings([*NEEDED, *options])
    assert (ended.value.code, said in capsys.readouterr().err) == (2, True)


def test_no_token_at_all_is_said_unless_one_is_kept_from_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HYPHA_TOKEN")
    here = [*NEEDED, "--home", str(tmp_path), "--log-file", str(tmp_path / "worker.log")]
    with pytest.raises(SystemExit):
        read_settings(here)
    assert "no Hypha token; give --token-file FILE" in capsys.readouterr().err
    kept_token(tmp_path).write_text("renewed")
    assert read_settings(here).token() is None


def test_the_token_comes_from_the_file_as_it_is_now_or_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPHA_TOKEN", "of the environment")
    assert read_settings(NEEDED).token() == "of the environment"
    (tmp_path / "token").write_text("of the file\n")
    settings = read_settings([*NEEDED, "--token-file", str(tmp_path / "token")])
    assert settings.token() == "of the file"
    (tmp_path / "token").unlink()
    assert settings.token() is None


def test_everything_wrong_with_startup_applications_is_named_and_no_value() -> None:
    with pytest.raises(BadStartup) as caught:
        read_wishes(
            [
                '{"artifact_id": "a", "applicaton_id": "sesame"}',
                '{"application_id": "x"}',
                "[1]",
                "{",
                '{"artifact_id": "b"}',
                '{"artifact_id": "other/b"}',
                '{"artifact_id": "c", "max_ongoing_requests": "sesame"}',
            ]
        )
    said = str(caught.value)
    assert "1: applicaton_id" in said and "2: artifact_id" in said and "3: not a JSON object" in said and "4: " in said
    assert 'two would be "b"' in said and "7: max_ongoing_requests" in said and "sesame" not in said


async def test_a_startup_application_that_fails_stops_neither_the_others_nor_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Fault of the reference: its worker did not start when one of them failed."""
    deployed: list[str] = []

    async def deploy(wish: dict[str, Any]) -> str:
        if wish["artifact_id"] == "bad":
            raise BadApp("bad: no manifest")
        if wish["artifact_id"] == "worse":
            raise RuntimeError("sesame")
        deployed.append(wish["application_id"])
        return wish["application_id"]

    wishes = read_wishes([f'{{"artifact_id": "{name}"}}' for name in ("bad", "good", "worse", "better")])
    assert await deploy_all(wishes, deploy) == {"bad": "bad: no manifest", "worse": "RuntimeError"}
    assert deployed == ["good", "better"]
    assert "bad: no manifest" in caplog.text and "sesame" not in caplog.text


def test_the_owner_of_a_token_is_an_admin_by_id_and_email_and_never_by_none() -> None:
    def names(**user: Any) -> list[str]:
        return names_of(Caller.from_context({"user": user}))

    assert names(id="ann", email="ann@lab.example") == ["ann", "ann@lab.example"]
    assert names(id="root", email=None) == ["root"]
    assert names(id="x", email="x@y.example", is_anonymous=True) == []
    assert names_of(Caller.from_context(None)) == []
    assert names(id="renewed", parent="ann", email="ann@lab.example") == ["ann", "ann@lab.example"]


def test_a_node_is_shown_with_what_its_resources_say() -> None:
    amount = {"CPU": 8.0, "GPU": 2.0, "memory": 100.0, "object_store_memory": 50.0}
    marks = {"accelerator_type:A100": 1.0, "slurm_job_id:4711": 1.0}
    gpu = NodeState(node_id="g", address="10.0.0.2", head=False, total=amount | marks, free={**amount, "GPU": 1.0})
    head = NodeState(node_id="h", address="10.0.0.1", head=True, total={"CPU": 2.0}, free={"CPU": 0.5})
    shown = cluster_summary([gpu, head], NOTHING, insider=True)
    numbers = {"total_cpu": 10.0, "used_cpu": 1.5, "total_gpu": 2.0, "used_gpu": 1.0}
    assert shown["cluster"] == {**numbers, "pending_resources": summary(NOTHING, names=True)}
    one, other = shown["nodes"]["g"], shown["nodes"]["h"]
    assert (one["accelerator_type"], one["slurm_job_id"], one["total_gpu_memory"]) == ("A100", "4711", "NA")
    assert (one["used_object_store_memory"], one["node_ip"]) == (0.0, "10.0.0.2")
    assert (other["accelerator_type"], other["slurm_job_id"], other["used_gpu_memory"]) == (None, None, 0)
    assert cluster_summary([gpu], NOTHING, insider=False)["nodes"]["g"]["node_ip"] is None
