"""Differences to a plan. Law: every difference becomes steps or is held with a reason, never both and never neither.

The rules of holds.py are the whole of what may hold an app back. What passes them
becomes a chain of steps: upload → prepare → deploy or update, where uploads and environments are shared by the apps
of one folder, because steps are keyed by address.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.cluster import Slurm
from bioengine_runtime.contract.status import AppState
from reconciler.planning import plan_file
from reconciler.planning.approving import NO, offered, said_of
from reconciler.planning.credentials import credentials
from reconciler.planning.desired import AppCode, DesiredApp, DesiredState
from reconciler.planning.diff import (
    CLUSTER_FILE,
    STATUS,
    Difference,
    Fingerprints,
    Kind,
    differences,
)
from reconciler.planning.digest import live_digest
from reconciler.planning.effects import ENVIRONMENT_FIELDS, Room, effect_of, needs_of, room_in
from reconciler.planning.gate import gated
from reconciler.planning.guard import Removals, refuse
from reconciler.planning.holds import REMOVAL_RULES, first_hold, hold, name_of
from reconciler.planning.ignoring import accepted
from reconciler.planning.live import LiveState, Unseen
from reconciler.planning.memory import Order
from reconciler.planning.problems import Location, Problem
from reconciler.planning.rights import permitted
from reconciler.planning.rollbacks import gone_back, not_read
from reconciler.planning.steps import (
    DeployApp,
    Effect,
    Held,
    Impact,
    Plan,
    PlanOptions,
    PrepareRuntimeEnv,
    ScaleWorkers,
    Step,
    StopApp,
    UpdateApp,
    UploadArtifact,
)
from reconciler.planning.succession import awaited
from reconciler.planning.suspending import all_suspended
from reconciler.planning.timing import usual_s
from reconciler.planning.why import commit_of, notes, rolled_back, why

__all__ = ["PlanOptions", "plan"]

NO_OPTIONS = PlanOptions()


def plan(
    desired: DesiredState,
    live: LiveState,
    fingerprints: Fingerprints,
    options: PlanOptions = NO_OPTIONS,
) -> Plan:
    """What to do, in an order in which it can be done, and what is held."""
    policy = desired.cluster.policy
    made = _made(desired, live, fingerprints, options)
    made = replace(made, id=plan_file.id_of(made))
    yes = said_of(made, desired, live)
    if yes == NO:
        made = offered(made)
    else:
        meant = replace(options, prune_confirmed=yes.removals or options.prune_confirmed)
        approved = _made(desired, live, fingerprints, meant, undo=yes.undo)
        made = replace(approved, id=made.id, options=options)
    return gated(permitted(made, policy, live), policy, live)


def _made(
    desired: DesiredState,
    live: LiveState,
    fingerprints: Fingerprints,
    options: PlanOptions,
    *,
    undo: frozenset[str] = frozenset(),
) -> Plan:
    found = differences(desired, live, fingerprints, options.insists_on)
    back, room = gone_back(desired, live), room_in(live, desired.cluster.compute)
    draft = _Draft(desired, live, options, room, live.apps, back, not_read(desired, live), undo)
    for difference in _in_order(found, desired):
        draft.settle(difference)
    draft.settle_removals([difference for difference in found if difference.kind is Kind.REMOVE])
    different = {difference.app_id for difference in found}
    return Plan(
        cluster=desired.cluster.name,
        revision=desired.revision,
        steps=tuple(draft.steps.values()),
        held=tuple(sorted(draft.held, key=lambda held: held.app_id)),
        problems=tuple(sorted(desired.problems, key=_place)),
        unchanged=tuple(sorted(desired.apps.keys() - different)),
        unused=tuple(sorted(desired.unused)),
        unseen=tuple(sorted(live.unseen, key=_question)),
        notes=tuple(notes(desired, live, fingerprints, options, different)),
        live_digest=live_digest(desired, live),
        worker=live.worker.service_id if live.worker else "",
        scope=tuple(sorted(options.targets)),
        options=options,
        valid_s=desired.cluster.policy.plan_valid_s,
        orphans=tuple(_orphans(desired, live)),
        accepted=tuple(_accepted(desired, live, different)),
        rolled_back=tuple((app_id, rolled_back(pin)) for app_id, pin in sorted(back.items())),
        suspended=tuple(all_suspended(desired, live)),
        credentials=tuple(credentials(desired, live, fingerprints)),
        since=live.supposed,
    )


def _orphans(desired: DesiredState, live: LiveState) -> Iterator[str]:
    for app_id, app in sorted(live.apps.items()):
        named = app_id in desired.apps or app_id in desired.broken
        if not named and (app.provenance is None or app.provenance.owner != desired.cluster.name):
            yield app_id


def _accepted(desired: DesiredState, live: LiveState, different: Collection[str]) -> Iterator[str]:
    for app_id in sorted(desired.apps.keys() & live.apps.keys() - different):
        wanted, before = desired.apps[app_id], live.apps[app_id].spec
        if wanted.ignore and before is not None:
            yield from (f"{app_id}: {pointer}" for pointer in accepted(before, wanted.spec, wanted.ignore))


def _place(problem: Problem) -> tuple[Location, str]:
    return problem.where, problem.message


def _question(unseen: Unseen) -> str:
    return unseen.what


def _in_order(found: tuple[Difference, ...], desired: DesiredState) -> Iterator[Difference]:
    """Dependencies before dependants, else by app id. Removals come last and are settled together."""
    waiting = {difference.app_id: difference for difference in found if difference.kind is not Kind.REMOVE}
    entered: list[tuple[Difference, Iterator[str]]] = []  # each with what it needs, and is not looked at yet
    while waiting or entered:
        app_id = next(entered[-1][1], None) if entered else next(iter(waiting))
        if app_id is None:
            yield entered.pop()[0]
        elif difference := waiting.pop(app_id, None):
            entered.append((difference, iter(_needed(app_id, desired))))


def _needed(app_id: str, desired: DesiredState) -> list[str]:
    app = desired.apps.get(app_id)
    return sorted(app.depends_on) if app else []


@dataclass
class _Draft:
    """A plan in the making: what was decided so far, which later decisions build upon."""

    desired: DesiredState
    live: LiveState
    options: PlanOptions
    room: Room
    running: Mapping[str, AppState]
    back: Mapping[str, Order]
    pins: Mapping[str, Order]
    undo: frozenset[str]
    steps: dict[str, Step] = field(default_factory=dict[str, Step])
    held: list[Held] = field(default_factory=list[Held])
    of_app: dict[str, str] = field(default_factory=dict[str, str])

    @cached_property
    def code_that_runs(self) -> frozenset[tuple[str, str, bool]]:
        specs = (app.spec for app in self.running.values() if app.spec and app.status == "RUNNING")
        return frozenset(_environment(spec) for spec in specs)

    def settle(self, difference: Difference) -> None:
        held = first_hold(difference, self)
        if held:
            self.held.append(held)
        elif difference.kind is Kind.WORKERS:
            self._scale(difference)
        elif difference.wanted:
            self._bring(difference, difference.wanted)

    def settle_removals(self, found: list[Difference]) -> None:
        meant: list[Difference] = []
        for difference in found:
            held = first_hold(difference, self, REMOVAL_RULES)
            if held:
                self.held.append(held)
            else:
                meant.append(difference)
        if not meant:
            return
        refusal = refuse(Removals(len(meant), self._owned(), self.desired, self.live, self.options))
        for difference in meant:
            if refusal:
                self.held.append(hold(difference, refusal.reason, refusal.message, refusal.fix))
            elif held := awaited(difference, self):
                self.held.append(held)
            else:
                self._stop(difference)

    def _owned(self) -> int:
        """Apps that are ours, counting those that this plan starts: so a second look counts the same."""
        owner = self.desired.cluster.name
        ours = {
            app_id
            for app_id, app in self.running.items()
            if app.provenance and app.provenance.owner == owner and app.status != "DELETING"
        }
        return len(ours | self.of_app.keys())

    def _scale(self, difference: Difference) -> None:
        compute = self.desired.cluster.compute
        assert isinstance(compute, Slurm)
        self.steps["scale workers"] = Step(
            address="scale workers",
            verb=ScaleWorkers(compute.workers.min, compute.workers.max),
            why=f"compute.workers{commit_of(CLUSTER_FILE, self.desired, ' changed in ')}",
            app_id=None,
            pre=(("workers", difference.changes[0].before),),
            changes=difference.changes,
        )

    def _stop(self, difference: Difference) -> None:
        """Stop one app, after all that this commit changes: any of it may come in its place."""
        app_id, running = difference.app_id, difference.running
        self._add(
            Step(
                address=f"stop {app_id}",
                verb=StopApp(app_id),
                why=f"{CLUSTER_FILE} no longer names it{commit_of(CLUSTER_FILE, self.desired, '; last change ')}",
                app_id=app_id,
                needs=tuple(self._of_this_commit()),
                pre=(*_digest_now(running), ("app.owner", self.desired.cluster.name)),
                effect=Effect(Impact.DELETE),
            )
        )

    def _of_this_commit(self) -> Iterator[str]:
        """Addresses of what is no undoing of a change by hand."""
        for address in self.of_app.values():
            step = self.steps[address]
            if not step.drift or isinstance(step.verb, DeployApp):
                yield address

    def _bring(self, difference: Difference, wanted: DesiredApp) -> None:
        """Deploy or update one app, after what it needs."""
        app_id, spec = wanted.app_id, wanted.spec
        before = () if difference.in_place else self._code_ready(difference, wanted)
        others = tuple(self.of_app[needed] for needed in sorted(wanted.depends_on) if needed in self.of_app)
        needs = needs_of(wanted)
        built = _environment(spec) in self.code_that_runs
        effect = effect_of(difference, self.room, needs, built=built, usual_s=usual_s(app_id, self.live))
        verb, word = (DeployApp, "deploy") if difference.kind is Kind.CREATE else (UpdateApp, "update")
        address = f"{word} {app_id}"
        self.of_app[app_id] = address
        self._add(
            Step(
                address=address,
                verb=verb(spec, wanted.secrets, wanted.provenance),
                why=why(difference, wanted, self.desired, self.back.get(app_id), self.live.supposed),
                app_id=app_id,
                needs=tuple(dict.fromkeys(before + others)),
                pre=_digest_now(difference.running),
                effect=effect,
                changes=difference.changes,
                drift=difference.drift,
            )
        )
        if difference.kind is Kind.CREATE:
            self.room = self.room.without(needs)

    def _code_ready(self, difference: Difference, wanted: DesiredApp) -> tuple[str, ...]:
        """Address of the step after which the code can be started: the environment, or at least the upload."""
        spec = wanted.spec
        uploads = self._upload(difference, wanted, wanted.code) if wanted.code else ()
        if not _new_environment(difference):
            return uploads
        address = f"prepare {name_of(spec)}" + (" without GPU" if spec.disable_gpu else "")
        why = f"{wanted.app_id} needs its environment before it starts"
        self._share(Step(address, PrepareRuntimeEnv(spec), why, wanted.app_id, needs=uploads))
        return (address,)

    def _upload(self, difference: Difference, wanted: DesiredApp, code: AppCode) -> tuple[str, ...]:
        spec = wanted.spec
        artifact = (self.live.artifacts or {}).get(spec.artifact_id)
        if artifact and artifact.version(spec.version):
            return ()
        address = f"upload {name_of(spec)}"
        staged = artifact is not None and artifact.staged
        verb = UploadArtifact(spec.artifact_id, spec.version, code.folder, self.desired.revision.id, resumes=staged)
        why = f"{code.folder.path}{commit_of(code.folder.path, self.desired, ' changed in ')}; not stored yet"
        self._share(Step(address, verb, why, difference.app_id, pre=(("artifact.version", "absent"),)))
        return (address,)

    def _share(self, step: Step) -> None:
        """Add a step that several apps may need; then it belongs to none of them alone."""
        there = self.steps.get(step.address)
        self.steps[step.address] = replace(there, app_id=None) if there else step

    def _add(self, step: Step) -> None:
        assert step.address not in self.steps, step.address
        self.steps[step.address] = step


def _environment(spec: AppSpec) -> tuple[str, str, bool]:
    return spec.artifact_id, spec.version, spec.disable_gpu


def _new_environment(difference: Difference) -> bool:
    running = difference.running
    known = running is not None and running.spec is not None and STATUS not in difference.fields
    return not known or bool(difference.fields & ENVIRONMENT_FIELDS)


def _digest_now(running: AppState | None) -> tuple[tuple[str, str], ...]:
    """What must still run when the step is done; an app that runs without a digest cannot be pinned."""
    if running is None:
        return (("app.digest", ""),)
    return (("app.digest", running.digest),) if running.digest else ()
