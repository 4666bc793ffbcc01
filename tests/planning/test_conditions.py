"""Conditions are honest: what could not be seen is Unknown, and a time stays as long as its status does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import HeldElsewhere, InvalidDesiredState, SourceUnusable, Spoiled, Unreachable
from reconciler.planning.conditions import Status, Type, of_report, of_trouble, since
from reconciler.planning.steps import Reason


def an_app(name: str = "one", sync: str = "Synced", health: str = "Healthy", reason: str = "") -> dict[str, Any]:
    return {"id": name, "sync": sync, "health": health, "reason": reason, "message": "", "changes": []}


def a_report(*apps: dict[str, Any], complete: bool = True) -> dict[str, Any]:
    unseen = [] if complete else [{"what": "apps", "why": "no answer"}]
    return {"complete": complete, "unseen": unseen, "revision": "main@sha1:9c1e7d2", "apps": list(apps)}


def judged(*apps: dict[str, Any], complete: bool = True) -> dict[Type, Status]:
    return {one.type: one.status for one in of_report(a_report(*apps, complete=complete))}


def test_all_is_well() -> None:
    found = judged(an_app("one"), an_app("two"))
    assert {kind for kind, status in found.items() if status is Status.TRUE} == {
        Type.READY,
        Type.SOURCE_READY,
        Type.HEALTHY,
        Type.CREDENTIALS_VALID,
    }


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (an_app(health="Progressing", reason="Applied"), {Type.READY: "False", Type.RECONCILING: "True"}),
        (an_app(sync="OutOfSync", reason="Drifted"), {Type.DRIFTED: "True", Type.READY: "False"}),
        (an_app(sync="OutOfSync", reason="SelfHealDisabled"), {Type.DRIFTED: "True", Type.STALLED: "True"}),
        (an_app(sync="OutOfSync", reason="BadCommit"), {Type.STALLED: "True", Type.HEALTHY: "True"}),
        (an_app(sync="OutOfSync", reason="Failed"), {Type.STALLED: "True"}),
        (an_app(sync="OutOfSync", reason="Suspended"), {Type.SUSPENDED: "True", Type.STALLED: "False"}),
        (an_app(sync="OutOfSync", reason="DependencyNotReady"), {Type.STALLED: "False", Type.RECONCILING: "True"}),
        (an_app(health="Degraded"), {Type.HEALTHY: "False", Type.READY: "False", Type.STALLED: "False"}),
        (an_app(sync="OutOfSync", health="Missing", reason="Changed"), {Type.HEALTHY: "False"}),
    ],
)
def test_what_is_amiss_is_said(app: dict[str, Any], expected: dict[Type, str]) -> None:
    found = judged(an_app("well"), app)
    assert {kind: str(found[kind]) for kind in expected} == expected


apps = st.builds(
    an_app,
    name=st.sampled_from(["one", "two"]),
    sync=st.sampled_from(["Synced", "OutOfSync", "Unknown"]),
    health=st.sampled_from(["Healthy", "Progressing", "Degraded", "Missing", "Unknown"]),
    reason=st.sampled_from(["", "Drifted", "Changed", "Applied", "Failed", *map(str, Reason)]),
)


@given(st.lists(apps, max_size=4))
def test_an_incomplete_report_never_says_that_all_is_well(found: list[dict[str, Any]]) -> None:
    conditions = judged(*found, complete=False)
    assert conditions[Type.READY] is Status.UNKNOWN
    assert conditions[Type.HEALTHY] is not Status.TRUE
    assert conditions[Type.DRIFTED] is not Status.FALSE


@given(st.lists(apps, max_size=4), st.booleans())
def test_every_type_is_judged_once(found: list[dict[str, Any]], complete: bool) -> None:
    for judgement in (of_report(a_report(*found, complete=complete)), of_trouble(Unreachable("git is away"))):
        assert sorted(one.type for one in judgement) == sorted(Type)


def test_without_a_source_nothing_is_known() -> None:
    trouble = of_trouble(SourceUnusable("main is gone\x1b[31m"))
    found = {one.type: one.status for one in trouble}
    assert found[Type.SOURCE_READY] is Status.FALSE and found[Type.STALLED] is Status.TRUE
    assert found[Type.READY] is Status.UNKNOWN and found[Type.DRIFTED] is Status.UNKNOWN
    assert "\x1b" not in "".join(one.message for one in trouble)


@pytest.mark.parametrize(
    ("error", "reason", "source", "stalled"),
    [
        (SourceUnusable("main is gone"), "SourceUnusable", "False", "True"),
        (InvalidDesiredState([]), "SourceUnusable", "False", "True"),
        (Unreachable("Hypha does not answer"), "Unreachable", "Unknown", "False"),
        (Spoiled("written by another"), "PersonNeeded", "Unknown", "True"),
        (HeldElsewhere(None), "PersonNeeded", "Unknown", "True"),
        (KeyError("s3cr3t"), "PassCrashed", "Unknown", "True"),
    ],
)
def test_a_trouble_is_laid_at_the_door_it_came_from(error: Exception, reason: str, source: str, stalled: str) -> None:
    found = {one.type: one for one in of_trouble(error)}
    assert (found[Type.SOURCE_READY].status, found[Type.STALLED].status) == (source, stalled)
    assert found[Type.RECONCILING].status != stalled
    assert {one.reason for one in found.values()} == {reason}
    assert "s3cr3t" not in "".join(one.message for one in found.values())


def test_a_status_keeps_the_time_at_which_it_began() -> None:
    first = since(of_report(a_report(an_app())), (), revision="a", now="10:00")
    second = since(of_report(a_report(an_app(health="Degraded"))), first, revision="b", now="11:00")
    times = {one.type: one.since for one in second}
    assert (times[Type.READY], times[Type.HEALTHY], times[Type.SOURCE_READY]) == ("11:00", "11:00", "10:00")
    assert {one.revision for one in second} == {"b"}
    assert second[0].document()["lastTransitionTime"] == "11:00"
