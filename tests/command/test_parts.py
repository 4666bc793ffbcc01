"""The parts that only think: new lines, typed arguments, readable results, remote errors, and when an app is up."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from bioengine_runtime.command.lines import Follower, Origin, lines_of, new_lines
from bioengine_runtime.command.show import clean
from bioengine_runtime.command.trouble import Said, said
from bioengine_runtime.command.values import jsonable, readable, signature, typed
from bioengine_runtime.command.waiting import Coming, Failed, Up, judged
from bioengine_runtime.command.words import age, memory, number
from tests.command.fake_worker import a_deployment, an_app, remote

# ── Lines ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ([], ["a", "b"], ["a", "b"]),
        (["a", "b"], ["a", "b"], []),
        (["a", "b"], ["a", "b", "c"], ["c"]),
        (["a", "b", "c"], ["b", "c", "d"], ["d"]),
        (["a", "a"], ["a", "a", "a"], ["a"]),
        (["a", "half"], ["a", "half a line"], ["half a line"]),
        (["a", "b"], ["x", "y"], ["x", "y"]),
        (["a"], [], []),
    ],
    ids=["first", "same", "more", "moved-on", "repeated", "half-written", "another-file", "gone"],
)
def test_each_line_is_told_once(before: list[str], now: list[str], new: list[str]) -> None:
    assert new_lines(before, now) == new


def test_replicas_are_followed_apart() -> None:
    follower, one, two = Follower(), Origin("A", "r1", "stderr"), Origin("A", "r2", "stderr")
    assert follower.fresh({one: ["x"]}) == {one: ["x"]}
    assert follower.fresh({one: ["x"], two: ["x"]}) == {two: ["x"]}


@pytest.mark.parametrize(
    ("logs", "found"),
    [
        (
            {"r1": {"stdout": ["o"], "stderr": ["e"], "timezone": "UTC"}},
            {("r1", "stdout"): ["o"], ("r1", "stderr"): ["e"]},
        ),
        ({"error": "no such node"}, {("", "error"): ["no such node"]}),
        ({"r1": {"error": "gone"}}, {("r1", "error"): ["gone"]}),
        ({"r1": ["a\n", "b"]}, {("r1", ""): ["a", "b"]}),
        ("a\nb", {("", ""): ["a", "b"]}),
        (None, {}),
    ],
    ids=["replicas", "error", "error-of-one", "list", "text", "none"],
)
def test_lines_are_found_in_every_shape_that_workers_tell(logs: Any, found: dict[tuple[str, str], list[str]]) -> None:
    wanted = {Origin("Demo", *key): lines for key, lines in found.items()}
    assert lines_of({"deployments": {"Demo": {"logs": logs}}}) == wanted


# ── Values ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("3", None, 3),
        ("-2.5e1", None, -25.0),
        ("true", None, True),
        ("False", None, False),
        ("cyto3", None, "cyto3"),
        ("nan", None, "nan"),
        ("1_000", None, "1_000"),
        ("[1]", None, "[1]"),
        ("007", {"type": "string"}, "007"),
        ("true", {"anyOf": [{"type": "string"}, {"type": "null"}]}, "true"),
        ("[1, 2]", {"type": "array"}, [1, 2]),
        ('{"a": 1}', {"anyOf": [{"type": "object"}, {"type": "null"}]}, {"a": 1}),
        ("null", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, None),
    ],
)
def test_an_argument_takes_the_type_that_the_method_wants(text: str, schema: Any, value: Any) -> None:
    found = typed(text, schema)
    assert found == value and type(found) is type(value)


def test_programs_get_every_element_and_people_a_sentence() -> None:
    image = numpy.zeros((512, 512), "uint16")
    image[0, 0] = 431
    assert readable({"mask": image}) == '{\n  "mask": "<array 512×512 uint16, 0 … 431, mean 0.001644>"\n}'
    assert readable(numpy.eye(2)) == "[\n  [\n    1.0,\n    0.0\n  ],\n  [\n    0.0,\n    1.0\n  ]\n]"
    assert jsonable(image, whole=True)[0][:2] == [431, 0]


def test_json_stays_json() -> None:
    value = {"score": numpy.float32(0.5), "n": numpy.int64(3), "no": float("nan"), "raw": b"\xff", 1: (True, None)}
    assert jsonable(value, whole=True) == {"score": 0.5, "n": 3, "no": None, "raw": "/w==", "1": [True, None]}


def test_a_result_for_people() -> None:
    assert (readable("pong"), readable(None), readable(b"abc"), readable(3)) == ("pong", "none", "<3 bytes>", "3")


def test_what_an_app_answers_cannot_drive_the_terminal() -> None:
    """Caught: a text was printed as it came; it could set the title and the clipboard, and clear the screen."""
    assert readable("ok \x1b]0;owned\x07\x1b[2J\nline two\x9b2J") == "ok \nline two�2J"
    assert readable({"a": "\x9b2J"}) == '{\n  "a": "�2J"\n}'


def test_a_signature_says_what_a_caller_must_and_may_give() -> None:
    properties = {
        "image": {"type": "array", "items": {"type": "number"}},
        "model": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "mode": {"enum": ["fast", "good"], "default": "good"},
        "more": {},
    }
    schema = {"parameters": {"properties": properties, "required": ["image"]}}
    wanted = "segment(image: list[float], model: str | None = None, mode: 'fast' | 'good' = 'good', more = …)"
    assert signature("segment", schema) == wanted
    assert signature("segment", None) == "segment(…)"


def test_what_is_not_known_is_a_dash() -> None:
    assert [show("NA") for show in (number, memory, age)] == ["-", "-", "-"]
    assert [show(None) for show in (number, memory, age)] == ["-", "-", "-"]
    assert (number(0.5), memory(1.5 * 2**30), age(100, now=100 + 7300)) == ("0.5", "1.5 GiB", "2h")


# ── Errors ─────────────────────────────────────────────────────────────────────────────────────────────────────────


HOWS = ["bare", "sync", "async"]


@pytest.mark.parametrize("how", HOWS)
def test_a_remote_error_is_its_type_and_its_text(how: str) -> None:
    assert said(remote("ValueError", "no such image: x.tif", how)) == Said("ValueError", "no such image: x.tif")
    assert said(remote("KeyError", "'nokey'", how)) == Said("KeyError", "nokey")


@pytest.mark.parametrize("how", HOWS)
def test_a_text_of_several_lines_becomes_one_line(how: str) -> None:
    error = remote("pkg.BadApp", "No solution found:\n  numpy==99 is not there\nx.tif", how)
    assert said(error) == Said("BadApp", "No solution found: numpy==99 is not there x.tif")


def test_an_error_of_our_own_is_read_too() -> None:
    refused = "Authentication error: Error decoding token headers."
    assert said(ConnectionAbortedError(refused)) == Said("ConnectionAbortedError", refused)
    assert said(ConnectionError("closed")) == Said("ConnectionError", "closed")
    assert said(TimeoutError()) == Said("TimeoutError", "")
    assert said(OSError("[Errno 111] Connect call failed")) == Said("OSError", "[Errno 111] Connect call failed")


def test_nothing_that_others_write_moves_the_cursor() -> None:
    assert clean("\x1b[31mred\x1b[0m\x1b]0;title\x07 \x08ok\ttab") == "red �ok\ttab"


# ── Up or not ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, Up),
        ({"status": "DEPLOYING"}, Coming),
        ({"deployments": {"Demo": a_deployment("UPDATING", STARTING=1)}}, Coming),
        ({"service_ids": [{"websocket_service_id": None, "webrtc_service_id": None}]}, Coming),
        ({"service_ids": {"websocket_service_id": "w/c:demo", "webrtc_service_id": None}}, Up),
        ({"status": "UNHEALTHY"}, Coming),
        ({"status": "DEPLOY_FAILED", "message": "no GPU"}, Failed),
        ({"version": "0.9.0"}, Failed),
        ({"rejected_version": {"reason": "it raised", "log_lines": ["boom"]}}, Failed),
        ({"rejected_version": {"reason": "it raised"}, "status": "DEPLOYING"}, Coming),
    ],
)
def test_an_app_is_up_when_callers_are_served_by_what_was_asked_for(changes: dict[str, Any], kind: type) -> None:
    assert isinstance(judged(an_app("demo", **changes), None, "1.0.0"), kind)


def test_a_rejection_from_before_says_nothing_about_this_deploy() -> None:
    old = an_app("demo", rejected_version={"reason": "last week"})
    assert judged(old, before=old) == Up()
