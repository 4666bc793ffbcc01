"""The composition root: from options and environment to a World. Imports what connects only when it is needed."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bioengine_runtime.contract.base import SecretFromFile
from bioengine_runtime.contract.cluster import EMBEDDED, ClusterSpec, HyphaSpec
from reconciler.errors import HomeInUse, Unreachable
from reconciler.planning.source import EVERYBODY, Trust
from reconciler.ports import Hypha, World
from reconciler.secrets import LocalSecrets

if TYPE_CHECKING:
    from reconciler.adapters.hypha import Address, HyphaSession
    from reconciler.planning.source import SourceTree

TOKEN_VARIABLE = "HYPHA_TOKEN"
FINGERPRINT_KEY = "fingerprint.key"


@dataclass(frozen=True, slots=True)
class Place:
    """Which repository, and what the command line overrides of it."""

    repository: str
    ref: str | None = None
    path: str = ""
    worktree: bool = False
    home_option: Path | None = None
    server_url: str | None = None
    workspace: str | None = None
    worker: str | None = None
    token_file: Path | None = None
    trust: Trust = EVERYBODY
    world: World | None = None
    """The outside, when it is given and not to be made."""

    @property
    def home(self) -> Path:
        """The folder of what we keep: beside a local repository, else in the user's state folder."""
        if self.home_option:
            return self.home_option.expanduser().resolve()
        here = Path(self.repository)
        if here.exists():
            return here.resolve().parent / ".bioengine"
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Path(state) / "bioengine-gitops"

    @property
    def command_tail(self) -> str:
        """The options that made this place, to be repeated in the next command."""
        said = [
            ("--ref", self.ref),
            ("--path", self.path),
            ("--allowed-signers", self.trust.allowed_signers),
            ("--gnupg-home", self.trust.gnupg_home),
            ("--home", self.home_option),
            ("--server-url", self.server_url),
            ("--workspace", self.workspace),
            ("--worker", self.worker),
            ("--token-file", self.token_file),
        ]
        words = [self.repository, *(f"{name} {value}" for name, value in said if value)]
        return " ".join([*words, *(["--worktree"] if self.worktree else [])])

    def hypha_of(self, cluster: ClusterSpec) -> HyphaSpec:
        """What cluster.yaml says, but for what the command line says."""
        said = {
            "server_url": self.server_url,
            "workspace": self.workspace,
            "worker": self.worker,
            "token": SecretFromFile(file=str(self.token_file)) if self.token_file else None,
        }
        return cluster.hypha.model_copy(update={name: value for name, value in said.items() if value is not None})


@asynccontextmanager
async def opened(place: Place, *, writes: bool) -> AsyncGenerator[World, None]:
    """The world of this place; connections are made when first needed and closed at the end."""
    if place.world:
        yield place.world
        return
    from reconciler.adapters.git import GitSource

    secrets = LocalSecrets(place.home / "secrets" / FINGERPRINT_KEY, make_key=writes)
    source = GitSource(
        place.repository,
        ref=place.ref,
        path=place.path,
        mirror_dir=place.home / "mirrors",
        worktree=place.worktree,
        trust=place.trust,
    )
    reached: dict[HyphaSpec, tuple[HyphaSession, Hypha]] = {}

    def hypha(cluster: ClusterSpec) -> Hypha:
        spec = place.hypha_of(cluster)
        known = next((there for said, (_, there) in reached.items() if said == spec), None)
        if known is None:
            session, known = _reach(spec, place.home, secrets, reports=writes)
            reached[spec] = (session, known)
        return known

    try:
        yield World(source, hypha, secrets)
    finally:
        for session, _ in reached.values():
            await session.close()


def _reach(spec: HyphaSpec, home: Path, secrets: LocalSecrets, *, reports: bool) -> tuple[HyphaSession, Hypha]:
    from reconciler.adapters.artifacts import HyphaArtifacts
    from reconciler.adapters.hypha import HyphaSession
    from reconciler.adapters.reports import HyphaReports
    from reconciler.adapters.runtime import WorkerRuntime

    session = HyphaSession(lambda: address_of(spec, home, secrets))
    there = Hypha(
        HyphaArtifacts(session), WorkerRuntime(session, spec.worker), HyphaReports(session) if reports else None
    )
    return session, there


def address_of(spec: HyphaSpec, home: Path, secrets: LocalSecrets) -> Address:
    """Server, workspace and token, as they are now. Raises Unreachable, never with a value in it."""
    from reconciler.adapters.hypha import Address

    token = os.environ.get(TOKEN_VARIABLE) or None
    if spec.token is not None:
        token = secrets.read(spec.token)
        if token is None:
            raise Unreachable("the token of hypha.token cannot be read here", hint=f"It is to come from {spec.token}.")
    if spec.server_url != EMBEDDED:
        return Address(spec.server_url, token, spec.workspace)
    return _embedded_address(home, token if spec.token else None)


def _embedded_address(home: Path, token: str | None) -> Address:
    from bioengine_runtime.local.state import read_state
    from reconciler.adapters.hypha import Address

    state = read_state(home / "state.json")
    if not any(process.what == "hypha" for process in state.processes):
        raise Unreachable(f"the embedded Hypha of {home} is not running", hint="Start it: reconcile up REPO")
    own = home / "secrets" / "admin_token"
    return Address(f"http://127.0.0.1:{state.ports['hypha']}", token or own.read_text().strip())


@contextmanager
def alone(home: Path) -> Generator[None, None, None]:
    """One reconciler that writes per home. Raises HomeInUse, naming the other."""
    from bioengine_runtime.local.errors import HomeBusy
    from bioengine_runtime.local.lock import held

    folder = home / "reconciler"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with held(folder):
            yield
    except HomeBusy as busy:
        raise HomeInUse(busy.message, hint=busy.hint) from None


def git_dir_of(tree: SourceTree) -> Path | None:
    """The .git of a local source; None for a remote one."""
    here = Path(tree.revision.url)
    if not here.exists():
        return None
    for folder in (here, *here.resolve().parents):
        if (folder / ".git").is_dir():
            return folder / ".git"
        if (folder / "HEAD").is_file() and (folder / "refs").is_dir():
            return folder
    return None
