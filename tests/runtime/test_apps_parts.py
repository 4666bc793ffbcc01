"""The parts of the apps that need no Ray: what is asked for, what is packed, what is decided, what is sealed."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bioengine_runtime.apps import store
from bioengine_runtime.apps.errors import BadApp, Refused
from bioengine_runtime.apps.judging import Failed, Settled, Waiting, judge, lines_of, reason_of
from bioengine_runtime.apps.layer import layer_path, packages_in
from bioengine_runtime.apps.package import pack, unpack
from bioengine_runtime.apps.prepare import ArtifactFiles, code_of
from bioengine_runtime.apps.record import (
    RECORD_KEY,
    AppRecord,
    DeploymentState,
    Replica,
    Running,
    all_readable,
    running_of,
)
from bioengine_runtime.apps.requirements import doubts, lacks, packages_of, resources, total, wanted
from bioengine_runtime.apps.rollout import Facts, check, next_record
from bioengine_runtime.apps.secrets import complete, sealed_for
from bioengine_runtime.apps.sweeping import needed
from bioengine_runtime.contract.limits import MAX_FOLDER_BYTES
from bioengine_runtime.contract.manifest import AppManifest
from bioengine_runtime.sealing import Unsealable, ensure_key, read_key, seal, unseal
from tests.runtime.apps_world import a_provenance, a_spec

KEY = b"k" * 32
WORKER = "ws/worker"
FACTS = Facts("Demo", "", "Main", (), None, "package", WORKER, {"num_cpus": 1.0})


def a_record(version: str = "1", *, now: float = 100.0, **given: Any) -> AppRecord:
    fields: dict[str, Any] = {"fingerprints": {}, "running": None, "good": None, **given}
    return next_record(
        a_spec(version=version), fields["fingerprints"], a_provenance(), FACTS, fields["running"], fields["good"], now
    )


def a_running(
    record: AppRecord | None, status: Any = "RUNNING", deployment: str = "HEALTHY", message: str = ""
) -> Running:
    replica = Replica("Main", "r1", "RUNNING", 1, "n1", 1.0, "w1")
    return Running(
        "plain", status, "", record, (DeploymentState("Main", deployment, message, 1, (replica,)),), deployed_at=1.0
    )


# ── What one deployment asks for ─────────────────────────────────────────────────────────────────────────────────────


def asked(decorator: dict[str, Any], *, entry: bool = False, fingerprints: dict[str, str] | None = None, **spec: Any):
    return wanted(a_spec(**spec), "Main", decorator, fingerprints=fingerprints or {}, entry=entry)


def test_the_decorator_says_what_the_spec_does_not():
    found = asked({"ray_actor_options": {"num_cpus": 2}, "max_ongoing_requests": 7, "num_replicas": 3})
    assert found.actor_options == {"num_cpus": 2}
    assert (found.options["max_ongoing_requests"], found.options["num_replicas"]) == (7, 3)


def test_the_instance_decides_the_capacity_of_the_entry_and_the_author_that_of_the_others():
    author = {"max_ongoing_requests": 1, "max_queued_requests": 2}
    entry = asked(author, entry=True, max_ongoing_requests=4, max_queued_requests=5).options
    other = asked(author, max_ongoing_requests=4, max_queued_requests=5).options
    assert (entry["max_ongoing_requests"], entry["max_queued_requests"]) == (4, 5)
    assert (other["max_ongoing_requests"], other["max_queued_requests"]) == (1, 2)
    assert not {"max_ongoing_requests", "max_queued_requests"} & asked({}).options.keys()


def test_the_capacity_of_the_entry_is_the_instances_word_else_the_authors_else_ours():
    author = {"max_ongoing_requests": 1, "max_queued_requests": 2}
    said = asked(author, entry=True).options
    assert (said["max_ongoing_requests"], said["max_queued_requests"]) == (1, 2)
    ours = asked({"max_queued_requests": -1}, entry=True).options
    assert (ours["max_ongoing_requests"], ours["max_queued_requests"]) == (10, 100)


def test_more_requests_than_the_author_meant_are_told():
    (said,) = doubts(a_spec(max_ongoing_requests=10), "Main", {"max_ongoing_requests": 1})
    assert said.startswith("Main is written for 1 requests at once and gets 10")
    for meant in ({}, {"max_ongoing_requests": 10}, {"max_ongoing_requests": 50}):
        assert doubts(a_spec(max_ongoing_requests=10), "Main", meant) == []


def test_without_gpu_a_class_asks_for_none():
    assert asked({"ray_actor_options": {"num_gpus": 1}}, disable_gpu=True).actor_options["num_gpus"] == 0


def test_variables_of_the_class_win_over_those_for_all_and_the_decorators():
    decorator = {"ray_actor_options": {"runtime_env": {"env_vars": {"A": "0", "B": "0", "C": "0"}}}}
    found = asked(decorator, env={"*": {"B": "1", "C": "1"}, "Main": {"C": "2"}, "Other": {"D": "3"}})
    assert found.actor_options["runtime_env"]["env_vars"] == {"A": "0", "B": "1", "C": "2"}


def test_packages_leave_the_runtime_env():
    found = asked({"ray_actor_options": {"runtime_env": {"pip": ["numpy==1.26.4", "numpy==1.26.4"]}}})
    assert found.requirements == ("numpy==1.26.4",)
    assert "runtime_env" not in found.actor_options


@pytest.mark.parametrize("spelling", [{"pip": ["a"]}, {"pip": {"packages": ["a"]}}, {"uv": ["a"]}])
def test_packages_are_found_in_every_spelling(spelling: dict[str, Any]):
    assert packages_of(spelling) == ("a",)


def test_a_requirements_file_is_refused():
    with pytest.raises(BadApp, match=r"not the file \"requirements\.txt\""):
        packages_of({"pip": "requirements.txt"})


def test_a_number_of_replicas_puts_the_authors_autoscaling_aside():
    found = asked({"autoscaling_config": {"max_replicas": 3}}, replicas={"*": 2})
    assert (found.options["num_replicas"], found.options["autoscaling_config"]) == (2, None)


def test_autoscaling_of_a_class_wins_over_that_for_all():
    found = asked({"num_replicas": 3}, autoscaling={"*": {"max_replicas": 2}, "Main": {"max_replicas": 5}})
    assert found.options["num_replicas"] is None
    assert found.options["autoscaling_config"]["max_replicas"] == 5


@pytest.mark.parametrize(
    "fields",
    [
        {"authorized_users": ["a"]},
        {"auto_redeploy": True},
        {"max_ongoing_requests": 3},
        {"max_queued_requests": 3},
        {"replicas": {"*": 2}},
        {"rollout": {"test": "background"}},
    ],
)
def test_what_a_running_app_takes_over_is_not_in_its_release(fields: dict[str, Any]):
    assert asked({}, **fields).release == asked({}).release


@pytest.mark.parametrize("fields", [{"version": "2"}, {"kwargs": {"Main": {"a": 1}}}, {"env": {"*": {"A": "1"}}}])
def test_what_needs_a_new_replica_is_in_its_release(fields: dict[str, Any]):
    assert asked({}, **fields).release != asked({}).release


def test_only_the_secrets_of_a_class_are_in_its_release():
    before = asked({}).release
    assert asked({}, fingerprints={"Other/KEY": "1"}).release == before
    assert asked({}, fingerprints={"*/KEY": "1"}).release != before
    assert asked({}, fingerprints={"Main/KEY": "1"}).release != before


def test_one_replica_of_every_deployment_is_added_up():
    asked = [{"num_cpus": 2, "memory": 8}, {"num_gpus": 1}, {"num_cpus": 0}]
    assert total(asked) == {"num_cpus": 3, "num_gpus": 1, "memory": 8}


def test_what_a_node_lacks_is_named():
    assert lacks(resources({"num_gpus": 1}), {"CPU": 8}) == "1 GPU, has 0"
    assert lacks(resources({}), {"CPU": 8}) == ""


# ── Packing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_equal_files_make_equal_packages():
    assert pack({"a.py": b"1", "b/c.py": b"2"}) == pack({"b/c.py": b"2", "a.py": b"1"})
    assert pack({"a.py": b"1"}).digest != pack({"a.py": b"2"}).digest


def test_a_package_that_cannot_be_unpacked_leaves_nothing(tmp_path: Path):
    package = pack({"a.bin": b"a" * 1000, "b.bin": bytes(range(256))})
    place = package.content.rindex(bytes(range(100, 110)))
    spoiled = package.content[:place] + b"x" + package.content[place + 1 :]
    with pytest.raises(zipfile.BadZipFile, match=r"b\.bin"):
        unpack(spoiled, package.digest, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_package_is_unpacked_once(tmp_path: Path):
    package = pack({"a.py": b"1", "b/c.py": b"2"})
    first = unpack(package.content, package.digest, tmp_path)
    (first / "a.py").write_bytes(b"seen")
    assert unpack(b"not read at all", package.digest, tmp_path) == first
    assert (first / "b/c.py").read_bytes() == b"2"
    assert [path.name for path in tmp_path.iterdir()] == [package.digest]


@pytest.mark.parametrize("name", ["../a.py", "/etc/passwd", "a/../../b", "", "a\\b"])
def test_a_path_that_leaves_the_folder_is_refused(name: str):
    with pytest.raises(BadApp, match="not a path inside the app folder"):
        pack({name: b""})


def test_an_app_that_is_too_large_is_refused():
    with pytest.raises(BadApp, match="MB"):
        pack({"weights.bin": b"\0" * (MAX_FOLDER_BYTES + 1)})


@pytest.mark.parametrize(
    ("page", "left_out"),
    [
        ("page/index.html", {"page/index.html", "page/style.css"}),
        ("app/index.html", set()),  # code lies there, and what the code reads may lie beside it
        ("index.html", set()),
        (None, set()),
    ],
)
def test_the_page_is_not_packed_unless_code_lies_beside_it(page: str | None, left_out: set[str]):
    entry = {"format_version": "0.6.0", "entry": "app.main:Main", "frontend_entry": page}
    about = {"id": "a", "name": "A", "id_emoji": "🧪", "description": "", "type": "ray-serve"}
    manifest = AppManifest.model_validate({**about, **entry})
    names = {"manifest.yaml", "app/main.py", "app/labels.json", "app/index.html", "page/index.html", "page/style.css"}
    files = dict.fromkeys([*names, "index.html"], b"")
    assert files.keys() - code_of(ArtifactFiles("ws/a", "1", manifest, files)).keys() == left_out


def test_the_zip_carries_no_time():
    content = pack({"a.py": b"1"}).content
    assert zipfile.ZipFile(io.BytesIO(content)).infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)


# ── Layers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_installed_needs_no_layer(tmp_path: Path):
    assert layer_path([], tmp_path) is None
    assert layer_path(["pydantic>=2", 'pywin32; sys_platform == "win32"'], tmp_path) is None


def test_what_is_not_installed_names_a_layer_by_its_content(tmp_path: Path):
    one = layer_path(["humanize==4.9.0", "pydantic"], tmp_path)
    assert one and one == layer_path(["pydantic", "humanize==4.9.0"], tmp_path)
    assert one != layer_path(["humanize==4.9.1", "pydantic"], tmp_path)


def test_a_layer_provides_modules_and_not_their_metadata(tmp_path: Path):
    for name in ("humanize", "humanize-4.9.0.dist-info", "numpy.libs"):
        (tmp_path / name).mkdir()
    (tmp_path / "six.py").touch()
    (tmp_path / ".lock").touch()
    assert packages_in(str(tmp_path)) == {"humanize", "six"}


# ── Secrets ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sealed_text_opens_only_where_it_belongs():
    sealed = seal(KEY, b"value", b"app/Main")
    assert unseal(KEY, sealed, b"app/Main") == b"value"
    assert sealed != seal(KEY, b"value", b"app/Main")
    for key, place in ((b"x" * 32, b"app/Main"), (KEY, b"app/Other")):
        with pytest.raises(Unsealable):
            unseal(key, sealed, place)
    with pytest.raises(Unsealable):
        unseal(KEY, "nonsense", b"app/Main")


def test_the_key_is_made_once_and_for_one_reader(tmp_path: Path):
    path = tmp_path / "folder" / "key"
    assert ensure_key(path) == ensure_key(path) == read_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["key"]
    path.chmod(0o640)
    with pytest.raises(PermissionError, match="chmod 600"):
        read_key(path)


def test_every_named_secret_needs_a_value(tmp_path: Path):
    spec = a_spec(secrets={"*": ["A"], "Main": ["B"]})
    given = {"*": {"A": "1", "UNASKED": "x"}, "Main": {"B": "2"}}
    assert complete(spec, given, None, ["Main", "Other"], "no key needed") == {
        "Main": {"A": "1", "B": "2"},
        "Other": {"A": "1"},
    }
    with pytest.raises(BadApp, match="no value for the secret A of Other"):
        complete(spec, {"Main": {"A": "1", "B": "2"}}, None, ["Main", "Other"], str(tmp_path))


def test_no_secrets_are_not_sealed():
    assert sealed_for("app", "Main", {}, "no key needed") is None


# ── From one version to the next ─────────────────────────────────────────────────────────────────────────────────────


def test_a_version_that_is_up_settles():
    assert judge(a_running(a_record()), None, None, 200) == Settled()


def test_a_good_version_is_not_judged_again():
    record = a_record()
    assert judge(a_running(record, "UNHEALTHY", "UNHEALTHY"), record.release(), None, 9e9) is None


def test_what_is_not_ours_is_not_judged():
    assert judge(a_running(None, "DEPLOY_FAILED", "DEPLOY_FAILED"), None, None, 9e9) is None


def test_a_version_still_coming_up_is_waited_for():
    record = a_record()
    assert judge(a_running(record, "DEPLOYING", "UPDATING"), None, None, record.last_updated_at + 9e9) == Waiting()


def test_a_version_that_fails_is_told_with_its_reason():
    message = 'Error:\n\x1b[36mray::x\x1b[39m\n  File "a.py", line 1\nRuntimeError: no model'
    verdict = judge(a_running(a_record(), "DEPLOY_FAILED", "DEPLOY_FAILED", message), None, None, 200)
    assert isinstance(verdict, Failed)
    assert verdict.reason() == "RuntimeError: no model"
    assert verdict.lines[1] == "ray::x"


def test_an_update_that_takes_too_long_is_given_up():
    old = a_record("1")
    new = a_record("2", now=1000.0, running=a_running(old), good=old.release())
    limit = new.spec.rollout.health_timeout_s
    slow = a_running(new, "DEPLOYING", "UPDATING", "waiting for 1 GPU")
    assert judge(slow, old.release(), None, 1000 + limit - 1) == Waiting()
    verdict = judge(slow, old.release(), None, 1000 + limit + 1)
    assert isinstance(verdict, Failed)
    assert verdict.reason() == "did not come up within 600 s: waiting for 1 GPU"


def test_an_update_remembers_the_last_good_version_and_the_start():
    old = a_record("1")
    new = a_record("2", now=200.0, running=a_running(old), good=old.release())
    assert new.previous == old
    assert (new.started_at, new.last_updated_at) == (100.0, 200.0)


def test_an_update_of_an_update_that_is_not_up_yet_remembers_the_same_good_version():
    old = a_record("1")
    bad = a_record("2", running=a_running(old), good=old.release())
    new = a_record("3", running=a_running(bad, "DEPLOYING"), good=old.release())
    assert new.previous == old


def test_a_version_after_a_first_one_that_failed_has_nothing_to_go_back_to():
    assert a_record("2", running=a_running(a_record("1"), "DEPLOY_FAILED"), good=None).previous is None


def test_good_versions_do_not_pile_up_in_the_record():
    first = a_record("1")
    second = a_record("2", running=a_running(first), good=first.release())
    third = a_record("3", running=a_running(second), good=second.release())
    assert third.previous and third.previous.previous is None


def test_a_new_value_of_a_secret_is_another_release_of_the_same_digest():
    before, after = a_record(fingerprints={"*/A": "1"}), a_record(fingerprints={"*/A": "2"})
    assert before.digest == after.digest
    assert before.release() != after.release()
    assert not before.runs(after.digest, after.secret_fingerprints)


def test_a_reason_is_found_even_without_an_exception():
    assert reason_of("Deployment was stopped.\nBy hand") == "By hand"
    assert reason_of("") == "it did not start"
    assert lines_of("a\n\nb  \n") == ("a", "b")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"owner": "somebody"}, "belongs to test-cluster, not to somebody"),
        ({"worker": "ws/another"}, "looked after by another worker"),
        ({"expected": ""}, "expected none"),
        ({"expected": "f" * 64}, "not as expected"),
    ],
)
def test_a_change_that_is_not_due_is_refused(given: dict[str, str], message: str):
    fields: dict[str, Any] = {"owner": "test-cluster", "expected": None, "worker": WORKER, **given}
    with pytest.raises(Refused, match=message):
        check("plain", a_running(a_record()), **fields)


def test_a_change_that_is_due_is_not_refused():
    record = a_record()
    check("plain", a_running(record), owner="test-cluster", expected=record.digest, worker=WORKER)
    check("plain", None, owner="test-cluster", expected="", worker=WORKER)
    check("plain", a_running(record, "DELETING"), owner="somebody", expected="", worker=WORKER)
    with pytest.raises(Refused, match="was not deployed by a BioEngine worker"):
        check("plain", a_running(None), owner="test-cluster", expected=None, worker=WORKER)
    with pytest.raises(Refused, match="deployed by another release"):
        unread = replace(a_running(None), unreadable=True)
        check("plain", unread, owner="test-cluster", expected=None, worker=WORKER)


def as_serve_says(kept: dict[str, Any] | None) -> dict[str, Any]:
    config = {"user_config": kept and {RECORD_KEY: kept}}
    deployments = {"Main": {"status": "HEALTHY", "deployment_config": config}}
    return {"status": "RUNNING", "deployments": deployments, "last_deployed_time_s": 1.0}


def test_a_record_that_this_release_cannot_read_hides_its_own_app_only_and_says_nothing_of_it(
    caplog: pytest.LogCaptureFixture,
):
    written = a_record().model_dump(mode="json")
    theirs = {**written, "spec": {**written["spec"], "of_tomorrow": "sesame"}}
    kept = {"unread": theirs, "broken": {"worker": "sesame"}, "ours": written, "foreign": None}
    apps = {app_id: running_of(app_id, as_serve_says(record)) for app_id, record in kept.items()}
    assert [app_id for app_id, running in apps.items() if running.record] == ["ours"]
    assert [app_id for app_id, running in apps.items() if running.unreadable] == ["unread", "broken"]
    assert "app=unread" in caplog.text and "sesame" not in caplog.text
    running_of("unread", as_serve_says(theirs))
    assert caplog.text.count("app=unread") == 1  # it is asked every few seconds
    assert not all_readable(apps.values()) and all_readable([apps["ours"], apps["foreign"]])


def test_what_a_later_release_has_added_to_a_record_is_not_read():
    written = a_record().model_dump(mode="json")
    assert running_of("plain", as_serve_says({**written, "of_tomorrow": 1})).record == a_record()


def test_what_a_version_may_go_back_to_is_not_swept():
    old = a_record("1")
    new = a_record("2", now=200.0, running=a_running(old), good=old.release())
    named = needed({"plain": a_running(new)})
    assert {(store.BLUEPRINT, old.blueprint), (store.BLUEPRINT, new.blueprint)} <= named
    assert (store.REPLICA, "plain/Main/r1") in named
    assert (store.CODE, "package") in named
