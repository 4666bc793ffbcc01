"""The composition root: from options and environment to a World. Imports what connects only when it is needed."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bioengine_runtime.contract.base import SecretFromFile
from bioengine_runtime.contract.cluster import EMBEDDED, ClusterSpec, HyphaSpec, Policy
from reconciler.errors import HomeInUse, Unreachable
from reconciler.planning.people import UNANCHORED, Anchor
from reconciler.planning.source import CLUSTER_FILE, EVERYBODY, Trust
from reconciler.ports import Hypha, Source, World
from reconciler.secrets import LocalSecrets

if TYPE_CHECKING:
    from reconciler.adapters.hypha import Address, HyphaSession
    from reconciler.adapters.status.service import Orders
    from reconciler.adapters.status.web import Web
    from reconciler.board import Board
    from reconciler.planning.source import SourceTree

TOKEN_VARIABLE = "HYPHA_TOKEN"
FINGERPRINT_KEY = "fingerprint.key"
KEY_VARIABLE = "RECONCILE_KEY_FILE"
OURS = {"secrets", "reconciler", "mirrors"}
"""What we make in the folder of what we keep."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which repository, and what the command line overrides of it."""

    repository: str
    ref: str | None = None
    path: str = ""
    cluster: str = CLUSTER_FILE
    worktree: bool = False
    home_option: Path | None = None
    server_url: str | None = None
    workspace: str | None = None
    worker: str | None = None
    token_file: Path | None = None
    trust: Trust = EVERYBODY
    anchor: Anchor = UNANCHORED
    deny_private_hosts: bool = False
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
    def key_file(self) -> Path:
        """The key of this installation: reconcilers that take turns (as CI jobs do) are to share it."""
        said = os.environ.get(KEY_VARIABLE)
        return Path(said).expanduser() if said else self.home / "secrets" / FINGERPRINT_KEY

    def hypha_of(self, cluster: ClusterSpec) -> HyphaSpec:
        """What cluster.yaml says, but for what the command line says."""
        said = {
            "server_url": self.server_url,
            "workspace": self.workspace,
            "worker": self.worker,
            "token": SecretFromFile(file=str(self.token_file)) if self.token_file else None,
        }
        return cluster.hypha.model_copy(update={name: value for name, value in said.items() if value is not None})


@dataclass(slots=True)
class Front:
    """What a reconciler that keeps running shows of itself on Hypha; filled before its first pass."""

    board: Board
    orders: Orders | None = None
    web: list[Web] = field(default_factory=list["Web"])


@asynccontextmanager
async def opened(place: Place, *, writes: bool, front: Front | None = None) -> AsyncGenerator[World, None]:
    """The world of this place; connections are made when first needed and closed at the end. Who `writes` has a lease
    to take. Without `front` nothing is published: two that answer to one service id would be in each other's way."""
    if place.world:
        yield replace(place.world, anchor=place.anchor)
        return
    from reconciler.lease import Lease

    if writes:
        keep_out_of_git(place.home)
    secrets = LocalSecrets(place.key_file)
    reached: dict[tuple[str, HyphaSpec], _Reached] = {}

    def hypha(cluster: ClusterSpec) -> Hypha:
        key = (cluster.name, place.hypha_of(cluster))
        known = next((there for said, there in reached.items() if said == key), None)
        if known is None:
            known = reached[key] = _reach(*key, place, secrets, front, writes=writes)
        known.policy[:] = [cluster.policy]  # as the newest commit has it
        return known.hypha

    def at(commit: str) -> Source:
        return source_of(replace(place, ref=commit))

    async with AsyncExitStack() as ends:
        ends.push_async_callback(_hang_up, reached.values())
        lease = await ends.enter_async_context(Lease(_who_we_are())) if writes else None
        older = None if place.worktree else at
        yield World(source_of(place), hypha, secrets, lease=lease, at=older, anchor=place.anchor)


@dataclass(frozen=True, slots=True)
class _Reached:
    session: HyphaSession
    hypha: Hypha
    policy: list[Policy]
    """The newest commit's, alone."""


def source_of(place: Place) -> Source:
    """The repository alone."""
    from reconciler.adapters.git import GitSource

    return GitSource(
        place.repository,
        ref=place.ref,
        path=place.path,
        cluster=place.cluster,
        mirror_dir=place.home / "mirrors",
        worktree=place.worktree,
        trust=place.trust,
        deny_private_hosts=place.deny_private_hosts,
    )


def _reach(
    cluster: str, spec: HyphaSpec, place: Place, secrets: LocalSecrets, front: Front | None, *, writes: bool
) -> _Reached:
    from reconciler.adapters.artifacts import HyphaArtifacts
    from reconciler.adapters.hypha import HyphaSession
    from reconciler.adapters.memory import HyphaMemory
    from reconciler.adapters.reports import HyphaReports
    from reconciler.adapters.running import RunningReconciler
    from reconciler.adapters.runtime import WorkerRuntime

    session = HyphaSession(lambda: address_of(spec, place.home, secrets))
    memory = HyphaMemory(session, cluster, secrets.key, new_key=secrets.made_key if writes else None)
    policy = [Policy()]
    reports = front and HyphaReports(
        session,
        spec.status,
        board=front.board,
        memory=memory,
        orders=front.orders,
        approvers=lambda: policy[0].approvers,
        pruners=lambda: policy[0].pruners or (),
        web=front.web,
    )
    running = RunningReconciler(session, spec.status, cluster)
    worker = WorkerRuntime(session, spec.worker)
    return _Reached(session, Hypha(HyphaArtifacts(session), worker, reports, memory, running), policy)


async def _hang_up(reached: Iterable[_Reached]) -> None:
    for one in reached:
        await one.session.close()


def _who_we_are() -> str:
    """For people who meet our lease."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


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
    """Only while it lives: after its end its port is anybody's, and they would be handed the token."""
    from bioengine_runtime.local.home import Home
    from bioengine_runtime.local.state import read_state
    from reconciler.adapters.hypha import Address

    try:
        from bioengine_runtime.local.leftovers import lives
    except ModuleNotFoundError as error:
        hint = "Install what looks for it: pip install 'bioengine-gitops[local]'"
        raise Unreachable(f"whether the embedded Hypha runs is not known without {error.name}", hint=hint) from None
    try:
        there = lives(Home(home), "hypha")
        token = token or (home / "secrets" / "admin_token").read_text().strip()
    except OSError:
        there = False
    if not there:
        raise Unreachable(f"the embedded Hypha of {home} is not running", hint="Start it: reconcile up")
    return Address(f"http://127.0.0.1:{read_state(home / 'state.json').ports['hypha']}", token)


def keep_out_of_git(home: Path) -> None:
    """Make the folder of what we keep. None of it belongs into a commit, and it may lie in somebody's repository. A
    folder that holds other things than ours, which --home may name, is left as it is."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if {entry.name for entry in home.iterdir()} <= OURS:
        (home / ".gitignore").write_text("*\n")


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
