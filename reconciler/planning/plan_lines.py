"""A plan as lines of JSON, one thing each, for pipelines that read while it is written.

`plan_started`, then a line for each `planned` step, each `held` difference, each `problem` and each thing `unseen`, in
the plan's order, then `summary`. Together they say what the document of plan_file says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reconciler.planning import plan_file
from reconciler.planning.steps import Plan

_HEAD = ("id", "created_at", "cluster", "source", "since", "worker", "options", "digest", "plan_digest", "valid_s")
_LISTS = {"steps": "planned", "held": "held", "problems": "problem"}


def lines(plan: Plan, created_at: str) -> Iterator[dict[str, Any]]:
    """Each is one line."""
    document = plan_file.to_json(plan, created_at)
    version = document["format_version"]
    yield {"event": "plan_started", "format_version": version, **{name: document[name] for name in _HEAD}}
    for name, kind in _LISTS.items():
        yield from ({"event": kind, **item} for item in document[name])
    yield from ({"event": "unseen", **item} for item in document["live"]["unseen"])
    rest = document.keys() - {"format_version", "live", *_HEAD, *_LISTS}
    live = {"complete": document["live"]["complete"], "live_digest": document["live"]["digest"]}
    yield {"event": "summary", **live, **{name: document[name] for name in sorted(rest)}}
