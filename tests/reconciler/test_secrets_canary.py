"""A value planted in every source, and everything that we write searched for it (SS-01 to SS-09).

It is searched for as it is, in base64, for a URL, escaped as in JSON, and by every slice of eight characters, forwards
and backwards.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import logging
import sys
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bioengine_runtime.contract.app import fingerprint
from bioengine_runtime.contract.base import SecretFromEnv, SecretFromFile, SecretRef
from bioengine_runtime.contract.cluster import HyphaSpec
from reconciler.adapters.hypha import Address
from reconciler.age import encrypt, new_identity, read_identities, recipient_of
from reconciler.cli.commands import app
from reconciler.cli.place import address_of
from reconciler.errors import Unreachable
from reconciler.mask import Mask
from reconciler.planning.declare import declare
from reconciler.ports import StepFailed
from reconciler.secrets import LocalSecrets
from tests.fakes import FakeMemory, FakeSource, FakeWorld, a_repository, an_app_folder

CANARIES = {
    "env": 'eV7/q "Zk+w\\ü&42_env',
    "file": "fI1?L9=x'Rt%Y\tm:file-3",
    "age": "a9Xk\nG3-second-line-5Tq#age",
    "token": "tOk3n.b64x/HHq+8Wv==Zu",
}
"""One per source, with what JSON, URLs, shells and YAML take for something else."""


def forms(value: str) -> Iterator[str]:
    yield from (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
    yield from (urllib.parse.quote(value, safe=""), urllib.parse.quote_plus(value))
    yield base64.b64encode(value.encode()).decode().rstrip("=")
    yield base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")
    for start in range(len(value) - 7):
        piece = value[start : start + 8]
        yield from (piece, piece[::-1], json.dumps(piece)[1:-1], json.dumps(piece[::-1])[1:-1])


def assert_silent(text: str, values: Mapping[str, str] = CANARIES) -> None:
    for source, value in values.items():
        found = [form for form in forms(value) if form in text]
        assert not found, f"{source}: {found[:3]} in {text[max(0, text.index(found[0]) - 200) :][:400]}"


def quoted(value: str) -> str:
    """What other people's errors make of a value."""
    return " | ".join(dict.fromkeys([*list(forms(value))[:8], base64.b64encode(f"user:{value}".encode()).decode()]))


class Lab:
    """A repository with a secret of every source, real secrets, and fakes for the rest."""

    def __init__(self, tmp_path: Path) -> None:
        self.home = tmp_path / "home"
        folder = self.home / "secrets"
        folder.mkdir(parents=True)
        private, recipient = new_identity()
        (folder / "age.key").write_text(private)
        self.file = tmp_path / "secret.txt"
        self.file.write_text(CANARIES["file"])
        self.environ = {"CI_PASS": CANARIES["env"], "CI_TOKEN": CANARIES["token"]}
        self.age = encrypt(CANARIES["age"], [recipient])
        self.fake = FakeWorld(FakeSource(self.files()), memory=FakeMemory())
        self.fake.secrets = self.secrets()  # type: ignore[assignment]
        self.told: list[str] = []

    def secrets(self) -> LocalSecrets:
        ours = LocalSecrets(self.home / "secrets" / "fingerprint.key", environ=self.environ)
        ours.made_key()
        return ours

    def files(self, **more: str) -> dict[str, str]:
        armored = "".join(f"          {line}\n" for line in self.age.splitlines())
        one = (
            f"    env:\n      Main:\n        FROM_ENV: {{env: CI_PASS}}\n        FROM_FILE: {{file: {self.file}}}\n"
            f"        FROM_AGE:\n         age: |\n{armored}    hypha_token: {{env: CI_TOKEN}}\n"
        )
        return a_repository("one", "two", one=one, **more)

    def run(self, *words: str) -> Any:
        """A command; what it said is kept."""
        result = CliRunner().invoke(app, [*words, "--home", str(self.home)], obj=self.fake.world)
        self.told += [result.output, repr(result.exception), repr(result.exc_info)]
        return result

    @property
    def everything(self) -> str:
        """All that was said, published, remembered or written to a file; the secrets' own folder left out."""
        files = [
            path.read_text()
            for path in self.home.parent.rglob("*")
            if path.is_file() and path != self.file and path.parent != self.home / "secrets"
        ]
        memory = self.fake.memory
        outside = [repr(self.fake.reports.published), json.dumps(self.fake.reports.published, default=repr)]
        running = [app.model_copy(update={"rejected": None}) for app in self.fake.runtime.apps.values()]
        outside += [repr(running), repr(self.fake.artifacts.manifests), repr(memory and memory.entries)]
        outside += [repr(memory and memory.remembered), repr(self.fake.runtime.calls)]
        return "\n".join([*self.told, *files, *outside])


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.delenv("RECONCILE_AGE_IDENTITY", raising=False)
    return Lab(tmp_path)


ALL = ("apply", "--auto-approve")


def ask_everything(lab: Lab) -> None:
    for words in (["get"], ["diff"], ["trace", "one"], ["explain", "one"], ["validate"], ["history"], ["events"]):
        lab.run(*words)
    for words in (["get", "-o", "json"], ["explain", "one", "-o", "json"], ["trace", "one", "-o", "json"]):
        lab.run(*words)
    for form in ("text", "json", "markdown"):
        lab.run("plan", "-o", form, "-v")
    lab.run("plan", "--out", str(lab.home / "plan.json"))


def test_ss_01_a_whole_run_tells_no_value_to_anybody(lab: Lab) -> None:
    ask_everything(lab)
    assert lab.run(*ALL, "-v", "--wait").exit_code == 0
    ask_everything(lab)
    lab.fake.source.commit(an_app_folder("one", says="2"))
    assert lab.run("plan", "--out", str(lab.home / "plan.json")).exit_code == 0
    assert lab.run("apply", str(lab.home / "plan.json"), "-v").exit_code == 0
    assert lab.run(*ALL, "-o", "json").exit_code == 0
    assert lab.fake.runtime.secrets_seen["one"] == {
        "*": {"HYPHA_TOKEN": CANARIES["token"]},
        "Main": {"FROM_ENV": CANARIES["env"], "FROM_FILE": CANARIES["file"], "FROM_AGE": CANARIES["age"]},
    }, "each was read, and reached the one who needs it"
    assert lab.fake.reports.published and "FROM_AGE" in lab.everything
    assert_silent(lab.everything)


@pytest.mark.parametrize("step", ["list", "upload", "prepare", "apply", "environment", "rejected"])
@pytest.mark.parametrize("kind", [StepFailed, Unreachable, RuntimeError])
def test_ss_02_a_step_that_fails_with_the_value_in_its_error_tells_it_to_nobody(
    lab: Lab, step: str, kind: type[Exception]
) -> None:
    upstream = "; ".join(quoted(value) for value in CANARIES.values())
    match step:
        case "list" | "upload":
            lab.fake.artifacts.fail(step, kind(upstream))
        case "environment":
            lab.fake.runtime.bad_environments["one"] = upstream
        case "rejected":
            lab.fake.runtime.bad["one"] = upstream
        case _:
            lab.fake.runtime.fail(f"{step} one", kind(upstream))
    assert lab.run(*ALL, "-v").exit_code == 1 or step == "rejected"
    lab.run(*ALL, "-o", "json", "--wait", "--timeout", "1")
    ask_everything(lab)
    assert_silent(lab.everything)


def test_ss_02_a_traceback_and_its_arguments_are_masked(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    lab.fake.artifacts.fail("list", RuntimeError("; ".join(map(quoted, CANARIES.values()))))
    result = lab.run(*ALL)
    assert result.exit_code == 1 and "RuntimeError" in result.stderr
    assert_silent(result.output)
    assert caplog.records


def test_ss_01_no_representation_holds_a_value(lab: Lab) -> None:
    lab.run(*ALL)
    secrets = lab.secrets()
    tree = _fetched(lab)
    apps = declare(tree).apps
    values = secrets.resolve("one", apps["one"].secrets)
    address = address_of(HyphaSpec(token=SecretFromEnv(env="CI_TOKEN"), server_url="http://x"), lab.home, secrets)
    assert isinstance(address, Address) and address.token == CANARIES["token"]
    shown = [repr(one) for one in (values, address, secrets, apps, apps["one"].secrets, lab.fake.world)]
    shown += [str(values), f"{values}", str(dataclasses.replace(values)), repr(lab.fake.secrets)]
    assert_silent("\n".join(shown))
    assert lab.age.splitlines()[1] not in "\n".join(shown), "and not the encrypted one either"


def _fetched(lab: Lab) -> Any:
    return asyncio.run(lab.fake.source.fetch())


def test_ss_03_a_changed_value_is_a_change_that_hides_it(lab: Lab) -> None:
    lab.run(*ALL)
    assert lab.run("plan", "--detailed-exitcode").exit_code == 0
    lab.environ["CI_PASS"] = "another-1-value"
    lab.fake.secrets = lab.secrets()  # type: ignore[assignment]
    planned = lab.run("plan", "--detailed-exitcode")
    assert planned.exit_code == 2 and "env.Main.FROM_ENV" in planned.stdout and "(secret changed)" in planned.stdout
    assert lab.run(*ALL).exit_code == 0
    assert lab.run("plan", "--detailed-exitcode").exit_code == 0
    assert_silent(lab.everything, {**CANARIES, "new": "another-1-value"})


def test_ss_03_the_same_value_encrypted_anew_changes_nothing(lab: Lab) -> None:
    lab.run(*ALL)
    before = lab.age
    lab.age = encrypt(CANARIES["age"], [_recipient(lab)])
    assert lab.age != before
    lab.fake.source.commit(lab.files())
    assert lab.run("plan", "--detailed-exitcode").exit_code == 0
    lab.age = encrypt("another-1-value", [_recipient(lab)])
    lab.fake.source.commit(lab.files())
    planned = lab.run("plan", "--detailed-exitcode")
    assert planned.exit_code == 2 and "env.Main.FROM_AGE" in planned.stdout and "(secret changed)" in planned.stdout


def _recipient(lab: Lab) -> str:
    return recipient_of(read_identities(lab.home / "secrets" / "age.key")[-1])


def test_ss_04_what_is_kept_of_a_value_needs_the_key_of_this_installation(lab: Lab, tmp_path: Path) -> None:
    lab.run(*ALL)
    kept = lab.fake.runtime.apps["one"].secret_fingerprints
    key = (lab.home / "secrets" / "fingerprint.key").read_bytes()
    assert kept["Main/FROM_ENV"] == fingerprint(key, CANARIES["env"]) != fingerprint(b"other", CANARIES["env"])
    there = LocalSecrets(tmp_path / "there" / "fingerprint.key", environ=lab.environ)
    there.made_key()
    table: dict[str, dict[str, SecretRef]] = {"Main": {"FROM_ENV": SecretFromEnv(env="CI_PASS")}}
    assert there.fingerprints("one", table) != {"Main/FROM_ENV": kept["Main/FROM_ENV"]}


@pytest.mark.parametrize("into", ["plain", "secret"])
def test_ss_05_a_value_that_is_no_secret_any_more_is_still_hidden_in_that_plan(lab: Lab, into: str) -> None:
    """The Terraform leak: the mark goes away in the commit that is planned, the value is the same."""
    text = lab.files()["cluster.yaml"]
    plain = text.replace("{env: CI_PASS}", "word-4-word")
    lab.environ["CI_PASS"] = "word-4-word"
    lab.fake.source.commit({"cluster.yaml": text if into == "plain" else plain})
    assert lab.run(*ALL).exit_code == 0
    lab.fake.source.commit({"cluster.yaml": plain if into == "plain" else text})
    ask_everything(lab)
    assert lab.run("plan", "--detailed-exitcode").exit_code == 2
    assert_silent("\n".join(lab.told), {"env": "word-4-word"})


@pytest.mark.parametrize("value", ["a", "on", "lab", "true", "one", "4242", "format_version", "healthy", "10.20.30"])
def test_ss_06_a_short_or_common_value_spoils_no_output_and_is_told_to_nobody(lab: Lab, value: str) -> None:
    lab.run(*ALL)
    before = json.loads(lab.run("plan", "-o", "json").stdout)
    lab.environ["CI_PASS"] = value
    lab.fake.secrets = lab.secrets()  # type: ignore[assignment]
    after = json.loads(lab.run("plan", "-o", "json").stdout)
    assert set(after) == set(before) and "(secret)" not in json.dumps(after)
    told = lab.run("plan").stdout
    assert "(secret changed)" in told and "(secret)" not in told
    assert lab.run(*ALL).exit_code == 0 and lab.fake.runtime.secrets_seen["one"]["Main"]["FROM_ENV"] == value


@pytest.mark.parametrize("value", ["s3cr3t", "hunter-2", "longenoughtobenoword", "1234567890123456"])
def test_ss_06_what_can_be_no_word_is_masked(value: str) -> None:
    mask = Mask()
    mask.add(value)
    assert value not in mask(f"login with {value} failed, {base64.b64encode(f'a:{value}'.encode()).decode()}")


@pytest.mark.parametrize("before", range(4))
def test_the_mask_finds_a_value_in_base64_wherever_it_begins(before: int) -> None:
    mask = Mask()
    mask.add(CANARIES["token"])
    text = base64.b64encode(b"x" * before + CANARIES["token"].encode() + b"yz").decode()
    assert "(secret)" in mask(text)
    inner = base64.b64encode(CANARIES["token"].encode()).decode()[4:-4]
    assert before % 3 or inner not in mask(text)


def test_ss_07_what_cannot_be_opened_fails_its_app_alone_and_names_the_line(lab: Lab) -> None:
    lab.age = encrypt(CANARIES["age"], [new_identity()[1]])
    lab.fake.source.commit(lab.files())
    result = lab.run(*ALL)
    assert result.exit_code == 1 and set(lab.fake.runtime.apps) == {"two"}
    assert "FROM_AGE (from age:cluster.yaml:9:9: it is encrypted for another key)" in result.output
    assert lab.age.splitlines()[1] not in lab.everything
    assert_silent(lab.everything)


def test_ss_08_a_hidden_value_of_a_live_status_is_never_written_back(lab: Lab) -> None:
    """A worker that shows `*****` shows nothing: what it knows of values are fingerprints, and they are compared."""
    lab.run(*ALL)
    app_now = lab.fake.runtime.apps["one"]
    assert app_now.spec is not None
    hidden = app_now.spec.model_copy(update={"env": {"Main": {"FROM_ENV": "*****"}}})
    lab.fake.runtime.apps["one"] = app_now.model_copy(update={"spec": hidden})
    assert lab.run(*ALL).exit_code == 0
    assert lab.fake.runtime.secrets_seen["one"]["Main"]["FROM_ENV"] == CANARIES["env"]
    assert "*****" not in repr(lab.fake.runtime.secrets_seen)


def test_a_reference_that_cannot_be_read_says_why(lab: Lab) -> None:
    assert lab.secrets().read(SecretFromFile(file=str(lab.home))) is None
    lab.file.unlink()
    lab.environ.pop("CI_PASS")
    result = lab.run(*ALL)
    assert "FROM_ENV (from env:CI_PASS: it is not set)" in result.output
    assert f"FROM_FILE (from file:{lab.file}: no such file or directory)" in result.output


def test_logging_of_everything_at_debug_tells_no_value(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="reconciler"):
        lab.run(*ALL, "-v")
    assert_silent(caplog.text)
    assert sys.exc_info() == (None, None, None)
