"""`reconcile adopt`: write apps that people deployed by hand into cluster.yaml, so that git has them from now on."""

from __future__ import annotations

import difflib
import io
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from rich.text import Text
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bioengine_runtime.contract.cluster import AppInstance, ClusterSpec
from bioengine_runtime.contract.status import PERSON, AppState
from reconciler.cli.place import Place, opened
from reconciler.cli.show import Screen
from reconciler.errors import ReconcilerError, Remedy
from reconciler.planning.adopting import entry_of
from reconciler.planning.declare import declare


class NotAdopted(ReconcilerError):
    """An app that cannot be written into this repository."""

    remedy = Remedy.OPERATOR


async def adopt(place: Place, app_ids: Collection[str], screen: Screen, *, all_of_them: bool) -> int:
    """Writes the cluster's file, and nothing else: what runs is taken over by the next pass after the commit."""
    file = Path(place.repository) / place.path / place.cluster
    if not file.parent.is_dir():
        raise NotAdopted(f"{file.parent} is no folder here", hint="Clone the repository, and name the clone.")
    async with opened(place, writes=False) as world:
        screen.masked = world.secrets.masked
        cluster = declare(await world.source.fetch()).cluster if file.exists() else _first(place, file.parent)
        state = await world.hypha(cluster).runtime.observe()
    before = file.read_text(encoding="utf-8") if file.exists() else None
    document = cluster.model_dump(mode="json", exclude_unset=True) if before is None else _read(before, file)
    running = {app.app_id: app for app in state.apps if app.status != "DELETING"}
    # What is written and not committed yet is somebody's work, too.
    named = cluster.apps.keys() | _apps(document).keys()
    chosen = _chosen(running, named, app_ids, file.name, all_of_them=all_of_them)
    if not chosen:
        screen.result(f"Nothing to adopt: every app that a person deployed is in {file.name}.")
        return 0
    variables = _add(document, chosen)
    out = io.StringIO()
    _yaml().dump(document, out)
    after = out.getvalue()
    file.write_text(after, encoding="utf-8")
    lines = (before or "").splitlines(), after.splitlines()
    for line in difflib.unified_diff(*lines, "before", str(file), lineterm="", n=1):
        screen.result(Text(line, style="green" if line.startswith("+") else ""))
    for name in variables:
        screen.result(f"{name}: set this variable for the reconciler; the value of a running app is told to nobody.")
    adopted = ", ".join(app.app_id for app in chosen)
    git = "git" if file.parent == Path() else f"git -C {shlex.quote(str(file.parent))}"
    commit = f"{git} add {file.name} && {git} commit -m 'Adopt {adopted}'"
    screen.result(f"\nNext: {commit} && {screen.typed('reconcile plan')}")
    return 0


def _first(place: Place, folder: Path) -> ClusterSpec:
    """A cluster that had no file: named as its folder, and reached as it is reached now. Whose token is read stays
    with who runs the reconciler."""
    name = "".join(sign if sign.isalnum() and sign.isascii() else "-" for sign in folder.resolve().name.lower())
    reached = {"server_url": place.server_url, "workspace": place.workspace, "worker": place.worker}
    hypha = {option: said for option, said in reached.items() if said}
    try:
        return ClusterSpec.model_validate({"name": name.strip("-") or "lab"} | ({"hypha": hypha} if hypha else {}))
    except ValidationError:  # it would quote the address, and a password in one is not for everybody
        hint = "Give an address like https://hypha.example, and the token in HYPHA_TOKEN or by --token-file."
        raise NotAdopted(f"what --server-url says cannot stand in {place.cluster}", hint=hint) from None


def _read(text: str, file: Path) -> dict[str, Any]:
    """As it is now, which need not be as it was committed."""
    try:
        document: Any = _yaml().load(text)
    except YAMLError:
        document = None
    if not isinstance(document, dict) or not isinstance(_apps(document), dict):
        raise NotAdopted(
            f"{file} is no cluster's file", hint="See what is wrong with it: reconcile validate --worktree"
        )
    return cast("dict[str, Any]", document)


def _apps(document: Any) -> Any:
    return document.get("apps") or {}


def _chosen(
    running: Mapping[str, AppState], named: Collection[str], app_ids: Collection[str], file: str, *, all_of_them: bool
) -> list[AppState]:
    """`named`: apps that `file` has already."""
    by_hand = [app for app in running.values() if not _why_not(app, named, file)]
    if all_of_them:
        return by_hand
    wrong: list[str] = []
    for app_id in app_ids:
        app = running.get(app_id)
        why = _why_not(app, named, file) if app else f"{app_id} does not run"
        if why:
            wrong.append(why)
    if wrong or not app_ids:
        there = ", ".join(app.app_id for app in by_hand) or "there is none"
        raise NotAdopted("; ".join(wrong) or "which app?", hint=f"Apps that can be adopted: {there}.")
    return [running[app_id] for app_id in dict.fromkeys(app_ids)]


def _why_not(app: AppState, named: Collection[str], file: str) -> str:
    if app.app_id in named:
        return f"{app.app_id} is in {file} already"
    if app.provenance is None or app.spec is None:
        return f"{app.app_id} was not deployed through a worker of this kind, so what it runs with is not known"
    if not app.provenance.owner.startswith(PERSON):
        return f"{app.app_id} belongs to {app.provenance.owner}, another reconciler"
    return ""


def _add(document: dict[str, Any], apps: list[AppState]) -> list[str]:
    """Put these apps into it; the variables for their secrets."""
    if document.get("apps") is None:
        document["apps"] = {}
    variables: list[str] = []
    for app in apps:
        entry, names = entry_of(app)
        AppInstance.model_validate(entry)  # what we write must be what we read
        document["apps"][app.app_id] = entry
        variables += names
    return variables


def _yaml() -> Any:
    """Keeps comments and order."""
    yaml: Any = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml
