"""Apps and app folders as tables, and one app in full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from bioengine_runtime.command.lines import lines_of
from bioengine_runtime.command.show import cells, clean, marked, table_of
from bioengine_runtime.command.waiting import Status, service_id, the_point
from bioengine_runtime.command.words import age, memory, number

FEW = 4


def apps_table(statuses: Mapping[str, Status]) -> Table:
    """One app per row."""
    table = table_of("APP", "STATUS", "VERSION", "REPLICAS", "CPU", "GPU", "MEMORY", "AGE", "METHODS", "SERVICE")
    for app_id, status in statuses.items():
        resources = status.get("application_resources") or {}
        table.add_row(
            *cells(
                app_id,
                marked(str(status.get("status"))),
                status.get("version"),
                replicas(status),
                number(resources.get("num_cpus")),
                number(resources.get("num_gpus")),
                memory(resources.get("memory") or None),
                age(status.get("start_time")),
                few(status.get("available_methods") or []),
                service_id(status),
            )
        )
    return table


def app_in_full(app_id: str, status: Status) -> Iterator[Text]:
    """Everything that is told of one app, but for its lines."""
    yield Text.assemble((clean(app_id), "bold"), f"  {clean(str(status.get('display_name') or ''))}")
    resources = status.get("application_resources") or {}
    facts: list[tuple[str, Any]] = [
        ("Status", marked(str(status.get("status")))),
        ("Rejected", (status.get("rejected_version") or {}).get("reason")),
        ("About", status.get("description")),
        ("Artifact", _artifact(status)),
        ("Methods", ", ".join(status.get("available_methods") or [])),
        ("WebSocket", service_id(status)),
        ("WebRTC", _webrtc(status)),
        ("Page", status.get("static_site_url")),
        ("Resources", _resources(resources)),
        ("Started", _ago(status.get("start_time"))),
        ("Updated", _updated(status)),
        ("Users", _rules(status.get("authorized_users"))),
        ("Variables", _rules(status.get("application_env_vars"))),
    ]
    for name, value in facts:
        if value:
            *_, shown = cells(value)
            yield Text.assemble(f"  {name + ':':12}", shown)
    if not status.get("deployments") and status.get("message"):
        yield Text(f"  {clean(str(status['message']))}")
    for name, told in (status.get("deployments") or {}).items():
        states = ", ".join(f"{count} {state}" for state, count in (told.get("replica_states") or {}).items())
        yield Text.assemble(f"  {clean(name)}: ", marked(str(told.get("status"))), clean(f"  {states}"))
        for line in the_point(str(told.get("message") or "")).splitlines():
            yield Text(f"    {clean(line)}")


def log_lines(status: Status, *, last: int | None = None) -> Iterator[Text]:
    """Lines with who wrote them; of each replica and stream the last ones only."""
    for origin, lines in lines_of(status).items():
        for line in lines[-last:] if last else lines:
            yield log_line(str(origin), line)


def log_line(origin: str, line: str) -> Text:
    return Text.assemble((f"{clean(origin)} | ", "cyan"), clean(line))


def artifacts_table(artifacts: Mapping[str, Mapping[str, Any]], running: Mapping[str, Status]) -> Table:
    """One app folder per row."""
    table = table_of("ARTIFACT", "NAME", "VERSION", "VERSIONS", "FILES", "RUNS AS")
    for artifact_id, told in sorted(artifacts.items()):
        record = told.get("manifest") or {}
        manifest = record.get("manifest") or record
        versions = record.get("versions") or []
        runs_as = [app_id for app_id, status in running.items() if status.get("artifact_id") == artifact_id]
        table.add_row(
            *cells(
                artifact_id,
                manifest.get("name"),
                versions[-1]["version"] if versions else manifest.get("version"),
                len(versions),
                len(told.get("files") or []),
                ", ".join(runs_as),
            )
        )
    return table


def replicas(status: Status) -> str:
    """`2 of 3` running."""
    states: Counter[str] = Counter()
    for told in (status.get("deployments") or {}).values():
        states.update(told.get("replica_states") or {})
    return f"{states['RUNNING']} of {states.total()}" if states else ""


def few(names: list[str]) -> str:
    rest = len(names) - FEW
    return ", ".join(names[:FEW]) + (f" +{rest}" if rest > 0 else "")


def _artifact(status: Status) -> str:
    return " ".join(str(part) for part in (status.get("artifact_id"), status.get("version")) if part)


def _webrtc(status: Status) -> str | None:
    told = status.get("service_ids") or []
    all_of_them = [told] if isinstance(told, Mapping) else told
    return next((one["webrtc_service_id"] for one in all_of_them if one.get("webrtc_service_id")), None)


def _resources(told: Mapping[str, Any]) -> str:
    known = [
        (number(told.get("num_cpus")), "CPU"),
        (number(told.get("num_gpus")), "GPU"),
        (memory(told.get("memory") or None), "memory"),
    ]
    return ", ".join(f"{amount} {what}" for amount, what in known if amount != "-")


def _ago(since: object) -> str:
    return f"{age(since)} ago" if age(since) != "-" else ""


def _updated(status: Status) -> str:
    by = status.get("last_updated_by")
    ago = _ago(status.get("last_updated_at"))
    return f"{ago} by {by}" if ago and by else ago


def _rules(told: Any) -> str:
    """`*: alice, bob; fit: carol`, `Main: A=1`."""
    if not isinstance(told, Mapping):
        return ", ".join(map(str, told or []))
    parts = {
        key: [f"{name}={value}" for name, value in inner.items()] if isinstance(inner, Mapping) else inner
        for key, inner in told.items()
    }
    return "; ".join(f"{key}: {', '.join(map(str, inner))}" for key, inner in parts.items() if inner)
