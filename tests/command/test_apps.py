"""`bioengine apps` as people and scripts meet it: what is asked of the worker, what is shown, how it ends."""

from __future__ import annotations

import asyncio
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from bioengine_runtime.command import apps as apps_module
from bioengine_runtime.command import connect, waiting
from bioengine_runtime.command.connect import Address
from bioengine_runtime.command.place import Place
from bioengine_runtime.command.show import Screen
from tests.command.app_folder import MANIFEST, a_folder
from tests.command.fake_worker import WORKER, FakeServer, FakeWorker, a_deployment, an_app, bioengine, remote

CANARY = "xK9-canary-value-77"


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(apps_module, "FOLLOW_EVERY_S", 0.0)


def output(result: Any) -> str:
    return result.stdout + result.stderr


# ── upload, deploy, run ────────────────────────────────────────────────────────────────────────────────────────────


def test_upload_sends_the_folder_and_says_where_it_is(server: FakeServer, worker: FakeWorker, tmp_path: Path) -> None:
    result = bioengine(server, "apps", "upload", str(a_folder(tmp_path)))
    assert result.exit_code == 0, output(result)
    assert result.stdout == "Application created successfully!\nArtifact ID: lab/demo\n"
    assert {item["name"] for item in worker.files} == {"manifest.yaml", "demo.py"}
    assert "Next:  bioengine apps run lab/demo --app-id demo --wait" in result.stderr
    assert server.open == 0


def test_a_bad_folder_is_told_whole_and_nobody_is_asked(server: FakeServer, tmp_path: Path) -> None:
    folder = a_folder(tmp_path, manifest=MANIFEST.replace("name: Demo\n", "").replace("ray-serve", "x"))
    result = bioengine(server, "apps", "upload", str(folder))
    assert result.exit_code == 1 and result.stdout == ""
    assert "Error: 2 problems" in result.stderr and "Hint:  Nothing was uploaded" in result.stderr
    assert "missing required field: name" in result.stderr and "type must be 'ray-serve'" in result.stderr
    assert server.addresses == []


def test_public_explains_itself(server: FakeServer, tmp_path: Path) -> None:
    result = bioengine(server, "apps", "upload", str(a_folder(tmp_path)), "--public")
    assert result.exit_code == 0 and "--public changes nothing" in result.stderr


def test_an_app_that_names_no_users_is_said_to_be_closed(server: FakeServer, tmp_path: Path) -> None:
    closed = a_folder(tmp_path, manifest=MANIFEST.replace('authorized_users: ["*"]\n', ""))
    result = bioengine(server, "apps", "upload", str(closed))
    assert result.exit_code == 0 and "only you and the worker's admins may call it" in result.stderr


def test_run_sends_only_what_was_said(server: FakeServer, worker: FakeWorker) -> None:
    assert bioengine(server, "apps", "run", "lab/demo", HYPHA_TOKEN=CANARY).exit_code == 0
    assert worker.calls_of("deploy_app") == [{"artifact_id": "lab/demo"}]


def test_run_sends_everything_that_was_said(server: FakeServer, worker: FakeWorker) -> None:
    words = ["--app-id", "demo", "--version", "2", "--no-gpu", "--env", "A=b=c", "--env", "_KEY=s3cret"]
    result = bioengine(server, "apps", "run", "lab/demo", *words, "--hypha-token", CANARY)
    assert result.exit_code == 0 and "Deployment started. Application ID: demo" in result.stdout
    assert worker.calls_of("deploy_app") == [
        {
            "artifact_id": "lab/demo",
            "application_id": "demo",
            "version": "2",
            "disable_gpu": True,
            "application_env_vars": {"*": {"A": "b=c", "_KEY": "s3cret"}},
            "hypha_token": CANARY,
        }
    ]


def test_gpus_can_be_given_back_by_an_update(server: FakeServer, worker: FakeWorker) -> None:
    bioengine(server, "apps", "run", "lab/demo", "--app-id", "demo", "--gpu")
    assert worker.calls_of("deploy_app")[0]["disable_gpu"] is False


def test_the_value_of_a_bare_name_comes_from_the_environment(server: FakeServer, worker: FakeWorker) -> None:
    words = ("apps", "run", "lab/demo", "--env", "_API_KEY", "--env", "LEVEL")
    result = bioengine(server, *words, API_KEY="s3cret", LEVEL="3")
    assert result.exit_code == 0, output(result)
    assert worker.calls_of("deploy_app")[0]["application_env_vars"] == {"*": {"_API_KEY": "s3cret", "LEVEL": "3"}}
    missing = bioengine(server, *words, API_KEY=None, LEVEL="3")
    assert missing.exit_code == 2 and "API_KEY is not set" in missing.stderr


def test_a_malformed_variable_is_refused_without_being_repeated(server: FakeServer) -> None:
    result = bioengine(server, "apps", "run", "lab/demo", "--env", f"my-key={CANARY}")
    assert result.exit_code == 2 and CANARY not in output(result)


def test_no_secret_is_shown_whoever_repeats_it(server: FakeServer, worker: FakeWorker) -> None:
    worker.fails["deploy_app"] = remote("BadApp", f"bad: {CANARY}1 {CANARY}2 {CANARY}3")
    words = ["--hypha-token", f"{CANARY}1", "--env", f"_KEY={CANARY}2"]
    result = bioengine(server, "apps", "run", "lab/demo", *words, HYPHA_TOKEN=f"{CANARY}3")
    assert result.exit_code == 1 and "Error: bad: ***** ***** *****" in result.stderr
    assert CANARY not in output(result)


def test_deploy_runs_exactly_the_version_it_uploaded(server: FakeServer, worker: FakeWorker, tmp_path: Path) -> None:
    result = bioengine(server, "apps", "deploy", str(a_folder(tmp_path)), "--app-id", "demo")
    assert result.exit_code == 0, output(result)
    assert [name for name, _ in worker.calls] == ["upload_app", "get_app_manifest", "get_app_status", "deploy_app"]
    assert worker.calls_of("deploy_app")[0]["version"] == "1.0.0-2", "as it was stored, whatever the manifest says"


def test_a_worker_that_does_not_tell_versions_takes_the_newest(
    server: FakeServer, worker: FakeWorker, tmp_path: Path
) -> None:
    service = worker.service()
    del service["get_app_manifest"]
    server.services[WORKER] = service
    assert bioengine(server, "apps", "deploy", str(a_folder(tmp_path)), "--app-id", "demo").exit_code == 0
    assert "version" not in worker.calls_of("deploy_app")[0]


def test_an_empty_token_takes_the_apps_token_away(server: FakeServer, worker: FakeWorker) -> None:
    bioengine(server, "apps", "run", "lab/demo", "--app-id", "demo", "--hypha-token", "")
    assert worker.calls_of("deploy_app")[0]["hypha_token"] == ""


def test_a_deploy_that_changes_nothing_says_so(server: FakeServer) -> None:
    for version, said in (("1", "Deployment started."), ("1", "Unchanged: it runs exactly so already."), ("2", "Depl")):
        result = bioengine(server, "apps", "run", "lab/demo", "--app-id", "demo", "--version", version)
        assert result.exit_code == 0 and result.stdout.startswith(said), output(result)
        assert result.stdout.endswith(" Application ID: demo\n")


def test_an_update_and_a_further_instance_are_told_apart(server: FakeServer, worker: FakeWorker) -> None:
    worker.apps["demo"] = an_app("demo")
    assert "this updates it" in bioengine(server, "apps", "run", "lab/demo", "--app-id", "demo").stderr
    assert "To update it instead: --app-id demo" in bioengine(server, "apps", "run", "demo").stderr


def test_wait_follows_an_app_until_it_serves(server: FakeServer, worker: FakeWorker) -> None:
    worker.looks_until_up = 2
    result = bioengine(server, "apps", "run", "lab/demo", "--app-id", "demo", "--wait")
    assert result.exit_code == 0, output(result)
    assert "demo: DEPLOYING Demo UPDATING (1 STARTING), 0 s" in result.stderr
    assert result.stderr.count("demo: DEPLOYING") == 1, "a line per change, not per look"
    assert "demo is up: lab/gateway:demo" in result.stdout
    assert "Next:  bioengine call lab/demo --list-methods" in result.stderr


def test_wait_ends_when_there_is_nothing_to_wait_for(server: FakeServer, worker: FakeWorker) -> None:
    def fail() -> None:
        worker.apps["demo"] |= {"status": "DEPLOY_FAILED", "message": "ValueError: no weights"}

    worker.next_looks = [lambda: None, fail]
    result = bioengine(server, "apps", "run", "lab/demo", "--app-id", "demo", "--wait")
    assert result.exit_code == 1
    assert "Error: demo is not up. ValueError: no weights" in result.stderr
    assert "Hint:  Its lines: bioengine apps logs demo --previous 1" in result.stderr


def test_of_a_traceback_only_the_point_is_told(server: FakeServer, worker: FakeWorker) -> None:
    frames = [f'  File "serve.py", line {number}, in f' for number in range(50)]
    end = ['  File "demo.py", line 3, in async_init', "    load()", "ValueError: no weights"]
    lines = ["Traceback (most recent call last):", *frames, *end]
    rejected = {"reason": "ValueError: no weights", "log_lines": lines}
    worker.apps["demo"] = an_app("demo")
    worker.next_looks = [lambda: None, lambda: worker.apps["demo"].update(rejected_version=rejected)]
    result = bioengine(server, "apps", "run", "lab/demo", "--app-id", "demo", "--wait")
    assert result.exit_code == 1
    told = result.stderr[result.stderr.index("Error:") :].splitlines()
    assert told[0].endswith("The new version was rejected, the old one serves: ValueError: no weights")
    assert told[1:4] == end and told[4].startswith("Hint:  ")


def test_wait_ends_when_time_is_over(server: FakeServer, worker: FakeWorker) -> None:
    worker.looks_until_up = 10**9
    result = bioengine(server, "apps", "run", "lab/demo", "--app-id", "demo", "--wait", "--timeout", "1")
    assert result.exit_code == 1 and "Error: Not in 1 s: demo is DEPLOYING." in result.stderr


# ── list, status, logs ─────────────────────────────────────────────────────────────────────────────────────────────


def test_list_shows_folders_and_what_runs_from_them(server: FakeServer, worker: FakeWorker) -> None:
    versions = [{"version": "1", "created_at": 1}, {"version": "2", "created_at": 2}]
    record = {"manifest": {"name": "Demo"}, "versions": versions}
    worker.artifacts = {"lab/demo": {"manifest": record, "files": ["manifest.yaml", "demo.py"]}}
    worker.apps["demo-a"] = an_app("demo-a")
    header, row = bioengine(server, "apps", "list").stdout.splitlines()
    assert header.split() == ["ARTIFACT", "NAME", "VERSION", "VERSIONS", "FILES", "RUNS", "AS"]
    assert row.split() == ["lab/demo", "Demo", "2", "2", "2", "demo-a"]
    result = bioengine(server, "apps", "list", "--json")
    assert json.loads(result.stdout) == worker.artifacts and result.stderr == ""


def test_status_is_a_table(server: FakeServer, worker: FakeWorker) -> None:
    worker.apps = {"a": an_app("a"), "b": an_app("b", status="UNHEALTHY", application_resources={})}
    result = bioengine(server, "apps", "status")
    header, first, second = result.stdout.splitlines()
    assert " ".join(header.split()) == "APP STATUS VERSION REPLICAS CPU GPU MEMORY AGE METHODS SERVICE"
    assert " ".join(first.split()).startswith("a ● RUNNING 1.0.0 1 of 1 0.5 0 1 GiB")
    assert first.split()[-3:] == ["ping,", "segment", "lab/gateway:a"]
    assert second.split()[:3] == ["b", "✗", "UNHEALTHY"]
    assert "Next:  bioengine call lab/a --list-methods" in result.stderr


def test_status_of_one_tells_all_of_it_and_its_lines(server: FakeServer, worker: FakeWorker) -> None:
    worker.apps["demo"] = an_app("demo", deployments={"Demo": a_deployment("HEALTHY", "one", "two", RUNNING=1)})
    result = bioengine(server, "apps", "status", "demo", "--logs", "1")
    assert "Methods:    ping, segment" in result.stdout and "Demo#r1 | two" in result.stdout
    assert "| one" not in result.stdout
    assert "Demo#r1" not in bioengine(server, "apps", "status", "demo").stdout
    missing = bioengine(server, "apps", "status", "other")
    assert missing.exit_code == 0 and "- NOT_RUNNING" in missing.stdout
    assert missing.stderr == "Next:  bioengine apps status\n", "and not logs, of which there are none"


def test_status_of_a_broken_one_comes_to_the_point(server: FakeServer, worker: FakeWorker) -> None:
    frames = "".join(f'  File "serve.py", line {number}, in f\n' for number in range(50))
    end = '  File "demo.py", line 3, in async_init\n    load()\nValueError: no weights'
    broken = {**a_deployment("DEPLOY_FAILED"), "message": f"Traceback (most recent call last):\n{frames}{end}"}
    worker.apps["demo"] = an_app("demo", status="DEPLOY_FAILED", deployments={"Demo": broken})
    result = bioengine(server, "apps", "status", "demo")
    assert "Demo: ✗ DEPLOY_FAILED" in result.stdout and "serve.py" not in result.stdout
    assert [line.strip() for line in result.stdout.splitlines()[-3:]] == [line.strip() for line in end.splitlines()]
    assert "Next:  bioengine apps logs demo --previous 1" in result.stderr


def test_status_for_programs_is_the_workers_whole_answer(server: FakeServer, worker: FakeWorker) -> None:
    worker.apps["demo"] = an_app("demo")
    result = bioengine(server, "apps", "status", "--json")
    assert json.loads(result.stdout) == {"demo": worker.apps["demo"]} and result.stderr == ""
    assert worker.calls_of("get_app_status")[0]["logs_tail"] == 30


def test_status_waits(server: FakeServer, worker: FakeWorker) -> None:
    worker.apps["demo"] = an_app("demo", looks=3)
    result = bioengine(server, "apps", "status", "demo", "--wait")
    assert result.exit_code == 0 and "● RUNNING" in result.stdout
    worker.apps["demo"] = an_app("demo", status="DEPLOY_FAILED", message="no")
    assert bioengine(server, "apps", "status", "demo", "--wait").exit_code == 1


def test_where_no_app_runs_there_is_nothing_to_wait_for(server: FakeServer, worker: FakeWorker) -> None:
    result = bioengine(server, "apps", "status", "--wait")
    assert result.exit_code == 0 and "No app is running." in result.stderr
    assert [one["application_ids"] for one in worker.calls_of("get_app_status")] == [None, None]


def test_logs_are_lines_with_who_wrote_them(server: FakeServer, worker: FakeWorker) -> None:
    worker.apps["demo"] = an_app("demo", deployments={"Demo": a_deployment("HEALTHY", "\x1b[31mone", "two", RUNNING=1)})
    result = bioengine(server, "apps", "logs", "demo", "-n", "5", "--previous", "2")
    assert result.stdout == "Demo#r1 | one\nDemo#r1 | two\n"
    asked = worker.calls_of("get_app_status")[-1]
    assert asked == {"application_ids": ["demo"], "logs_tail": 5, "n_previous_replica": 2}
    as_json = json.loads(bioengine(server, "apps", "logs", "demo", "--json").stdout)
    assert as_json["Demo"]["r1"]["stderr"] == ["\x1b[31mone", "two"]
    gone = bioengine(server, "apps", "logs", "other")
    assert gone.exit_code == 1 and "other is not running" in gone.stderr


def test_followed_logs_tell_each_line_once_through_a_lost_connection(server: FakeServer, worker: FakeWorker) -> None:
    lines = ["zero", "one"]
    worker.apps["demo"] = an_app("demo", deployments={"Demo": a_deployment("HEALTHY", *lines, RUNNING=1)})

    def say(line: str) -> None:
        worker.apps["demo"]["deployments"]["Demo"]["logs"]["r1"]["stderr"].append(line)

    def lose() -> None:
        raise remote("ConnectionError", "Connection is closed")

    def interrupt() -> None:
        raise KeyboardInterrupt

    worker.next_looks = [lambda: None, lambda: say("two"), lose, lambda: say("three"), interrupt]
    result = bioengine(server, "apps", "logs", "demo", "-f", "-n", "1")
    assert result.exit_code == 0, output(result)
    assert result.stdout == "Demo#r1 | one\nDemo#r1 | two\nDemo#r1 | three\n"
    assert "Connection is closed Trying again." in result.stderr
    assert len(server.addresses) == 2 and server.open == 0


def test_following_ends_with_the_app(server: FakeServer, worker: FakeWorker) -> None:
    worker.apps["demo"] = an_app("demo")
    worker.next_looks = [lambda: None, worker.apps.clear]
    result = bioengine(server, "apps", "logs", "demo", "-f")
    assert result.exit_code == 0 and "not running any more" in result.stderr
    assert bioengine(server, "apps", "logs", "demo", "-f").exit_code == 1


# ── stop ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_stop_asks_first(server: FakeServer, worker: FakeWorker) -> None:
    worker.apps["demo"] = an_app("demo")
    assert bioengine(server, "apps", "stop", "demo", answer="n\n").exit_code == 1
    assert bioengine(server, "apps", "stop", "demo").exit_code == 1, "nobody answered"
    assert "demo" in worker.apps and worker.calls == []
    assert bioengine(server, "apps", "stop", "demo", answer="y\n").stdout.endswith("Stopping demo.\n")
    assert "demo" not in worker.apps


def test_a_question_that_nobody_answers_ends_its_line(server: FakeServer) -> None:
    result = bioengine(server, "apps", "stop", "demo", answer="")
    assert result.exit_code == 1 and "[y/N]:\nAborted." in result.stderr, "the error has a line of its own"


def test_the_command_says_which_release_it_is(server: FakeServer) -> None:
    result = bioengine(server, "--version")
    assert (result.exit_code, result.stdout) == (0, f"bioengine {metadata.version('bioengine-gitops')}\n")


def test_what_is_missing_is_called_as_the_help_calls_it(server: FakeServer) -> None:
    assert "Missing argument 'SERVICE_ID'" in output(bioengine(server, "call"))


def test_stop_can_wait_until_it_is_really_gone(server: FakeServer, worker: FakeWorker) -> None:
    worker.apps["demo"] = an_app("demo")
    result = bioengine(server, "apps", "stop", "demo", "--yes", "--wait")
    assert result.exit_code == 0 and result.stdout == "demo is stopped.\n"
    again = bioengine(server, "apps", "stop", "demo", "--yes")
    assert again.exit_code == 1 and "Error: demo is not currently deployed" in again.stderr


# ── Reaching the worker ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_environment_says_where_and_who_and_options_win(server: FakeServer) -> None:
    bioengine(server, "apps", "status", BIOENGINE_TOKEN="second", BIOENGINE_SERVER_URL="https://hypha.example/")
    bioengine(server, "apps", "status", HYPHA_TOKEN="first", BIOENGINE_TOKEN="second")
    bioengine(server, "apps", "status", "--token", "third", HYPHA_TOKEN="first")
    assert [(one.server_url, one.token) for one in server.addresses] == [
        ("https://hypha.example", "second"),
        ("https://hypha.aicell.io", "first"),
        ("https://hypha.aicell.io", "third"),
    ]


def test_no_worker_is_named(server: FakeServer) -> None:
    result = bioengine(server, "apps", "status", BIOENGINE_WORKER_SERVICE_ID=None)
    assert result.exit_code == 1
    assert "Error: No worker is named.\nHint:  Pass --worker" in result.stderr


def test_the_next_command_repeats_what_the_environment_does_not_say(server: FakeServer, worker: FakeWorker) -> None:
    worker.apps["demo"] = an_app("demo")
    words = ("apps", "stop", "demo", "-y", "--worker", WORKER, "--token", CANARY)
    result = bioengine(server, *words, BIOENGINE_WORKER_SERVICE_ID=None)
    assert f"Next:  bioengine apps status demo --worker {WORKER}\n" in result.stderr and CANARY not in output(result)


def test_older_workers_are_asked_by_their_names(server: FakeServer, worker: FakeWorker, tmp_path: Path) -> None:
    server.services[WORKER] = worker.service(older=True)
    assert bioengine(server, "apps", "deploy", str(a_folder(tmp_path)), "--app-id", "demo", "--wait").exit_code == 0
    for words in (["list"], ["status"], ["logs", "demo"], ["stop", "demo", "-y", "--wait"]):
        assert bioengine(server, "apps", *words).exit_code == 0, words


def test_status_that_comes_without_the_apps_id_is_understood(server: FakeServer, worker: FakeWorker) -> None:
    async def unwrapped(**_: Any) -> dict[str, Any]:
        return an_app("demo")

    server.services[WORKER] = worker.service() | {"get_app_status": unwrapped}
    assert "● RUNNING" in bioengine(server, "apps", "status", "demo").stdout


def test_several_workers_are_not_chosen_from(server: FakeServer) -> None:
    keys = [f"services:public|bioengine-worker:lab/{client}:bioengine-worker@*".encode() for client in ("a", "b")]
    server.services[WORKER] = remote("AssertionError", f"Multiple services found for {WORKER}, e.g. {keys}. You can …")
    result = bioengine(server, "apps", "status")
    assert result.exit_code == 1 and "lab/a:bioengine-worker, lab/b:bioengine-worker" in result.stderr


class Attended(Screen):
    """A terminal with somebody at it."""

    is_attended = True


def test_somebody_at_a_terminal_without_a_token_is_sent_to_log_in(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def login(config: dict[str, Any]) -> str:
        await config["login_callback"]({"login_url": "https://hypha.example/login?key=1"})
        return CANARY

    monkeypatch.setattr("hypha_rpc.login", login)
    place = Place("https://hypha.example", None, WORKER, server.connect, Attended())

    async def work() -> None:
        async with await place.the_worker(as_somebody=True):
            place.screen.note(f"I am {CANARY}")

    place.run(work)
    assert server.addresses[0].token == CANARY
    assert capsys.readouterr().err == ("No token is set. Log in here: https://hypha.example/login?key=1\nI am *****\n")


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_connection_is_always_closed_and_never_waited_for_long(
    hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    class Server:
        async def disconnect(self) -> None:
            closed.append("asked")
            await asyncio.sleep(3600 if hangs else 0)

    async def connect_to_server(config: dict[str, Any]) -> Server:
        assert config["token"] == "t" and "workspace" not in config
        return Server()

    monkeypatch.setattr("hypha_rpc.connect_to_server", connect_to_server)
    monkeypatch.setattr(connect, "HANG_UP_TIMEOUT_S", 0.01)
    with pytest.raises(ValueError, match="in the middle"):
        async with connect.connected(Address("https://hypha.example", "t", 5.0)):
            raise ValueError("in the middle")
    assert closed == ["asked"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError("refused"), "Is the server up"),
        (TimeoutError(), "no answer"),
        (ConnectionAbortedError("Authentication error: expired"), "set HYPHA_TOKEN to one that is valid"),
    ],
)
def test_a_server_that_is_not_reached(server: FakeServer, error: Exception, words: str) -> None:
    server.down = error
    result = bioengine(server, "apps", "status")
    assert result.exit_code == 1 and "Cannot connect to https://hypha.aicell.io" in result.stderr
    assert words in result.stderr


def test_a_worker_that_is_not_there_or_says_no(server: FakeServer, worker: FakeWorker) -> None:
    missing = bioengine(server, "apps", "list", "--worker", "lab/other")
    assert missing.exit_code == 1 and "There is no service lab/other" in missing.stderr
    worker.fails["list_apps"] = remote("PermissionError", "an anonymous user may not call list_apps", "async")
    denied = bioengine(server, "apps", "list")
    assert denied.exit_code == 1
    assert "Error: an anonymous user may not" in denied.stderr and "set HYPHA_TOKEN to your token" in denied.stderr
    assert "Traceback" not in output(denied) and server.open == 0


# ── The whole ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["apps"],
        *(["apps", name] for name in ("upload", "deploy", "run", "list", "status", "logs", "stop")),
        ["call"],
        ["cluster"],
        ["cluster", "status"],
    ],
    ids=" ".join,
)
def test_every_command_explains_itself(server: FakeServer, words: list[str]) -> None:
    result = bioengine(server, *words, "--help", HYPHA_TOKEN=CANARY)
    assert result.exit_code == 0 and CANARY not in result.stdout and "--server-url" not in result.stdout
    if words not in ([], ["apps"], ["cluster"]):
        assert "Examples:" in result.stdout and "bioengine " + words[0] in result.stdout


def test_usage_errors_exit_2(server: FakeServer) -> None:
    assert bioengine(server, "apps", "run").exit_code == 2
    assert bioengine(server, "apps", "status", "--nonsense").exit_code == 2
    assert bioengine(server, "apps", "logs", "demo", "-f", "--json").exit_code == 2


def test_the_cluster_is_shown_also_where_things_are_unknown(server: FakeServer) -> None:
    result = bioengine(server, "cluster", "status")
    assert result.exit_code == 0, output(result)
    assert "Worker:    lab/bioengine-worker (ready" in result.stdout
    assert "abcdef012345 (head)" in result.stdout and "1.5 of 8" in result.stdout and "1 GiB of 16 GiB" in result.stdout
    assert "NA" not in result.stdout and "- of" not in result.stdout
    assert json.loads(bioengine(server, "cluster", "status", "--json").stdout)["workspace"] == "lab"
