"""What a pass costs when there is nothing to do: own CPU and remote calls at 10, 100 and 1,000 apps.

    python benchmarks/noop.py            exit 1 when a figure is over its cap

Real: a git repository with that many app folders, the git source, declare, observe with the adapters' parsing, diff,
planner, apply of nothing, drift report. Recorded: Hypha's answers (worker state and artifact list); taking them off the
wire is hypha-rpc's part and not counted. CPU is of this process alone (best of several passes); git's own is printed
beside it. The floor is what no planner can go below: comparing one digest per app in a dict.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from bioengine_runtime.contract.status import AppState, WorkerState
from reconciler.adapters.artifacts import HyphaArtifacts, comment
from reconciler.adapters.git import GitSource
from reconciler.adapters.hypha import HyphaSession
from reconciler.adapters.runtime import WorkerRuntime
from reconciler.planning.declare import declare
from reconciler.planning.desired import DesiredApp, DesiredState
from reconciler.planning.live import LiveState
from reconciler.planning.planner import plan
from reconciler.planning.steps import PlanOptions
from reconciler.ports import Hypha, World
from reconciler.reconcile import Pass, reconcile
from reconciler.secrets import LocalSecrets

SIZES = (10, 100, 1_000)
ROUNDS = 15
PASS_CAP_MS = {100: 30.0, 1_000: 60.0}
UNCHANGED_CAP_MS = {1_000: 10.0}
CHANGED_CAP_MS = {1_000: 150.0}
WORKSPACE = "lab"
NO_OPTIONS = PlanOptions()


@dataclass
class Recorded:
    """Stands where the Hypha session stands: it counts the questions and gives the recorded answers."""

    worker: dict[str, Any] = field(default_factory=dict[str, Any])
    artifacts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    calls: list[str] = field(default_factory=list[str])

    async def workspace(self) -> str:
        return WORKSPACE

    async def find(self, service_id: str) -> str:
        return service_id

    async def ask(self, service_id: str, method: str, *, timeout_s: float, **arguments: Any) -> Any:
        del timeout_s
        self.calls.append(f"{service_id.rpartition('/')[2]}.{method}")
        if method == "observe":
            return self.worker
        assert method == "list", f"a pass that does nothing asked for {method}"
        start, limit = arguments["offset"], arguments["limit"]
        return {"items": self.artifacts[start : start + limit], "total": len(self.artifacts)}


@dataclass(frozen=True)
class Row:
    apps: int
    pass_ms: float
    git_ms: float
    wall_ms: float
    first_ms: float
    calls: int
    unchanged_ms: float
    changed_ms: float
    floor_ms: float


def main() -> int:
    rows = [_measure(size) for size in SIZES]
    _show(rows)
    over = [text for row in rows for text in _over(row)]
    print("\n" + ("\n".join(over) if over else "All figures are within their caps."))
    return 1 if over else 0


def _measure(size: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measured(size, Path(folder)))


async def _measured(size: int, folder: Path) -> Row:
    _write_repository(folder / "repository", size)
    session = Recorded()
    world = _world(folder, session)
    tree = await world.source.fetch()
    desired = declare(tree, workspace=WORKSPACE)
    assert len(desired.apps) == size, desired.problems[:3]
    session.worker = _worker(desired).model_dump(mode="json")
    session.artifacts = [_record(app) for app in desired.apps.values()]
    started = time.process_time()
    done = await reconcile(world, NO_OPTIONS)
    first_ms = (time.process_time() - started) * 1e3
    assert done.look.plan.empty and not done.look.plan.held, done.look.plan.held[:1]
    session.calls.clear()
    pass_ms, git_ms, wall_ms = await _passes(world)
    calls = len(session.calls) // ROUNDS
    unchanged_ms, changed_ms = _planner(done.look.desired, done.look.live)
    return Row(size, pass_ms, git_ms, wall_ms, first_ms, calls, unchanged_ms, changed_ms, _floor(done.look.desired))


async def _passes(world: World) -> tuple[float, float, float]:
    """Own CPU, git's CPU and wall time of a pass, in ms; the best of several, each by itself."""
    own, git, wall = [], [], []
    for _ in range(ROUNDS):
        cpu, children, clock = time.process_time(), _children_cpu(), time.perf_counter()
        done: Pass = await reconcile(world, NO_OPTIONS)
        wall.append(time.perf_counter() - clock)
        own.append(time.process_time() - cpu)
        git.append(_children_cpu() - children)
        assert done.look.plan.empty
    return min(own) * 1e3, min(git) * 1e3, min(wall) * 1e3


def _planner(desired: DesiredState, live: LiveState) -> tuple[float, float]:
    def changed() -> DesiredState:
        apps = {app_id: _changed(app) for app_id, app in desired.apps.items()}
        return replace(desired, apps=apps)

    assert plan(desired, live, {}, NO_OPTIONS).empty
    assert len(plan(changed(), live, {}, NO_OPTIONS).steps) == 3 * len(desired.apps)
    unchanged_ms = _best(lambda: desired, lambda state: plan(state, live, {}, NO_OPTIONS))
    return unchanged_ms, _best(changed, lambda state: plan(state, live, {}, NO_OPTIONS))


def _changed(app: DesiredApp) -> DesiredApp:
    """The same app at another commit of its folder, never looked at before."""
    assert app.code is not None
    tree = app.code.folder.tree[::-1]
    return replace(
        app,
        spec=app.spec.model_copy(update={"version": f"1.0.1-g{tree[:12]}", "kwargs": {"Main": {"greeting": "other"}}}),
        code=replace(app.code, folder=replace(app.code.folder, tree=tree)),
        provenance=app.provenance.model_copy(update={"tree": tree}),
    )


def _floor(desired: DesiredState) -> float:
    wanted = {app_id: app.spec.digest() for app_id, app in desired.apps.items()}
    running = {app_id: "".join(digest) for app_id, digest in wanted.items()}
    return _best(lambda: wanted, lambda digests: [one for one in digests if running.get(one) != digests[one]])


def _best(prepare: Callable[[], Any], act: Callable[[Any], object]) -> float:
    """CPU milliseconds, the best of several."""
    times = []
    for _ in range(ROUNDS):
        prepared = prepare()
        started = time.process_time()
        act(prepared)
        times.append(time.process_time() - started)
    return min(times) * 1e3


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# ── a world of that size ───────────────────────────────────────────────────────────────────────────────────────────


def _world(folder: Path, session: Recorded) -> World:
    there = cast("HyphaSession", session)
    hypha = Hypha(HyphaArtifacts(there), WorkerRuntime(there, f"{WORKSPACE}/bioengine-worker"))
    source = GitSource(folder / "repository", mirror_dir=folder / "mirrors")
    return World(source, lambda _: hypha, LocalSecrets(folder / "fingerprint.key", environ={}))


MANIFEST = """\
name: App {n}
id: app-{n}
id_emoji: "🔬"
description: Says hello
type: ray-serve
format_version: 0.5.0
version: 1.0.0
authorized_users: ["*"]
deployments: ["main:Main"]
"""
CODE = """\
from hypha_rpc.utils.schema import schema_method
from ray import serve


@serve.deployment(ray_actor_options={{"num_cpus": 1, "runtime_env": {{"pip": ["numpy==2.2.1"]}}}})
class Main:
    def __init__(self, greeting: str = "hello {n}") -> None:
        self.greeting = greeting

    @schema_method
    async def ping(self) -> str:
        return self.greeting
"""


def _write_repository(root: Path, size: int) -> None:
    lines = ["name: prod", "hypha: {server_url: https://hypha.example, workspace: lab}", "apps:"]
    for n in range(size):
        lines.append(f"  app-{n}: {{source: apps/app-{n}, kwargs: {{Main: {{greeting: hello}}}}}}")
        folder = root / "apps" / f"app-{n}"
        folder.mkdir(parents=True)
        (folder / "manifest.yaml").write_text(MANIFEST.format(n=n))
        (folder / "main.py").write_text(CODE.format(n=n))
    (root / "cluster.yaml").write_text("\n".join(lines) + "\n")
    who = ("-c", "user.name=bench", "-c", "user.email=bench@example.org", "-c", "commit.gpgsign=false")
    for command in (("init", "-q", "-b", "main"), ("add", "-A"), (*who, "commit", "-q", "-m", "Say hello")):
        subprocess.run(("git", *command), cwd=root, check=True)


def _worker(desired: DesiredState) -> WorkerState:
    return WorkerState(
        service_id=f"{WORKSPACE}/worker:bioengine-worker",
        workspace=WORKSPACE,
        mode="single-machine",
        bioengine_version="0.1.0",
        ray_version="2.60.0",
        apps=[
            AppState(
                app_id=app.app_id,
                status="RUNNING",
                spec=app.spec,
                digest=app.spec.digest(),
                provenance=app.provenance,
                service_id=f"{WORKSPACE}/gateway:{app.app_id}",
                methods=["ping"],
                started_at=0.0,
                last_updated_at=0.0,
            )
            for app in desired.apps.values()
        ],
    )


def _record(app: DesiredApp) -> dict[str, Any]:
    """An artifact as Hypha lists it."""
    assert app.code is not None
    written = comment(app.code.folder.tree, app.provenance.commit)
    return {
        "id": app.spec.artifact_id,
        "parent_id": f"{WORKSPACE}/applications",
        "type": "application",
        "manifest": app.code.manifest.model_dump(mode="json"),
        "versions": [{"version": app.spec.version, "comment": written, "created_at": 0}],
        "staging": None,
        "config": {},
    }


# ── what is said ───────────────────────────────────────────────────────────────────────────────────────────────────


def _show(rows: list[Row]) -> None:
    print("A pass that does nothing (CPU of this process in ms, best of", ROUNDS, "passes)\n")
    head = ("apps", "pass", "git", "wall", "first pass", "remote calls")
    print(("{:>8}" * 5 + "{:>15}").format("apps", *head[1:4], "first", head[5]))
    for row in rows:
        numbers = (row.pass_ms, row.git_ms, row.wall_ms, row.first_ms)
        print(f"{row.apps:>8,}" + "".join(f"{number:>8.1f}" for number in numbers) + f"{row.calls:>15}")
    print("\nThe planner alone (ms)\n")
    print(("{:>8}" * 3 + "{:>14}" * 3).format("apps", "floor", "none", "× floor", "all changed", "µs per app"))
    for row in rows:
        print(
            f"{row.apps:>8,}{row.floor_ms:>8.2f}{row.unchanged_ms:>8.2f}{row.unchanged_ms / row.floor_ms:>14.0f}"
            f"{row.changed_ms:>14.1f}{row.changed_ms * 1e3 / row.apps:>14.0f}"
        )


def _over(row: Row) -> list[str]:
    figures = (
        ("a pass", row.pass_ms, PASS_CAP_MS.get(row.apps)),
        ("the planner with nothing changed", row.unchanged_ms, UNCHANGED_CAP_MS.get(row.apps)),
        ("the planner with all changed", row.changed_ms, CHANGED_CAP_MS.get(row.apps)),
    )
    return [
        f"Over the cap: {name} at {row.apps:,} apps took {took:.1f} ms, {cap:g} ms are allowed"
        for name, took, cap in figures
        if cap is not None and took > cap
    ]


if __name__ == "__main__":
    sys.exit(main())
