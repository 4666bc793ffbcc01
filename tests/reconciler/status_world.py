"""Reports as passes make them, and what each may do with the status service."""

from __future__ import annotations

from typing import Any

from reconciler.ports import Said

EVIL = "<script>window.pwned=1</script><img src=x onerror=window.pwned=2>"


def an_app(app_id: str, sync: str = "Synced", health: str = "Healthy", **more: Any) -> dict[str, Any]:
    """A row of a report."""
    row = {"id": app_id, "sync": sync, "health": health, "class": "", "reason": "", "message": "", "changes": []}
    return {**row, "since": "", "actor": "", **more}


def a_drifted_app(app_id: str = "drifted", **more: Any) -> dict[str, Any]:
    """Changed by hand: a number, a parameter and a variable."""
    told = {
        "class": "config",
        "reason": "Drifted",
        "message": "live differs from git (drift; changed by anna@lab.example.org, 2026-11-03 09:12 UTC)",
        "changes": [
            a_change("max_ongoing_requests", "50", "10"),
            a_change("kwargs.Main.greeting", '"parameter-before"', '"parameter-after"'),
            a_change("env.Main.MODE", "", '"variable-after"'),
        ],
        "since": "2026-11-03T09:12:00+00:00",
        "actor": "anna@lab.example.org",
    }
    return an_app(app_id, "OutOfSync", **{**told, **more})


def a_change(field: str, live: str, desired: str) -> dict[str, str]:
    return {"field": field, "path": "/" + field.replace(".", "/"), "live": live, "desired": desired}


def a_condition(kind: str, status: str = "True", reason: str = "AsExpected", message: str = "") -> dict[str, str]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedRevision": "main@sha1:9c1e7d2",
        "lastTransitionTime": "2026-11-21T08:00:00+00:00",
    }


def a_report(*apps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "schema": "reconcile.drift/v1",
        "target": "lab",
        "observed_at": "2026-11-21T09:00:00+00:00",
        "revision": "main@sha1:9c1e7d2",
        "commit": "9c1e7d2" + "0" * 33,
        "complete": True,
        "unseen": [],
        "apps": list(apps),
        "source_away": "",
        "plan_id": "p-9c1e7d2-ab12",
        "gate": None,
        "orphans": [],
        "credentials": [],
        "workers": None,
        "notes": [],
        "conditions": [],
        **more,
    }


def a_plan(**more: Any) -> dict[str, Any]:
    """The document of a plan with one step."""
    step = {
        "address": "update drifted",
        "kind": "update_app",
        "app_id": "drifted",
        "needs": [],
        "pre": {"digest": "d" * 64},
        "args": {"artifact_id": "ws/drifted", "secrets": {"*/PASS": "file:/run/secrets/pass"}},
        "why": "live differs from git (drift)",
        "drift": True,
        "effect": {"impact": "rolling restart", "rebuilds_env": False, "interruption_s": 0.0, "note": "no gap"},
        "changes": [{"field": "kwargs.Main.greeting", "before": '"parameter-before"', "after": '"parameter-after"'}],
    }
    return {
        "format_version": "1.0",
        "digest": "e" * 64,
        "created_at": "2026-11-21T09:00:00+00:00",
        "id": "p-9c1e7d2-ab12",
        "cluster": "lab",
        "source": {"url": "/lab", "ref": "main", "commit": "9c1e7d2" + "0" * 33, "subject": "Change"},
        "live": {"complete": True, "digest": "f" * 64, "unseen": []},
        "steps": [step],
        "held": [],
        "problems": [],
        "unchanged": [],
        "gate": None,
        **more,
    }


def a_story(app_id: str) -> dict[str, Any]:
    rows = [
        ("state", "OutOfSync, Healthy"),
        ("differs", 'kwargs.Main.greeting: "parameter-before" → "parameter-after"'),
        ("differs", "max_ongoing_requests: 50 → 10"),
        ("runs", "from 9c1e7d2 by lab; changed by anna@lab.example.org"),
        ("log", "a line of the log"),
    ]
    told = [{"name": name, "text": text} for name, text in rows]
    return {"format_version": "1.0", "id": app_id, "ok": False, "rows": told}


def said(*apps: dict[str, Any], plan: dict[str, Any] | None = None, **more: Any) -> Said:
    """What a pass says."""
    return Said(a_report(*apps, **more), a_plan() if plan is None else plan, a_story)
