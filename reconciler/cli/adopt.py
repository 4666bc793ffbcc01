"""`reconcile adopt`: write apps that people deployed by hand into cluster.yaml, so that git has them from now on."""

from __future__ import annotations

import difflib
import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rich.text import Text
from ruamel.yaml import YAML

from bioengine_runtime.contract.cluster import AppInstance, ClusterSpec
from bioengine_runtime.contract.status import PERSON, AppState
from reconciler.cli.place import Place, opened
from reconciler.cli.show import Screen
from reconciler.errors import ReconcilerError, Remedy
from reconciler.planning.adopting import entry_of
from reconciler.planning.declare import declare

CLUSTER_FILE = "cluster.yaml"


class NotAdopted(ReconcilerError):
    """An app that cannot be written into this repository."""

    remedy = Remedy.OPERATOR


async def adopt(place: Place, app_ids: Collection[str], screen: Screen, *, all_of_them: bool) -> int:
    """Writes cluster.yaml, and nothing else: what runs is taken over by the next pass after the commit."""
    file = Path(place.repository) / place.path / CLUSTER_FILE
    if not file.parent.is_dir():
        raise NotAdopted(f"{file.parent} is no folder here", hint="Clone the repository, and name the clone.")
    async with opened(place, writes=False) as world:
        screen.masked = world.secrets.masked
        cluster = declare(await world.source.fetch()).cluster if file.exists() else _new(file.parent)
        state = await world.hypha(cluster).runtime.observe()
    running = {app.app_id: app for app in state.apps if app.status != "DELETING"}
    chosen = _chosen(running, cluster, app_ids, all_of_them=all_of_them)
    if not chosen:
        screen.result("Nothing to adopt: every app that a person deployed is in cluster.yaml.")
        return 0
    before = file.read_text(encoding="utf-8") if file.exists() else f"name: {cluster.name}\n"
    after, variables = _with(before, chosen)
    file.write_text(after, encoding="utf-8")
    for line in difflib.unified_diff(before.splitlines(), after.splitlines(), "before", str(file), lineterm="", n=1):
        screen.result(Text(line, style="green" if line.startswith("+") else ""))
    for name in variables:
        screen.result(f"{name}: set this variable for the reconciler; the value of a running app is told to nobody.")
    named = ", ".join(app.app_id for app in chosen)
    screen.result(f"\nNext: git commit -am 'Adopt {named}' && reconcile plan {place.command_tail}")
    return 0


def _new(folder: Path) -> ClusterSpec:
    name = "".join(sign if sign.isalnum() and sign.isascii() else "-" for sign in folder.resolve().name.lower())
    return ClusterSpec(name=name.strip("-") or "lab")


def _chosen(
    running: Mapping[str, AppState], cluster: ClusterSpec, app_ids: Collection[str], *, all_of_them: bool
) -> list[AppState]:
    by_hand = [app for app in running.values() if not _why_not(app, cluster)]
    if all_of_them:
        return by_hand
    wrong: list[str] = []
    for app_id in app_ids:
        app = running.get(app_id)
        why = _why_not(app, cluster) if app else f"{app_id} does not run"
        if why:
            wrong.append(why)
    if wrong or not app_ids:
        there = ", ".join(app.app_id for app in by_hand) or "there is none"
        raise NotAdopted("; ".join(wrong) or "which app?", hint=f"Apps that can be adopted: {there}.")
    return [running[app_id] for app_id in dict.fromkeys(app_ids)]


def _why_not(app: AppState, cluster: ClusterSpec) -> str:
    if app.app_id in cluster.apps:
        return f"{app.app_id} is in {CLUSTER_FILE} already"
    if app.provenance is None or app.spec is None:
        return f"{app.app_id} was not deployed through a worker of this kind, so what it runs with is not known"
    if not app.provenance.owner.startswith(PERSON):
        return f"{app.app_id} belongs to {app.provenance.owner}, another reconciler"
    return ""


def _with(text: str, apps: list[AppState]) -> tuple[str, list[str]]:
    """(the file with these apps, comments and order kept; variables for their secrets)."""
    yaml: Any = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    document: Any = yaml.load(text)
    if document.get("apps") is None:
        document["apps"] = {}
    variables: list[str] = []
    for app in apps:
        entry, names = entry_of(app)
        AppInstance.model_validate(entry)  # what we write must be what we read
        document["apps"][app.app_id] = entry
        variables += names
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue(), variables
