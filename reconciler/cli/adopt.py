"""`reconcile adopt`: write apps that people deployed by hand into cluster.yaml, so that git has them from now on."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text
from ruamel.yaml.error import YAMLError

from bioengine_runtime.contract.cluster import ClusterSpec
from bioengine_runtime.contract.status import PERSON, AppState
from reconciler.cli.place import Place, opened
from reconciler.cli.show import Screen
from reconciler.cli.yaml_kept import KeptYaml, unmistakable
from reconciler.errors import ReconcilerError, Remedy
from reconciler.planning.adopting import entry_of
from reconciler.planning.declare import declare, parse_cluster
from reconciler.planning.overlay import Beside
from reconciler.planning.variables import escaped


class NotAdopted(ReconcilerError):
    """An app that cannot be written into this repository."""

    remedy = Remedy.OPERATOR


async def adopt(place: Place, app_ids: Collection[str], screen: Screen, *, all_of_them: bool) -> int:
    """Writes the cluster's file, and nothing else: what runs is taken over by the next pass after the commit."""
    file = Path(place.repository) / place.path / place.cluster
    if not file.parent.is_dir():
        raise NotAdopted(f"{file.parent} is no folder here", hint="Clone the repository, and name the clone.")
    before = _text(file)
    async with opened(place, writes=False) as world:
        screen.masked = world.secrets.masked
        cluster = _first(place, file.parent) if before is None else declare(await world.source.fetch()).cluster
        state = await world.hypha(cluster).runtime.observe()
    kept = KeptYaml("") if before is None else _read(before, file)
    if before is None:
        kept.content = unmistakable(cluster.model_dump(mode="json", exclude_unset=True))
    running = {app.app_id: app for app in state.apps if app.status != "DELETING"}
    # What is written and not committed yet is somebody's work, too.
    named = cluster.apps.keys() | _apps(kept.content).keys()
    chosen = _chosen(running, named, app_ids, file.name, all_of_them=all_of_them)
    if not chosen:
        screen.result(f"Nothing to adopt: every app that a person deployed is in {file.name}.")
        return 0
    entries = {app.app_id: entry_of(app) for app in chosen}
    _add(kept, {app_id: entry for app_id, (entry, _) in entries.items()}, file)
    after = kept.text
    _write(file, after)
    lines = (before or "").splitlines(), after.splitlines()
    for line in difflib.unified_diff(*lines, "before", str(file), lineterm="", n=1):
        screen.result(Text(line, style="green" if line.startswith("+") else ""))
    for name in (name for _, names in entries.values() for name in names):
        screen.result(f"{name}: set this variable for the reconciler; the value of a running app is told to nobody.")
    screen.result(f"\nNext: {_commit(file, chosen)} && {screen.typed('reconcile plan')}")
    return 0


def _commit(file: Path, adopted: Sequence[AppState]) -> str:
    """What to type to have it in git, also where there is no repository yet."""
    git = "git" if file.parent == Path() else f"git -C {shlex.quote(str(file.parent))}"
    folders = (file.parent.resolve(), *file.parent.resolve().parents)
    new = "" if any((folder / ".git").exists() for folder in folders) else f"{git} init && "
    names = ", ".join(app.app_id for app in adopted)
    return f"{new}{git} add {shlex.quote(file.name)} && {git} commit -m 'Adopt {names}'"


def _first(place: Place, folder: Path) -> ClusterSpec:
    """A cluster that had no file: named as its folder, and reached as it is reached now. Whose token is read stays
    with who runs the reconciler."""
    name = "".join(sign if sign.isalnum() and sign.isascii() else "-" for sign in folder.resolve().name.lower())
    name = name.lstrip("-0123456789")[:63].strip("-") or "lab"
    reached = {"server_url": place.server_url, "workspace": place.workspace, "worker": place.worker}
    hypha = {option: said for option, said in reached.items() if said}
    return ClusterSpec.model_validate({"name": name} | ({"hypha": hypha} if hypha else {}))


def _text(file: Path) -> str | None:
    """As it is now, which need not be as it was committed; None: there is none."""
    if file.is_symlink():
        raise NotAdopted(f"{file} is a link, and git keeps only where it leads", hint="Put the file in its place.")
    try:
        return file.read_bytes().decode() if file.exists() else None
    except OSError as error:
        raise NotAdopted(f"{file} cannot be read: {error.strerror}", hint="Make it a file that can be read.") from None
    except UnicodeDecodeError:
        raise NotAdopted(f"{file} is not UTF-8", hint="Save it as UTF-8.") from None


def _write(file: Path, text: str) -> None:
    try:
        file.write_bytes(text.encode())
    except OSError as error:
        raise NotAdopted(f"{file} cannot be written: {error.strerror}", hint="Make it writable for you.") from None


def _read(text: str, file: Path) -> KeptYaml:
    try:
        kept = KeptYaml(text)
        content: object = kept.content
    except YAMLError:
        kept = content = None
    if kept is None or not isinstance(content, dict) or not isinstance(_apps(content), dict):
        raise NotAdopted(
            f"{file} is no cluster's file", hint="See what is wrong with it: reconcile validate --worktree"
        )
    return kept


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


def _add(kept: KeptYaml, entries: Mapping[str, dict[str, Any]], file: Path) -> None:
    """Put these apps into it. Raises NotAdopted for what would not be read as it is."""
    if kept.content.get("apps") is None:
        kept.content["apps"] = {}
    for app_id, entry in entries.items():
        kept.content["apps"][app_id] = unmistakable(escaped(entry))
    beside = {path.name: path for path in file.parent.glob("*.yaml") if path.is_file()}
    others = Beside({name: name for name in beside}, lambda name: beside[name].read_bytes())
    _, document, faults = parse_cluster(kept.text.encode(errors="replace"), file.name, others)
    if faults:
        where = f"{file}, as it would be, in line {faults[0].line}"
        raise NotAdopted(f"{where}: {faults[0].message}", hint=faults[0].fix or "Write the app by hand.")
    for app_id, entry in entries.items():
        if document.value["apps"][app_id] != entry:
            raise NotAdopted(f"{app_id} runs with what no YAML file can say", hint="Write the app by hand.")
