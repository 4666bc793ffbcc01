"""The log as programs and people read it: one entry is one entry, and nothing in it is a secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest

from reconciler.telling.logs import fields, json_handler, text_handler
from reconciler.telling.runs import run, run_id

FORGED = "gone\n2026-11-21 10:00:00,000 ERROR reconciler event=step result=done\r\x1b[2K\u2028forged \u202e"


def masked(text: str) -> str:
    return text.replace("hunter2-canary", "(secret)")


@pytest.fixture
def logged() -> Iterator[Callable[[logging.Handler], logging.Logger]]:
    log = logging.getLogger("tests.telling")
    log.setLevel(logging.DEBUG)
    log.propagate = False

    def use(handler: logging.Handler) -> logging.Logger:
        log.handlers = [handler]
        return log

    yield use
    log.handlers = []


def test_json_logs_carry_the_facts_and_the_run(logged: Callable[[logging.Handler], logging.Logger]) -> None:
    out = io.StringIO()
    with run() as name:
        logged(json_handler(masked, out)).info(
            "event=step address=%r result=%s seconds=%s why=%s", "upload it's a@1", "done", 1.5, "as wanted result=x"
        )
    entry = json.loads(out.getvalue())
    assert len(name) == 8 and entry["run"] == name and run_id.get() == ""
    assert (entry["event"], entry["address"], entry["seconds"]) == ("step", "upload it's a@1", "1.5")
    assert entry["result"] == "done" and entry["why"] == "as wanted result=x"
    assert entry["level"] == "INFO" and entry["logger"] == "tests.telling" and entry["time"][10] == "T"


@pytest.mark.parametrize("make", [json_handler, text_handler])
def test_sp_11_no_message_can_forge_an_entry(
    make: Callable[..., logging.Handler], logged: Callable[[logging.Handler], logging.Logger]
) -> None:
    out = io.StringIO()
    log = logged(make(masked, out))
    log.warning("event=webhook_refused why=%s", FORGED)
    log.warning("event=webhook_refused why=%s", "\x1b[2Kgone \u202e")
    try:
        raise ValueError(FORGED)
    except ValueError:
        log.exception("event=pass_crashed")
    lines = out.getvalue().split("\n")
    assert sum("ERROR reconciler" in line and not line.startswith(("    ", "{")) for line in lines) <= 1
    assert not [line for line in lines if line.startswith("2026-11-21 10:00:00,000")]
    assert not any(mark in out.getvalue() for mark in ("\x1b", "\r", "\u2028", "\u202e"))
    if make is json_handler:
        assert [json.loads(line)["event"] for line in lines if line] == [
            "webhook_refused",
            "webhook_refused",
            "pass_crashed",
        ]


def test_sp_11_a_value_takes_no_name_that_is_taken() -> None:
    assert fields("event=a path=/x why=no event=b level=CRITICAL") == {
        "event": "a", "path": "/x", "why": "no event=b level=CRITICAL",
    }  # fmt: skip
    assert fields("event=a result=failed result=done")["result"] == "failed"
    assert fields("no event at all: a=b") == {}


def test_sp_11_a_message_takes_no_field_of_the_entry(logged: Callable[[logging.Handler], logging.Logger]) -> None:
    out = io.StringIO()
    logged(json_handler(masked, out)).info("event=a level=CRITICAL run=1 message=x time=0 msg=y name=z")
    entry = json.loads(out.getvalue())
    assert entry["level"] == "INFO" and "run" not in entry and entry["message"].startswith("event=a level=")
    assert entry["time"] != "0"


@pytest.mark.parametrize("make", [json_handler, text_handler])
def test_ss_01_logs_are_masked_in_message_fields_and_traceback(
    make: Callable[..., logging.Handler], logged: Callable[[logging.Handler], logging.Logger]
) -> None:
    out = io.StringIO()
    log = logged(make(masked, out))
    log.info("event=a address=%r why=%s", "x hunter2-canary", "hunter2-canary")
    try:
        raise ValueError("hunter2-canary")
    except ValueError:
        log.exception("event=b")
    assert "hunter2-canary" not in out.getvalue() and out.getvalue().count("(secret)") >= 3
