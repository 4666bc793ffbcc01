"""What people and programs read: text, comment, document, report."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from reconciler.planning import drift, plan_file, render_markdown, render_text
from reconciler.planning.planner import plan
from reconciler.planning.shown import count, listed, plain, size
from reconciler.planning.steps import Outcome, Plan, PlanOptions, Result
from tests.builders import (
    COMMIT,
    OLD_COMMIT,
    a_desired,
    a_live,
    a_problem,
    a_revision,
    a_status,
    a_world,
    an_app,
    an_artifact,
    some_code,
)

HOSTILE = "\x1b]8;;http://evil\x07x\x1b[31m\r\n\u202e @everyone | `x` <script> ](javascript:1) \u2028end"


def some_plan(**desired: Any) -> Plan:
    new, old = an_app(code=some_code(content="v2")), an_app(commit=OLD_COMMIT)
    live = a_live(a_status(old), a_status(an_app("gone")), artifacts=[an_artifact(old)])
    return plan(a_desired(new, an_app("second"), **desired), live, {}, PlanOptions())


def hostile_plan() -> Plan:
    return some_plan(
        revision=a_revision(subject=HOSTILE),
        changed={"apps/demo-app": (COMMIT, HOSTILE)},
        broken={"bad": (a_problem("bad", HOSTILE),)},
        unused=(f"apps/{HOSTILE}",),
    )


# ── text ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("users", "text"),
    [
        (["*"], "everybody"),
        ([], "only the deployer and admins"),
        ({}, "only the deployer and admins"),
        (["anna@lab.example", "ben"], "anna@lab.example, ben, the deployer and admins"),
        (
            {"*": ["anna@lab.example"], "ping": ["*"], "reset": []},
            "ping: everybody; reset: only the deployer and admins; others: anna@lab.example, the deployer and admins",
        ),
    ],
)
def test_a_new_app_says_who_may_call_it(users: Any, text: str) -> None:
    assert render_text.callers(users) == text
    made = plan(a_desired(an_app(authorized_users=users)), a_live(), {}, PlanOptions())
    assert f"callers  {text}" in render_text.render(made, command="").plain


def test_the_last_line_is_the_next_command() -> None:
    assert (
        render_text.render(some_plan(), command="reconcile apply .").plain.splitlines()[-1] == "    reconcile apply ."
    )


def test_a_plan_with_nothing_to_do_says_so() -> None:
    text = render_text.render(plan(*a_world(an_app()), {}, PlanOptions()), command="reconcile get").plain
    assert "Unchanged: 1 app.\nPlan: 0 to create, 0 to update, 0 to stop.\n" in text
    assert text.endswith("Nothing to apply. Next:\n    reconcile get")


def test_text_from_the_repository_cannot_drive_a_terminal() -> None:
    text = render_text.render(hostile_plan(), command="x").plain
    assert all(line.isprintable() for line in text.split("\n"))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2028]", text)


def test_what_is_unseen_has_a_line_of_its_own() -> None:
    made = plan(a_desired(an_app()), a_live(unseen=["apps"]), {}, PlanOptions())
    assert "Unknown: apps (no answer within 10 s)." in render_text.render(made, command="").plain


def test_colour_only_repeats_what_symbol_and_word_say() -> None:
    made = some_plan()
    text = render_text.render(made, command="x").plain
    for step in made.steps:
        if step.address.startswith(("deploy", "update", "stop")):
            symbol, word = render_text.heading(step)
            assert re.search(rf"^  {re.escape(symbol)} +{step.app_id} +{word}$", text, re.MULTILINE)


# ── comment ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_comment_begins_with_its_marker() -> None:
    assert render_markdown.render(some_plan()).startswith("<!-- reconcile:prod -->\n")


def test_text_from_the_repository_cannot_format_or_notify() -> None:
    comment = render_markdown.render(hostile_plan())
    table = comment.partition("<details>")[0]
    for sign in ("@everyone", "<script>", "](", "`x`", "javascript:"):
        assert sign not in table
    assert "<" not in comment.partition("<pre>")[2].partition("</pre>")[0]
    for row in table.splitlines():
        if row.startswith("|"):
            assert row.count("|") == 6


def test_the_comment_is_never_too_long() -> None:
    apps = [an_app(f"app-{n:04}", kwargs={"Main": {"x": "y" * 200}}) for n in range(700)]
    made = plan(a_desired(*apps), a_live(), {}, PlanOptions())
    comment = render_markdown.render(made)
    assert len(comment) <= render_markdown.LIMIT
    assert "more rows" in comment
    assert comment.count("<pre>") == comment.count("</pre>") == 1
    assert comment.count("<details>") == comment.count("</details>") == 1


def test_nothing_to_do_is_one_line() -> None:
    assert "\nNothing to do." in render_markdown.render(plan(*a_world(an_app()), {}, PlanOptions()))


# ── document ───────────────────────────────────────────────────────────────────────────────────────────────────────


def saved(made: Plan) -> dict[str, Any]:
    return json.loads(json.dumps(plan_file.to_json(made, "2026-01-01T00:00:00Z")))


def test_the_time_is_no_part_of_a_plan_and_a_part_of_its_file() -> None:
    made = some_plan()
    one, other = plan_file.to_json(made, "a"), plan_file.to_json(made, "b")
    assert (one["plan_digest"], one["id"]) == (other["plan_digest"], other["id"])
    assert one["digest"] != other["digest"]


@pytest.mark.parametrize("edit", ["why", "args", "message", "options", "digest", "created_at"])
def test_sp_03_an_edited_plan_is_found_out(edit: str) -> None:
    """SP-07, too: who may not confirm deletions cannot write a confirmation into the file."""
    made = some_plan()
    document = saved(made)
    match edit:
        case "why":
            document["steps"][0]["why"] = "harmless"
        case "args":
            document["steps"][0]["args"]["version"] = "9"
        case "message":
            document["held"][0]["message"] = "harmless"
        case "created_at":
            document["created_at"] = "2027-01-01T00:00:00Z"
        case "options":
            document["options"]["prune_confirmed"] = 99
        case _:
            document["digest"] = "sha256:0"
    assert plan_file.differences(document, made)


def test_an_edited_plan_with_a_mended_digest_is_found_out_too() -> None:
    made = some_plan()
    document = saved(replace(made, steps=made.steps[:1]))
    said = plan_file.differences(document, made)
    assert said and all(line.endswith("is new") for line in said)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"revision": a_revision(commit="f" * 40)}, "the source moved from 9c1e7d2 to fffffff"),
        ({"cluster": "other"}, "it is for cluster prod, not other"),
        ({"live_digest": "sha256:0"}, "what runs or is stored changed since"),
        ({"options": PlanOptions(force=True)}, "it was made with other options"),
        ({"steps": ()}, "is gone"),
        ({"held": ()}, "held gone is gone"),
    ],
)
def test_sp_04_of_a_plan_for_something_else_what_moved_is_named(fields: dict[str, Any], said: str) -> None:
    made = some_plan()
    assert said in "\n".join(plan_file.differences(saved(made), replace(made, **fields)))


def test_wording_makes_no_plan_stale() -> None:
    made = some_plan()
    assert plan_file.differences(saved(made), replace(made, notes=("demo-app is UNHEALTHY",))) == ()


@pytest.mark.parametrize(
    "document", [{}, {"format_version": "2.0"}, {"format_version": "1.0"}, {"format_version": "1.0", "source": 3}]
)
def test_what_is_not_a_plan_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a plan"):
        plan_file.from_json(document)


def test_a_saved_plan_says_how_to_make_it_again() -> None:
    made = replace(some_plan(), options=PlanOptions(frozenset({"a", "b"}), 2, True))
    again = plan_file.from_json(saved(made))
    assert (again.commit, again.ref, again.cluster, again.options) == (COMMIT, "main", "prod", made.options)


# ── report ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def app_of(report: dict[str, Any], app_id: str) -> dict[str, Any]:
    return next(app for app in report["apps"] if app["id"] == app_id)


@pytest.mark.parametrize(
    ("result", "sync", "health", "reason"),
    [
        (None, "OutOfSync", "Healthy", "Changed"),
        (Result.DONE, "Synced", "Progressing", "Applied"),
        (Result.FAILED, "OutOfSync", "Healthy", "Failed"),
        (Result.SKIPPED, "OutOfSync", "Healthy", "Skipped"),
    ],
)
def test_an_app_stands_where_its_step_ended(result: Result | None, sync: str, health: str, reason: str) -> None:
    app, live = an_app(max_ongoing_requests=3), a_live(a_status(an_app(commit=OLD_COMMIT)))
    outcomes = [Outcome("update demo-app", result, "so it was")] if result else []
    found = app_of(drift.report(plan(a_desired(app), live, {}, PlanOptions()), live, outcomes), "demo-app")
    assert (found["sync"], found["health"], found["reason"]) == (sync, health, reason)
    (change,) = found["changes"]
    assert change == {
        "field": "max_ongoing_requests",
        "path": "/max_ongoing_requests",
        "live": "as the code says",
        "desired": "3",
    }


def test_an_incomplete_report_cannot_be_read_as_no_drift() -> None:
    live = a_live(unseen=["apps"])
    report = drift.report(plan(a_desired(an_app()), live, {}, PlanOptions()), live)
    assert report["complete"] is False
    assert (app_of(report, "demo-app")["sync"], app_of(report, "demo-app")["health"]) == ("Unknown", "Unknown")


@pytest.mark.parametrize(
    ("status", "updating", "health"),
    [
        ("RUNNING", False, "Healthy"),
        ("RUNNING", True, "Progressing"),
        ("DEPLOYING", False, "Progressing"),
        ("UNHEALTHY", False, "Degraded"),
        ("DEPLOY_FAILED", False, "Degraded"),
        ("DELETING", False, "Progressing"),
    ],
)
def test_health_is_told_from_the_status(status: str, updating: bool, health: str) -> None:
    assert drift.health(a_status(an_app(), status=status, updating=updating)) == health


def test_the_workers_stand_in_the_report() -> None:
    desired = a_desired(compute={"mode": "slurm", "workers": {"min": 1, "max": 4}})
    live = a_live(mode="slurm", workers={"min": 0, "max": 4})
    workers = drift.report(plan(desired, live, {}, PlanOptions()), live)["workers"]
    assert workers["changes"] == [{"field": "workers", "path": "", "live": "0…4", "desired": "1…4"}]


# ── small words ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_numbers_have_the_right_word() -> None:
    assert (count(1, "app"), count(2, "app"), count(1000, "app")) == ("1 app", "2 apps", "1,000 apps")
    assert (size(12), size(214_000), size(2_500_000)) == ("12 B", "214 kB", "2.5 MB")
    assert listed([str(n) for n in range(10)], limit=4) == "0, 1, 2 and 7 more"


def test_plain_text_is_one_printable_line() -> None:
    assert plain("a\n\tb\x1b\u202e") == "a  b��"
    assert plain("abcdef", 4) == "abc…"
