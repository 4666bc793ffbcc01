"""The gate of a version that is up, without Ray: when it passes, what fails it, what its probe may answer."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import numpy as np
import pytest

from bioengine_runtime.apps.disks import KEPT_S, named_by, sweep_folder
from bioengine_runtime.apps.errors import BadApp, PrepareFailed
from bioengine_runtime.apps.judging import LONGEST_REASON, Asking, Failed, Gate, Settled, Waiting, judge, reason_of
from bioengine_runtime.apps.layer import build_layer
from bioengine_runtime.apps.package import pack, unpack
from bioengine_runtime.apps.probing import check_probe, differs
from bioengine_runtime.apps.record import AppRecord, DeploymentState, Replica, Running
from bioengine_runtime.apps.rollout import failed_and_stays, next_record
from bioengine_runtime.apps.secrets import first_end
from bioengine_runtime.contract.app import Probe
from bioengine_runtime.contract.status import Rejection
from tests.runtime.apps_world import a_provenance, a_spec
from tests.runtime.test_apps_parts import FACTS

UP_AT = 1000.0
PROBE = {"method": "ping", "expected": {"ok": True}}


def a_record(
    version: str = "2", *, running: Running | None = None, good: str | None = None, **rollout: Any
) -> AppRecord:
    spec = a_spec(version=version, rollout=rollout)
    return next_record(spec, {}, a_provenance(), FACTS, running, good, UP_AT - 10, UP_AT - 12)


def an_app(
    record: AppRecord,
    *replicas: str,
    status: Any = "RUNNING",
    health: str = "HEALTHY",
    target: int = 1,
    dead: tuple[str, ...] = (),
    message: str = "",
) -> Running:
    def those(names: tuple[str, ...], state: str) -> tuple[Replica, ...]:
        return tuple(Replica("Main", name, state, 1, "n1", 1.0, "w1") for name in names)

    one = DeploymentState(
        "Main", health, message, target, those(replicas or ("r1",), "RUNNING"), those(dead, "STOPPED")
    )
    return Running("plain", status, "", record, (one,), deployed_at=1.0)


def opened(app: Running) -> Gate:
    verdict = judge(app, None, None, UP_AT)
    assert isinstance(verdict, Waiting) and verdict.keep
    return verdict.keep


# ── Passing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_gate_being_up_is_enough():
    assert judge(an_app(a_record()), None, None, UP_AT) == Settled()


def test_ro_04_a_version_is_good_only_after_its_time():
    app = an_app(a_record(stable_s=30))
    gate = opened(app)
    assert judge(app, None, gate, UP_AT + 29) == Waiting()
    assert judge(app, None, gate, UP_AT + 30) == Settled()


def test_ro_05_the_probe_comes_first_and_once():
    app = an_app(a_record(probe=PROBE, stable_s=5))
    gate = opened(app)
    assert judge(app, None, gate, UP_AT + 9) == Asking(gate, Probe.model_validate(PROBE))
    assert judge(app, None, gate.model_copy(update={"probed": True}), UP_AT + 9) == Settled()


def test_an_update_in_place_neither_opens_the_gate_anew_nor_gives_more_time_to_start():
    before = a_record(stable_s=30)
    app = an_app(before)
    gate = opened(app)
    spec = before.spec.model_copy(update={"max_ongoing_requests": 3})
    after = next_record(spec, {}, a_provenance(), FACTS, app, None, UP_AT + 20)
    assert (after.asked_at, after.sent_at, after.last_updated_at) == (UP_AT - 12, UP_AT - 10, UP_AT + 20)
    assert judge(an_app(after), None, gate, UP_AT + 30) == Settled()


def test_another_release_has_a_gate_of_its_own():
    gate = opened(an_app(a_record("2", stable_s=30)))
    verdict = judge(an_app(a_record("3", stable_s=30)), None, gate, UP_AT + 50)
    assert isinstance(verdict, Waiting) and verdict.keep and verdict.keep.up_at == UP_AT + 50


def test_a_good_version_needs_no_gate_for_a_change_in_place():
    record = a_record(stable_s=30, probe=PROBE)
    assert judge(an_app(record), record.release(), None, UP_AT) is None


# ── Failing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def failed(app: Running, gate: Gate, after_s: float = 5.0) -> Failed:
    verdict = judge(app, None, gate, UP_AT + after_s)
    assert isinstance(verdict, Failed) and verdict.gate == gate
    return verdict


def test_ro_03_becoming_unhealthy_at_the_gate_is_failing_it():
    record = a_record(stable_s=30)
    ill = an_app(record, status="UNHEALTHY", health="UNHEALTHY", message="health check failed")
    verdict = failed(ill, opened(an_app(record)))
    assert verdict.name == "stable"
    assert verdict.reason() == (
        "Main became unhealthy 5.0 s after it came up, before it was known to be good: health check failed"
    )
    assert verdict.reason("check_health: not well").endswith("before it was known to be good: check_health: not well")


FORGED = "ValueError: x\ntime=2026-11-21 level=INFO event=deployed app=evil by=admin\r\x1b]52;c;AAAA\x07\u202e\u2028!"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (FORGED, "ValueError: x time=2026-11-21 level=INFO event=deployed app=evil by=admin ]52;c;AAAA !"),
        ("\x1b[31mred\x1b[0m  and\tblack", "red and black"),
        ("x" * 5000, "x" * (LONGEST_REASON - 1) + "…"),
    ],
)
def test_sp_11_what_an_app_says_of_itself_forges_no_line_and_reaches_no_terminal(said: str, expected: str):
    assert Failed("stable", "").reason(said) == Failed("start", "", said).reason() == expected
    assert reason_of("a traceback\nValueError: \x1b]52;c;AAAA\x07!") == "ValueError: ]52;c;AAAA !"


def test_ro_06_a_replica_that_died_is_missed_although_another_took_its_place():
    record = a_record(stable_s=30)
    gate = opened(an_app(record, "r1", "r2", target=2))
    verdict = failed(an_app(record, "r2", "r3", target=2, dead=("r1",)), gate)
    assert "a replica of Main died 5.0 s after it came up" in verdict.reason()
    assert verdict.replica and verdict.replica.replica_id == "r1"


def test_ro_13_a_replica_that_died_and_came_back_between_two_looks_is_missed_too():
    record = a_record(stable_s=30)
    gate = opened(an_app(record, "r1"))
    assert failed(an_app(record, "r2"), gate, 40).name == "stable"


def test_scaling_is_no_death():
    record = a_record(stable_s=30)
    gate = opened(an_app(record, "r1"))
    for replicas in (("r1", "r2", "r3"), ("r3",), ("r3", "r4")):
        app = an_app(record, *replicas, target=len(replicas))
        verdict = judge(app, None, gate, UP_AT + 5)
        assert isinstance(verdict, Waiting) and verdict.keep, replicas
        gate = verdict.keep
        assert gate.served == {"Main": list(replicas)}
        assert judge(app, None, gate, UP_AT + 5) == Waiting()
    assert judge(an_app(record, "r3", "r4", target=2), None, gate, UP_AT + 30) == Settled()


def test_what_failed_at_its_gate_stays_failed():
    record = a_record(stable_s=30)
    gate = opened(an_app(record)).model_copy(update={"failed": ("probe", "wrong")})
    verdict = failed(an_app(record), gate, 1e6)
    assert (verdict.name, verdict.reason()) == ("probe", "wrong")


def test_a_version_that_never_gets_back_up_at_its_gate_is_given_up():
    record = a_record(stable_s=30, health_timeout_s=60)
    gate = opened(an_app(record))
    stuck = an_app(record, status="DEPLOYING", health="UPSCALING", message="waiting for 1 GPU")
    assert judge(stuck, None, gate, UP_AT + 89) == Waiting()
    assert failed(stuck, gate, 91).reason() == "did not come up within 60 s: waiting for 1 GPU"


# ── Trying again ─────────────────────────────────────────────────────────────────────────────────────────────────────


def a_rejection(record: AppRecord, rollback: Any = "none") -> Rejection:
    return Rejection(digest=record.digest, reason="it raised", at=UP_AT, rollback=rollback)


def test_ro_04_what_failed_and_stays_is_tried_again_when_it_is_asked_for_again():
    record = a_record(stable_s=30)
    assert failed_and_stays(an_app(record), a_rejection(record), None)
    given_up = an_app(record, status="DEPLOY_FAILED")
    assert failed_and_stays(given_up, a_rejection(record, "failed"), None)
    assert failed_and_stays(given_up, None, record.release())
    brought_back = replace(given_up, record=record.model_copy(update={"previous": a_record("1")}))
    assert failed_and_stays(brought_back, a_rejection(a_record("3"), "failed"), record.release())


def test_what_runs_well_or_is_about_to_be_replaced_is_left_alone():
    good, bad = a_record("1"), a_record("2", stable_s=30)
    assert not failed_and_stays(an_app(bad), None, None)
    assert not failed_and_stays(an_app(good), a_rejection(bad, "done"), good.release())
    assert not failed_and_stays(an_app(bad, status="DEPLOY_FAILED"), a_rejection(bad, "under way"), good.release())
    undecided = bad.model_copy(update={"previous": good})
    assert not failed_and_stays(an_app(undecided, status="DEPLOY_FAILED"), None, good.release())
    other_secret = bad.model_copy(update={"secret_fingerprints": {"*/PIN": "f" * 16}})
    assert not failed_and_stays(an_app(other_secret), a_rejection(bad), None)
    assert not failed_and_stays(replace(an_app(bad, status="DEPLOY_FAILED"), record=None), None, None)


def test_ro_04_another_try_has_all_its_time_again_and_keeps_the_way_back():
    good = a_record("1")
    failing = a_record("2", running=an_app(good), good=good.release(), health_timeout_s=60)
    app = an_app(failing, status="DEPLOYING", health="UPSCALING")
    now = UP_AT + 1000
    assert isinstance(judge(app, good.release(), None, now), Failed)
    again = next_record(failing.spec, {}, a_provenance(), FACTS, app, good.release(), now, asked_at=now - 1, again=True)
    assert (again.asked_at, again.sent_at, again.previous) == (now - 1, now, good)
    assert judge(replace(app, record=again), good.release(), None, now + 59) == Waiting()


# ── The probe ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"ok": True, "more": 1}, {"ok": True}),
        ({"a": {"b": [1, {"c": 2, "d": 3}]}}, {"a": {"b": [1.0, {"c": 2}]}}),
        (1.0, 1),
        ((1, 2), [1, 2]),
        (np.float32(0.5), 0.5),
        (np.array([1, 2]), [1, 2]),
        ({"a": None}, {"a": None}),
    ],
)
def test_ro_05_a_right_answer(answer: Any, expected: Any):
    assert differs(answer, expected, "answer") == ""


@pytest.mark.parametrize(
    ("answer", "expected", "said"),
    [
        ({"ok": False}, {"ok": True}, "answer.ok is False, expected True"),
        ({"ok": 1}, {"ok": True}, "answer.ok is 1, expected True"),
        ({}, {"ok": True}, "answer has no ok"),
        ("1", 1, "answer is '1', expected 1"),
        ([1, 2], [1], "answer is a list of 2, not a list of 1"),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, "answer.a[1].b is 2, expected 3"),
        ({"token": "hidden"}, 3, "answer is a dict, expected 3"),
        (None, {"a": 1}, "answer is None, not a mapping"),
        ("x" * 200, "y", f"answer is '{'x' * 79}…, expected 'y'"),
    ],
)
def test_ro_05_a_wrong_answer_is_told_by_its_first_difference_alone(answer: Any, expected: Any, said: str):
    assert differs(answer, expected, "answer") == said


def test_a_probe_of_what_nobody_could_call_is_refused():
    methods = [{"name": "ping"}, {"name": "infer"}]
    check_probe(None, "plain", methods)
    check_probe(Probe(method="ping"), "plain", methods)
    with pytest.raises(BadApp, match=r'plain: rollout\.probe calls "pnig"; the app has infer, ping'):
        check_probe(Probe(method="pnig"), "plain", methods)


# ── Before the switch ────────────────────────────────────────────────────────────────────────────────────────────────


def test_ro_08_an_index_that_is_down_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(PrepareFailed, match=r"Failed to fetch: http://127\.0\.0\.1:9/simple/.+Connection refused"):
        build_layer(["humanize==4.9.1"], str(tmp_path / "layer"))
    assert [path.name for path in tmp_path.iterdir()] == [".layer.lock"]


# ── Tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ss_09_the_first_token_to_end_is_told():
    def a_token(**claims: Any) -> str:
        return jwt.encode(claims, "k" * 32)

    values = {
        "Main": {"HYPHA_TOKEN": a_token(exp=200)},
        "Other": {"HYPHA_TOKEN": a_token(exp=100)},
        "Third": {"HYPHA_TOKEN": "no-jwt", "KEY": a_token(exp=50)},
    }
    assert first_end(values) == 100
    assert first_end({"Main": {"HYPHA_TOKEN": a_token(sub="x")}}) is None
    assert first_end({}) is None


# ── The nodes' disks ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_nobody_needs_for_a_day_leaves_the_disk_and_what_runs_stays(tmp_path: Path):
    now = 1e9
    for name, age in (("named", 9 * KEPT_S), ("old", KEPT_S + 1), ("young", KEPT_S - 1), (".old.draft", 9 * KEPT_S)):
        (tmp_path / name / "inside").mkdir(parents=True)
        os.utime(tmp_path / name, (now - age, now - age))
    (tmp_path / ".old.lock").touch()
    os.utime(tmp_path / ".old.lock", (now - 2 * KEPT_S, now - 2 * KEPT_S))

    assert sweep_folder(tmp_path, {"named"}, now) == [".old.draft", ".old.lock", "old"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["named", "young"]
    assert (tmp_path / "named").stat().st_mtime > now  # and no other cluster on this disk takes it away
    assert sweep_folder(tmp_path / "no such folder", None, now) == []


def test_a_record_that_does_not_tell_its_layers_keeps_them_all(tmp_path: Path):
    record = a_record().model_copy(update={"package": "new", "layers": ["b"]})
    old = record.model_copy(update={"package": "old", "layers": ["a"]})
    app = an_app(record.model_copy(update={"previous": old}))
    assert named_by({"plain": app}) == ({"new", "old"}, {"a", "b"})
    assert named_by({"plain": replace(app, record=record.model_copy(update={"layers": None}))}) == ({"new"}, None)
    (tmp_path / "layer").mkdir()
    os.utime(tmp_path / "layer", (0, 0))
    assert sweep_folder(tmp_path, None, 9 * KEPT_S) == []


def test_code_that_is_used_again_is_kept_for_another_while(tmp_path: Path):
    package = pack({"a.py": b"1"})
    folder = unpack(package.content, package.digest, tmp_path)
    os.utime(folder, (0, 0))
    assert unpack(package.content, package.digest, tmp_path) == folder
    assert folder.stat().st_mtime > 0
