"""`-o jsonl`: every step is followed from its start to its end, and each line stands for itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bioengine_runtime.contract.status import Rejection
from reconciler.cli.lines import JsonLines
from reconciler.cli.show import Screen
from reconciler.planning.steps import PlanOptions
from reconciler.reconcile import carry_out, look
from reconciler.settle import Settled, Verdict, judge, reconcile_until_settled
from tests.builders import a_status, an_app
from tests.fakes import FakeSource, FakeWorld, a_repository


async def followed(fake: FakeWorld, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    screen = Screen(masked=lambda text: text.replace("xK9-canary", "(secret)"))
    lines = JsonLines(screen)
    seen = await look(fake.world, PlanOptions())
    lines.begin(seen.plan)
    done = await carry_out(fake.world, seen, tell=lines)
    waited = await reconcile_until_settled(fake.world, PlanOptions(), done, timeout_s=5, tell=lines, every_s=0.01)
    lines.settled(waited.apps.values())
    lines.summary(done.outcomes, complete=True, exit_code=0 if waited.ok else 1)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def test_every_step_is_followed(capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeWorld(FakeSource(a_repository("one", "two")))
    fake.runtime.bad_environments["two"] = "no solution"
    events = await followed(fake, capsys)
    assert events[0]["event"] == "plan_started" and len(events[0]["steps"]) == 6
    assert events[0]["plan_id"].startswith("p-") and events[-1]["event"] == "summary"
    ends = {
        one["address"]: one["event"] for one in events if one["event"] in ("step_done", "step_failed", "step_skipped")
    }
    assert sorted(ends.values()) == sorted(["step_done"] * 4 + ["step_failed", "step_skipped"])
    for address, ended in ends.items():
        began = [one for one in events if one.get("address") == address and one["event"] == "step_started"]
        assert bool(began) == (ended != "step_skipped")
    assert {one["message"] for one in events if one["event"] == "step_failed"} == {"no solution"}
    assert {one["app_id"]: one["verdict"] for one in events if one["event"] == "app_settled"} == {"one": "healthy"}
    assert (events[-1]["done"], events[-1]["failed"], events[-1]["skipped"]) == (4, 1, 1)
    assert events[-1]["exit_code"] == 1
    assert all(one["format_version"].startswith("1.") and one["time"] for one in events)


async def test_sp_11_a_message_stays_in_its_line_and_ss_01_masked(capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeWorld(FakeSource(a_repository("one")))
    fake.runtime.bad_environments["one"] = 'no\n{"event": "summary", "failed": 0}\u2028 xK9-canary'
    screen_events = await followed(fake, capsys)
    assert [one["event"] for one in screen_events].count("summary") == 1
    assert "xK9-canary" not in json.dumps(screen_events)


def test_an_app_that_went_back_says_what_serves(capsys: pytest.CaptureFixture[str]) -> None:
    lines = JsonLines(Screen())
    lines.settled([Settled("one", Verdict.REJECTED, "its probe failed", (), "1.0.0-gabc", rolled_back=True)])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["event"] for one in events] == ["rolled_back", "app_settled"] and events[0]["serves"] == "1.0.0-gabc"


def test_an_app_on_its_way_back_is_waited_for() -> None:
    app = an_app()
    good = a_status(app)
    for rollback, verdict in (("under way", Verdict.WAITING), ("done", Verdict.REJECTED), ("none", Verdict.REJECTED)):
        rejected = Rejection(digest="sha256:new", reason="not well", at=1.0, gate="stable", rollback=rollback)  # pyright: ignore[reportArgumentType]
        judged = judge(app.app_id, "sha256:new", good.model_copy(update={"rejected": rejected}))
        assert judged.verdict is verdict and judged.rolled_back == (rollback == "done")
        assert judged.serves == ("" if verdict is Verdict.WAITING else app.spec.version)
