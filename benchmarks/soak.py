"""Does the reconciler keep a cluster true to its repository while everything around it breaks? For as long as you like.

    python -m benchmarks.soak [SECONDS] [--seed N]        exit 1 when a line of the table says NO

Real: git, Hypha with its store, Ray Serve, the worker, and `reconcile run` as a process of its own. Things happen one
after the other, in an order that the seed decides, each kind before any comes again: commits (code, kwargs, replicas,
an app more, an app less, a version that does not start, a revert), changes by hand through the worker's service, and
kills (-9 of the worker, of the reconciler and of a replica, the reconciler paused, Hypha restarted), half of the kills
within a second of a push. Two callers call two apps all the while. Announced interruptions, in which a call may fail,
are: Hypha is down, and the only replica of the called app was killed by us. The worker and the reconciler are killed in
the first half only, so that each has a life that is long enough to draw a line through its memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks.gauges import Calls, Gauge, Table
from bioengine_runtime.contract.status import AppState
from reconciler.adapters.artifacts import HyphaArtifacts
from reconciler.adapters.hypha import Address, HyphaSession, RemoteError
from reconciler.adapters.runtime import WorkerRuntime
from reconciler.cli.place import Place, opened
from reconciler.errors import Unreachable
from reconciler.planning.steps import PlanOptions, Reason
from reconciler.ports import World
from reconciler.reconcile import look
from tests.runtime.stack import Stack, a_stack, eventually

CALLED = ("alpha", "beta")
IDLE = "idle"
"""Nobody calls it, so it may be stopped by hand."""
POLICY = "policy: {prune: true, removal_budget: 100%, interval_s: 5, drift_interval_s: 2}\n"
BY_HAND = ("config", "code", "missing")
"""The sorts of drift that hands make; a killed replica is one of health."""
CALL_EVERY_S = 0.2
SETTLES_WITHIN_S = 120.0
RISE_MIB = 10.0
"""That much a fitted line may rise within the run: the noise of an allocator, and what the first minutes need. It must
stay so however long it takes."""
RISE_DESCRIPTORS = 4.0

MANIFEST = """\
id: {name}
name: {name}
id_emoji: "🛁"
description: Soaked
type: ray-serve
version: 1.0.0
format_version: 0.5.0
deployments: ["main:Main"]
authorized_users: ["*"]
"""
CODE = """\
from hypha_rpc.utils.schema import schema_method
from ray import serve


@serve.deployment(ray_actor_options={{"num_cpus": 0}})
class Main:
    def __init__(self, greeting: str = "hello"):
        {start}
        self.greeting = greeting

    @schema_method
    async def ping(self) -> str:
        \"\"\"Answer.\"\"\"
        return "{says} " + self.greeting
"""


@dataclass
class Repository:
    """What git asks for, as values, and the real thing."""

    path: Path
    apps: dict[str, dict[str, object]] = field(default_factory=dict)
    says: dict[str, str] = field(default_factory=dict)
    broken: str = ""

    def begin(self) -> None:
        self.path.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        for name in (*CALLED, IDLE):
            self.add(name)
        self.push("First")

    def add(self, name: str) -> None:
        self.apps[name] = {"source": f"apps/{name}"}
        self.says[name] = "0"

    def push(self, subject: str) -> None:
        cluster = f"name: soak\n{POLICY}apps: {json.dumps(self.apps)}\n"
        (self.path / "cluster.yaml").write_text(cluster)
        for name in self.apps:
            start = 'raise RuntimeError("broken on purpose")' if name == self.broken else "pass"
            folder = self.path / "apps" / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "manifest.yaml").write_text(MANIFEST.format(name=name))
            (folder / "main.py").write_text(CODE.format(start=start, says=self.says[name]))
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", subject)

    def git(self, *words: str) -> None:
        who = ("-c", "user.name=soak", "-c", "user.email=soak@lab.example", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(self.path), *who, *words], check=True, capture_output=True)


class Soak:
    """The run: what there is, what was done to it, and what was seen."""

    def __init__(self, stack: Stack, folder: Path, dice: random.Random, world: World, session: HyphaSession) -> None:
        self.stack, self.dice, self.world, self.session = stack, dice, world, session
        self.repository = Repository(folder / "repository")
        self.folder = folder
        self.calls = Calls()
        self.done: dict[str, int] = {}
        self.injected: list[str] = []
        self.reported: list[str] = []
        self.process: asyncio.subprocess.Process | None = None
        self.number = 0
        self.gauges = [
            Gauge("reconcile run", lambda: self.process.pid if self.process else None),
            Gauge("worker", self._worker_pid),
        ]
        self.silence = ""
        self._drifted: set[str] = set()

    def _worker_pid(self) -> int | None:
        try:
            return self.stack.worker_pid()
        except ValueError:
            return None

    # ── the reconciler ─────────────────────────────────────────────────────────────────────────────────────────────

    async def start_reconciler(self) -> None:
        with (self.folder / "reconciler.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).parent / "reconcile"),
                *("run", str(self.repository.path), "--home", str(self.folder / "home"), *self.where()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def where(self) -> list[str]:
        return [
            *("--server-url", self.stack.url, "--workspace", self.stack.workspace, "--worker", self.stack.worker_id),
            *("--token-file", str(self.stack.home.secrets.admin_token)),
        ]

    async def stop_reconciler(self, how: signal.Signals) -> None:
        if self.process and self.process.returncode is None:
            self.process.send_signal(how)
            await asyncio.wait_for(self.process.wait(), 60)
        self.process = None

    # ── what is seen ───────────────────────────────────────────────────────────────────────────────────────────────

    async def settled(self) -> bool:
        """Whether the cluster is as git wants it, by a look of our own, with what is broken on purpose put back. Else
        raises what is not so, to be said if it stays."""
        seen = await look(self.world, PlanOptions())
        assert seen.live.complete, seen.live.unseen
        assert not seen.plan.steps, [step.address for step in seen.plan.steps]
        held = {one.app_id: one.reason for one in seen.plan.held}
        assert held == dict.fromkeys({self.repository.broken} - {""}, Reason.BAD_COMMIT), held
        apps = seen.live.apps
        assert apps.keys() == self.repository.apps.keys(), list(apps)
        for name, app in apps.items():
            assert app.status == "RUNNING" and not app.updating, (name, app.status, app.message, app.updating)
            assert app.service_id, f"{name} is not offered"
        return True

    async def until_settled(self) -> None:
        await eventually(self.settled, SETTLES_WITHIN_S)

    async def hear_drift(self) -> None:
        """What the status service says, for ever: each time an app begins to be reported as drifted."""
        while True:
            await asyncio.sleep(0.4)
            try:
                report = await self.session.ask(f"{self.stack.workspace}/reconcile-status", "get_drift", timeout_s=5)
            except (RemoteError, Unreachable) as error:  # one of them is away, as it is now and then here
                self.silence = str(error)
                continue
            if not report.get("complete"):
                continue
            drifted = {row["id"] for row in report["apps"] if row["class"] in BY_HAND}
            self.reported += sorted(drifted - self._drifted)
            self._drifted = drifted

    async def watch_gauges(self) -> None:
        while True:
            for gauge in self.gauges:
                gauge.look()
            await asyncio.sleep(1.0)

    async def apps(self) -> dict[str, AppState]:
        state = await WorkerRuntime(self.session, self.stack.worker_id).observe()
        return {app.app_id: app for app in state.apps}

    # ── commits ────────────────────────────────────────────────────────────────────────────────────────────────────

    def push(self, subject: str) -> None:
        self.repository.push(subject)

    async def code(self) -> None:
        name = self.dice.choice(sorted(self.repository.apps))
        self.number += 1
        self.repository.says[name] = str(self.number)
        self.push(f"Change the code of {name}")

    async def kwargs(self) -> None:
        name = self.dice.choice(sorted(self.repository.apps))
        self.number += 1
        self.repository.apps[name] |= {"kwargs": {"Main": {"greeting": f"greeting {self.number}"}}}
        self.push(f"Change the arguments of {name}")

    async def scale(self) -> None:
        name = self.dice.choice(CALLED)
        now = self.repository.apps[name].get("replicas")
        self.repository.apps[name] |= {"replicas": {"Main": 1 if now == {"Main": 2} else 2}}
        self.push(f"Scale {name}")

    async def one_app_more(self) -> None:
        self.number += 1
        self.repository.add(f"more-{self.number}")
        self.push("One app more")

    async def one_app_less(self) -> None:
        more = [name for name in self.repository.apps if name.startswith("more-")]
        if not more:
            await self.one_app_more()
            await self.until_settled()
            more = [name for name in self.repository.apps if name.startswith("more-")]
        gone = self.dice.choice(more)
        del self.repository.apps[gone], self.repository.says[gone]
        self.push(f"Without {gone}")

    async def broken_and_reverted(self) -> None:
        self.repository.broken = self.dice.choice(CALLED)
        self.push(f"Break {self.repository.broken}")
        await self.until_settled()
        self.repository.broken = ""
        self.repository.git("revert", "--no-edit", "HEAD")

    async def many_commits_at_once(self) -> None:
        for _ in range(5):
            await self.code()

    # ── by hand ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def changed_by_hand(self) -> None:
        name = self.dice.choice(sorted(self.repository.apps))
        spec = (await self.apps())[name].spec
        assert spec
        self.injected.append(name)
        self.number += 1
        await self.session.ask(
            self.stack.worker_id,
            "deploy_app",
            timeout_s=60,
            artifact_id=spec.artifact_id,
            version=spec.version,
            application_id=name,
            application_kwargs={"Main": {"greeting": f"by hand {self.number}"}},
        )
        await self._until_reported(name)

    async def stopped_by_hand(self) -> None:
        self.injected.append(IDLE)
        await self.session.ask(self.stack.worker_id, "stop_app", timeout_s=60, application_id=IDLE)
        await self._until_reported(IDLE)

    async def _until_reported(self, name: str) -> None:
        """The next thing must not hide this one: wait for the report, but not for ever, so that a miss is counted."""
        wanted = self.injected.count(name)

        async def heard() -> bool:
            return self.reported.count(name) >= wanted

        try:
            await eventually(heard, 40)
        except AssertionError:
            print(f"  drift of {name} was not reported within 40 s; {self.silence}", file=sys.stderr)

    # ── kills ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def within_a_push(self) -> None:
        if self.dice.random() < 0.5:
            await self.dice.choice([self.code, self.kwargs])()
            await asyncio.sleep(self.dice.uniform(0.0, 1.5))

    async def worker_killed(self) -> None:
        await self.within_a_push()
        await self.stack.kill_worker()
        await self.stack.start_worker()

    async def reconciler_killed(self) -> None:
        await self.within_a_push()
        await self.stop_reconciler(signal.SIGKILL)
        await self.start_reconciler()

    async def reconciler_paused(self) -> None:
        assert self.process
        await self.within_a_push()
        self.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self.dice.uniform(2, 8))
        self.process.send_signal(signal.SIGCONT)

    async def hypha_restarted(self) -> None:
        await self.within_a_push()
        with self.calls.interruption():
            await self.stack.stop_hypha()
            await asyncio.sleep(self.dice.uniform(0, 3))
            await self.stack.start_hypha()
            await eventually(self._both_answer, 60)

    async def _both_answer(self) -> bool:
        for name in CALLED:
            await self.session.ask((await self.apps())[name].service_id or "", "ping", timeout_s=5)
        return True

    async def replica_killed(self) -> None:
        name = self.dice.choice(CALLED)
        with self.calls.interruption(name):
            (pid, *_) = [one.pid for one in (await self.apps())[name].replicas if one.state == "RUNNING" and one.pid]
            os.kill(pid, signal.SIGKILL)

            async def another() -> bool:
                now = (await self.apps())[name]
                return now.status == "RUNNING" and all(one.pid and one.pid != pid for one in now.replicas)

            await eventually(another, 90)

    @property
    def happenings(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "code": self.code,
            "kwargs": self.kwargs,
            "scale": self.scale,
            "app more": self.one_app_more,
            "app less": self.one_app_less,
            "broken, reverted": self.broken_and_reverted,
            "5 commits at once": self.many_commits_at_once,
            "changed by hand": self.changed_by_hand,
            "stopped by hand": self.stopped_by_hand,
            "worker killed": self.worker_killed,
            "reconciler killed": self.reconciler_killed,
            "reconciler paused": self.reconciler_paused,
            "Hypha restarted": self.hypha_restarted,
            "replica killed": self.replica_killed,
        }

    # ── the whole of it ────────────────────────────────────────────────────────────────────────────────────────────

    def _next(self, bag: list[str], *, late: bool) -> str:
        """Of what is left of the bag, refilled when empty."""
        kinds = self.happenings.keys() - ({"worker killed", "reconciler killed"} if late else set())
        while not (bag and bag[-1] in kinds):
            if bag:
                bag.pop()
            else:
                bag += self.dice.sample(sorted(self.happenings), len(self.happenings))
        return bag.pop()

    async def run(self, seconds: float) -> None:
        self.repository.begin()
        await self.start_reconciler()
        await self.until_settled()
        until = time.monotonic() + seconds
        async with self._watched(), httpx.AsyncClient(timeout=20, trust_env=False) as http:
            callers = [
                asyncio.create_task(self.calls.keep_calling(CALLED[0], self._by_rpc, CALL_EVERY_S)),
                asyncio.create_task(self.calls.keep_calling(CALLED[1], lambda: self._by_http(http), CALL_EVERY_S)),
            ]
            bag: list[str] = []
            while (left := until - time.monotonic()) > 0:
                await self._happen(self._next(bag, late=left < seconds / 2))
            await asyncio.sleep(5)
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)

    async def _happen(self, what: str) -> None:
        began = time.monotonic()
        lost = len(self.calls.lost)
        await self.happenings[what]()
        await self.until_settled()
        self.done[what] = self.done.get(what, 0) + 1
        note = "".join(
            f"\n      lost: {app} {until - at:.1f} s {said}" for app, at, until, said in self.calls.lost[lost:]
        )
        print(f"  {what:18} settled after {time.monotonic() - began:5.1f} s{note}", file=sys.stderr)

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        watching = [asyncio.create_task(self.hear_drift()), asyncio.create_task(self.watch_gauges())]
        try:
            yield
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    async def _by_rpc(self) -> None:
        """By a handle that is held for the whole run, as far as Hypha lets it."""
        await self.session.ask(f"{self.stack.workspace}/{CALLED[0]}", "ping", timeout_s=20)

    async def _by_http(self, http: httpx.AsyncClient) -> None:
        token = self.stack.home.secrets.admin_token.read_text().strip()
        url = f"{self.stack.url}/{self.stack.workspace}/services/{CALLED[1]}/ping"
        answer = await http.post(url, json={}, headers={"Authorization": f"Bearer {token}"})
        answer.raise_for_status()

    # ── what is asked at the end ───────────────────────────────────────────────────────────────────────────────────

    async def judge(self, table: Table) -> None:
        counts = ", ".join(f"{number} {what}" for what, number in self.done.items())
        table.add("what happened", counts or "nothing", ok=bool(self.done))
        lost = self.calls.lost
        excused = len(self.calls.failed) - len(lost)
        table.add("lost calls", f"{len(lost)} of {self.calls.made}; {excused} announced", ok=not lost)
        for app, since, until, error in lost[:5]:
            table.add(f"  {app}", f"{until - since:.1f} s, {error}", ok=False)
        missed, extra = _less(self.injected, self.reported), _less(self.reported, self.injected)
        said = f"{len(self.reported)} reported, {len(self.injected)} injected"
        table.add(
            "drift", f"{said}{_named(' missed', missed)}{_named(' not ours', extra)}", ok=not missed and not extra
        )
        for gauge in self.gauges:
            self._judge_gauge(gauge, table)
        left = await self._plan()
        table.add("final state is git's", left or "no steps, nothing held", ok=not left)
        staged = [one.artifact_id for one in (await HyphaArtifacts(self.session).list()).values() if one.staged]
        table.add("staged and never committed", staged or "none", ok=not staged)
        table.add("replicas of apps that are gone", (extra := self._extra_replicas()) or "none", ok=not extra)

    def _judge_gauge(self, gauge: Gauge, table: Table) -> None:
        if not gauge.lives:
            table.add(gauge.name, "no process of it was there for long enough to tell", ok=True)
            return
        hours = gauge.seconds / 3600
        for what, unit, most in ((1, "MiB", RISE_MIB), (2, "descriptors", RISE_DESCRIPTORS)):
            slope = gauge.rise_per_s(what) * 3600
            said = f"{slope:+.1f} an hour, {slope * hours:+.1f} in {gauge.seconds:.0f} s, at most {gauge.top(what):.0f}"
            table.add(f"{gauge.name}, {unit}", f"{said} ({len(gauge.samples)} processes)", ok=slope * hours <= most)

    async def _plan(self) -> str:
        words = ("plan", str(self.repository.path), "--home", str(self.folder / "home"), *self.where(), "-o", "json")
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "reconcile"), *words, stdout=-1, stderr=-1, stdin=-3
        )
        stdout, stderr = await process.communicate()
        if process.returncode:
            return stderr.decode()[-300:]
        document = json.loads(stdout)
        left = [one["address"] for one in document["steps"]] + [one["app_id"] for one in document["held"]]
        return ", ".join(left)

    def _extra_replicas(self) -> list[str]:
        ours = psutil.Process().children(recursive=True)
        titles = [" ".join(one.cmdline()) for one in ours if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        names = {title.split(":")[1] for title in titles if title.startswith("ray::ServeReplica:")}
        return sorted(name for name in names if name.startswith("more-") and name not in self.repository.apps)


def _less(these: list[str], those: list[str]) -> list[str]:
    left = list(these)
    for one in those:
        if one in left:
            left.remove(one)
    return left


def _named(word: str, names: list[str]) -> str:
    return f";{word}: {', '.join(names)}" if names else ""


def _left_running(folders: list[Path]) -> list[str]:
    """Processes that name one of our folders, after all of it was stopped."""
    found: list[str] = []
    for process in psutil.process_iter(["cmdline", "pid"]):
        line = " ".join(process.info["cmdline"] or [])
        if process.pid != os.getpid() and any(str(folder) in line for folder in folders):
            found.append(f"{process.pid} {line[:80]}")
    return found


async def main(seconds: float, seed: int) -> int:
    table, began = Table(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        async with a_stack() as stack:
            home = stack.home.path
            token = stack.home.secrets.admin_token
            place = Place(
                str(folder / "repository"),
                home_option=folder / "looking",
                server_url=stack.url,
                workspace=stack.workspace,
                worker=stack.worker_id,
                token_file=token,
            )
            session = HyphaSession(lambda: Address(stack.url, token.read_text().strip(), stack.workspace))
            async with opened(place, writes=False) as world:
                soak = Soak(stack, folder, random.Random(seed), world, session)
                try:
                    await soak.run(seconds)
                    await soak.judge(table)
                except BaseException:
                    log = (folder / "reconciler.log").read_text().splitlines()[-60:]
                    print("\n".join(["what the reconciler said last:", *log]), file=sys.stderr)
                    raise
                finally:
                    await soak.stop_reconciler(signal.SIGTERM)
                    await session.close()
        left = _left_running([folder, home])
        table.add("processes left", left or "none", ok=not left)
    print(f"{seconds:g} s of seed {seed}, {time.monotonic() - began:.0f} s in all")
    table.show()
    return 0 if table.ok else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", type=float, nargs="?", default=300, help="how long things happen")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="what happens in which order")
    options = parser.parse_args()
    raise SystemExit(asyncio.run(main(options.seconds, options.seed)))
