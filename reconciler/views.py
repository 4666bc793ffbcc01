"""What one pass said, as everybody of the workspace may read it: documents for the status service and the page.

Law: no value of a parameter or variable, no e-mail address, no line of an app's log. And a report that is incomplete
cannot be read as "no drift": it says `unknown`, and its list of drifts is never empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from reconciler.planning.drift import SCHEMA
from reconciler.planning.memory import Entry
from reconciler.planning.steps import Reason

Document = dict[str, Any]

EVERYTHING = "*"
"""Stands where an app id stands, when it is not known which apps are concerned."""
NOT_SHOWN = "(not shown)"

_PRIVATE = re.compile(r"^(kwargs|env|secrets|authorized_users|hypha_token)\b")
_EMAIL = re.compile(r"([^\s@<>\"'(),;:=]+)@[A-Za-z][\w-]*(?:\.[\w-]+)*\.[A-Za-z]{2,}")
_WHOLE = ("schema", "target", "observed_at", "revision", "commit", "source_away", "gate", "workers")
_LISTS = ("conditions", "orphans", "credentials", "notes")


def status(report: Mapping[str, Any], plan: Mapping[str, Any]) -> Document:
    """How everything stands: the report, with what it says of drift in one word."""
    found = _drifts(report, plan)
    return {
        **{name: report.get(name) for name in _WHOLE},
        "complete": report["complete"],
        "drift": _verdict(found),
        "plan_id": plan.get("id", ""),
        "unseen": list(_unseen(report)),
        "apps": [{**app, "changes": [_change(one) for one in app["changes"]]} for app in report["apps"]],
        **{name: list(report.get(name, ())) for name in _LISTS},
    }


def drift(report: Mapping[str, Any], plan: Mapping[str, Any]) -> Document:
    """`reconcile.drift/v1`: one row for each field that differs without a commit that asked for it. `drift` is yes, no
    or unknown; it is no only when everything was seen."""
    found = _drifts(report, plan)
    return {
        **{name: report.get(name) for name in ("target", "observed_at", "revision")},
        "schema": SCHEMA,
        "complete": report["complete"],
        "drift": _verdict(found),
        "apps": found,
    }


def plan(document: Mapping[str, Any]) -> Document:
    """What would be done, and what is held, with the gate before it. Not to be applied as a file: it leaves out what
    only the reconciler needs."""
    whole = (
        "id", "created_at", "cluster", "source", "live", "summary", "gate", "valid_s", "longest_path_s",
        "problems", "unchanged", "unused", "ignored", "notes",
    )  # fmt: skip
    step = ("address", "kind", "app_id", "needs", "why", "drift", "effect", "wave")
    held = ("app_id", "reason", "action", "message", "fix")
    return {
        **{name: document[name] for name in whole if name in document},
        "steps": [_one(each, step) for each in document.get("steps", ())],
        "held": [_one(each, held) for each in document.get("held", ())],
    }


def story(document: Mapping[str, Any]) -> Document:
    """One app's story, without what its log says."""
    rows = [_row(row) for row in document.get("rows", ()) if row["name"] != "log"]
    return {**document, "rows": rows}


def entry(said: Entry) -> Document:
    """One line of the history."""
    return {name: getattr(said, name) for name in ("at", "by", "what", "result", "app_id", "revision", "run")}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Document:
    """What of one status is new in another: apps that changed, ids of those that are gone, conditions that turned."""
    old = {app["id"]: app for app in before["apps"]}
    held = {one["type"]: one["status"] for one in before["conditions"]}
    here = ("target", "observed_at", "revision", "complete", "drift", "plan_id", "gate", "source_away", "unseen")
    return {
        **{name: after[name] for name in here},
        "apps": [app for app in after["apps"] if old.get(app["id"]) != app],
        "gone": sorted(old.keys() - {app["id"] for app in after["apps"]}),
        "conditions": [one for one in after["conditions"] if held.get(one["type"]) != one["status"]],
    }


def public(value: Any, masked: Callable[[str], str]) -> Any:
    """The document with every text masked: secrets by `masked`, e-mail addresses but for their first part."""
    match value:
        case str():
            text = masked(value)
            return _EMAIL.sub(r"\1@…", text) if "@" in text else text
        case Mapping():
            table = cast("Mapping[str, Any]", value)
            return {key: public(item, masked) for key, item in table.items()}
        case list() | tuple():
            return [public(item, masked) for item in cast("Sequence[Any]", value)]
        case _:
            return value


# ── Parts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _verdict(found: Sequence[Document]) -> str:
    if any(row["class"] != "unknown" for row in found):
        return "yes"
    return "unknown" if found else "no"


def _drifts(report: Mapping[str, Any], plan: Mapping[str, Any]) -> list[Document]:
    rows = [
        *(row for app in report["apps"] for row in _drifts_of(app)),
        *(_row_of(app["id"], app["class"], _not_named(app)) | _origin(app) for app in report.get("orphans", ())),
        *(_ending(one) for one in report.get("credentials", ()) if one["ends"]),
    ]
    if not report["complete"]:
        rows += [_row_of(EVERYTHING, "unknown", one["why"]) for one in _unseen(report)]
    return [row | {"plan_id": plan.get("id", "")} for row in rows]


def _drifts_of(app: Mapping[str, Any]) -> Iterator[Document]:
    if not app["class"] or app["reason"] in (Reason.DRIFT_ACCEPTED, "CredentialExpiring"):
        return
    row = _row_of(app["id"], app["class"], app["message"]) | _origin(app)
    for change in [_change(one) for one in app["changes"]] or [{}]:
        yield row | {name: change[name] for name in ("path", "desired", "live") if name in change}


def _row_of(app_id: str, kind: str, message: str) -> Document:
    row = {"id": app_id, "class": kind, "path": "", "desired": None, "live": None, "since": "", "actor": ""}
    return row | {"message": message}


def _origin(app: Mapping[str, Any]) -> Document:
    return {"since": app["since"], "actor": app["actor"]}


def _not_named(app: Mapping[str, Any]) -> str:
    return f"runs here, deployed by {app['owner'] or 'nobody we know'}; git does not name it"


def _ending(credential: Mapping[str, Any]) -> Document:
    message = f"{credential['name']} ends {credential['ends']}"
    return _row_of(credential["id"], "credential", message) | {"path": f"/secrets/{credential['name']}"}


def _unseen(report: Mapping[str, Any]) -> Iterator[Document]:
    """What got no answer; after trouble with the source everything in the report is of yesterday."""
    told: Sequence[Mapping[str, Any]] = report.get("unseen", ())
    yield from ({"what": one["what"], "why": one["why"]} for one in told)
    if not told and not report["complete"]:
        conditions: Sequence[Mapping[str, Any]] = report.get("conditions", ())
        why = next((one["message"] for one in conditions if one["message"] and one["status"] != "True"), "")
        yield {"what": "everything", "why": why or "there is no newer report"}


def _change(change: Mapping[str, Any]) -> Document:
    """With its values, when they are no parameters."""
    if not _PRIVATE.match(change["field"]):
        return dict(change)
    shown = ("field", "path")
    return {name: text if name in shown or not text else NOT_SHOWN for name, text in change.items()}


def _one(each: Mapping[str, Any], names: Sequence[str]) -> Document:
    shown = {name: each[name] for name in names if name in each}
    return shown | {"changes": [_change(one) for one in each.get("changes", ())]}


def _row(row: Mapping[str, str]) -> Document:
    if row["name"] == "differs" and _PRIVATE.match(row["text"]):
        return {"name": row["name"], "text": f"{row['text'].partition(':')[0]}: {NOT_SHOWN}"}
    return dict(row)
