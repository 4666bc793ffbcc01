"""From a folder to a running app: send it, start it, wait for it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from bioengine_runtime.command.connect import Service
from bioengine_runtime.command.folder import AppFolder, BadFolder, read_app_folder
from bioengine_runtime.command.place import Place
from bioengine_runtime.command.trouble import Trouble
from bioengine_runtime.command.waiting import NO_LOGS, Status, service_id, statuses_of, wait_until_up
from bioengine_runtime.contract.base import ENTIRE

SECRET_PREFIX = "_"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user said about the app; what they did not say is not sent, so that an update keeps it."""

    app_id: str | None = None
    version: str | None = None
    disable_gpu: bool | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    hypha_token: str | None = field(default=None, repr=False)

    def arguments(self, artifact_id: str) -> dict[str, Any]:
        """As `deploy_app` takes them."""
        said = {
            "artifact_id": artifact_id,
            "application_id": self.app_id,
            "version": self.version,
            "disable_gpu": self.disable_gpu,
            "application_env_vars": {ENTIRE: dict(self.env)} if self.env else None,
            "hypha_token": self.hypha_token,
        }
        return {name: value for name, value in said.items() if value is not None}

    @property
    def secrets(self) -> list[str | None]:
        """Values that nobody may see."""
        return [self.hypha_token, *(value for name, value in self.env.items() if _is_secret(name))]


def variables(texts: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE`; a NAME alone takes its value from the environment. Raises BadParameter, which holds no value."""
    found: dict[str, str] = {}
    for text in texts:
        name, given, value = text.partition("=")
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise typer.BadParameter("expected NAME=VALUE, the name of letters, digits and _", param_hint="--env")
        if not given:
            plain_name = name.removeprefix(SECRET_PREFIX) or name
            if plain_name not in os.environ:
                raise typer.BadParameter(f"{name} has no value, and {plain_name} is not set here", param_hint="--env")
            value = os.environ[plain_name]
        found[name] = value
    return found


def _is_secret(name: str) -> bool:
    return name.startswith(SECRET_PREFIX) or "TOKEN" in name


def checked(folder: Path) -> AppFolder:
    """The folder, read and checked. Raises Trouble with everything that is wrong."""
    try:
        return read_app_folder(folder)
    except BadFolder as bad:
        hint = "Nothing was uploaded. Mend it and type the same again."
        if len(bad.problems) == 1:
            raise Trouble(bad.problems[0], hint) from None
        listed = "".join(f"\n  {problem}" for problem in bad.problems)
        raise Trouble(f"{len(bad.problems)} problems in {folder}:{listed}", hint) from None


async def send(place: Place, worker: Service, app: AppFolder) -> str:
    """Upload the folder; answers the artifact id. Raises Trouble."""
    manifest = app.manifest
    what = f"{manifest.id} {app.version or ''}".strip()
    place.screen.note(f"Uploading {what}: {len(app.files)} files, {app.size / 1024:.0f} KiB …")
    for line in _remarks(app):
        place.screen.note(line, "yellow")
    with place.screen.err.status("Sending …") if place.screen.err.is_terminal else nullcontext():
        return str(await worker.ask("upload_app", files=app.items()))


async def newest_version(worker: Service, artifact_id: str) -> str | None:
    """The version an upload has just made, which may be called otherwise than its manifest says; None: not told.

    To be named in what follows, because older workers update an app to the version it runs already.
    """
    if not worker.knows("get_app_manifest"):
        return None
    record = await worker.ask("get_app_manifest", artifact_id=artifact_id)
    versions = record.get("versions") or []
    return versions[-1]["version"] if versions else None


def _remarks(app: AppFolder) -> list[str]:
    users = app.manifest.authorized_users
    if users:
        return []
    return ["Note: authorized_users names nobody, so only you and the worker's admins may call it ('*' is everybody)."]


async def start(place: Place, worker: Service, artifact_id: str, wish: Wish, *, wait: bool, timeout_s: float) -> None:
    """Deploy it and say what to type next; with `wait`, when it is up. Raises Trouble."""
    statuses = await statuses_of(worker, None, NO_LOGS)
    before = statuses.get(wish.app_id) if wish.app_id else None
    _explain(place, artifact_id, wish, statuses)
    app_id = str(await worker.ask("deploy_app", **wish.arguments(artifact_id)))
    (after,) = (await statuses_of(worker, [app_id], NO_LOGS)).values() if before else ({},)
    same = before is not None and _updated(after) is not None and _updated(after) == _updated(before)
    what = "Unchanged: it runs exactly so already." if same else "Deployment started."
    place.screen.result(f"{what} Application ID: {app_id}")
    if not wait:
        place.screen.next(place.command("apps", "status", app_id, "--wait"))
        return
    await wait_until_up(place, worker, [app_id], timeout_s, before=before, version=wish.version)
    (status,) = (await statuses_of(worker, [app_id], NO_LOGS)).values()
    place.screen.result(f"{app_id} is up: {service_id(status)}")
    place.screen.next(how_to_call(place, app_id, status))


def _updated(status: Status) -> object:
    return status.get("last_updated_at")


def how_to_call(place: Place, app_id: str, status: Status) -> str:
    """The command that lists what the app can do, by the id that stays the same through updates."""
    full = service_id(status)
    workspace = full.split("/")[0] if full else ""
    return place.command("call", f"{workspace}/{app_id}" if workspace else app_id, "--list-methods", worker=False)


def _explain(place: Place, artifact_id: str, wish: Wish, statuses: Mapping[str, Status]) -> None:
    """An update and a further instance differ by one option; say which one this is."""
    if wish.app_id is not None and wish.app_id in statuses:
        place.screen.note(f"{wish.app_id} runs {statuses[wish.app_id].get('version')}; this updates it.")
    elif wish.app_id is None:
        alias = artifact_id.split("/")[-1]
        twins = [key for key, one in statuses.items() if str(one.get("artifact_id")).split("/")[-1] == alias]
        if twins:
            place.screen.note(
                f"Note: {artifact_id} runs already as {', '.join(twins)}; this starts one more under a new id. "
                f"To update it instead: --app-id {twins[0]}",
                "yellow",
            )
