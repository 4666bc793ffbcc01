"""Differences to a plan. Law: every difference becomes steps or is held with a reason, never both and never neither.

The rules under RULES are the whole of what may hold an app back; the first that speaks decides. What passes them
becomes a chain of steps: upload → prepare → deploy or update, where uploads and environments are shared by the apps
of one folder, because steps are keyed by address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.cluster import Slurm
from bioengine_runtime.contract.status import AppState
from reconciler.planning.desired import AppCode, DesiredApp, DesiredState
from reconciler.planning.diff import (
    CLUSTER_FILE,
    SECRET_VALUES,
    STATUS,
    Difference,
    Fingerprints,
    Kind,
    differences,
    not_compared,
)
from reconciler.planning.digest import live_digest
from reconciler.planning.effects import ENVIRONMENT_FIELDS, Room, effect_of, lacking, needs_of, room_in
from reconciler.planning.guard import Removals, refuse
from reconciler.planning.live import LiveState, Unseen
from reconciler.planning.problems import Location, Problem
from reconciler.planning.shown import count, listed, plain
from reconciler.planning.steps import (
    Action,
    DeployApp,
    Effect,
    Held,
    Impact,
    Plan,
    PlanOptions,
    PrepareRuntimeEnv,
    Reason,
    ScaleWorkers,
    Step,
    StopApp,
    UpdateApp,
    UploadArtifact,
)

__all__ = ["PlanOptions", "plan"]

NO_OPTIONS = PlanOptions()


def plan(desired: DesiredState, live: LiveState, fingerprints: Fingerprints, options: PlanOptions = NO_OPTIONS) -> Plan:
    """What to do, in an order in which it can be done, and what is held."""
    found = differences(desired, live, fingerprints)
    draft = _Draft(desired, live, options, room_in(live))
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
        notes=tuple(_notes(desired, live, fingerprints, options, different)),
        live_digest=live_digest(desired, live),
        worker=live.worker.service_id if live.worker else "",
        scope=tuple(sorted(options.targets)),
        options=options,
    )


def _place(problem: Problem) -> tuple[Location, str]:
    return problem.where, problem.message


def _question(unseen: Unseen) -> str:
    return unseen.what


def _in_order(found: tuple[Difference, ...], desired: DesiredState) -> Iterator[Difference]:
    """Dependencies before dependants, else by app id. Removals come last and are settled together."""
    waiting = {difference.app_id: difference for difference in found if difference.kind is not Kind.REMOVE}
    for app_id in list(waiting):
        yield from _with_dependencies(app_id, waiting, desired)


def _with_dependencies(app_id: str, waiting: dict[str, Difference], desired: DesiredState) -> Iterator[Difference]:
    difference = waiting.pop(app_id, None)
    if difference is None:
        return
    app = desired.apps.get(app_id)
    for needed in sorted(app.depends_on) if app else ():
        yield from _with_dependencies(needed, waiting, desired)
    yield difference


@dataclass
class _Draft:
    """A plan in the making: what was decided so far, which later decisions build upon."""

    desired: DesiredState
    live: LiveState
    options: PlanOptions
    room: Room
    steps: dict[str, Step] = field(default_factory=dict[str, Step])
    held: list[Held] = field(default_factory=list[Held])
    of_app: dict[str, str] = field(default_factory=dict[str, str])

    @cached_property
    def running(self) -> Mapping[str, AppState]:
        return self.live.apps

    @cached_property
    def code_that_runs(self) -> frozenset[tuple[str, str, bool]]:
        specs = (app.spec for app in self.running.values() if app.spec and app.status == "RUNNING")
        return frozenset(_environment(spec) for spec in specs)

    def settle(self, difference: Difference) -> None:
        held = next((held for rule in RULES if (held := rule(difference, self))), None)
        if held:
            self.held.append(held)
        elif difference.kind is Kind.WORKERS:
            self._scale(difference)
        elif difference.wanted:
            self._bring(difference, difference.wanted)

    def settle_removals(self, found: list[Difference]) -> None:
        meant: list[Difference] = []
        for difference in found:
            held = _not_targeted(difference, self)
            if held:
                self.held.append(held)
            else:
                meant.append(difference)
        if not meant:
            return
        refusal = refuse(Removals(len(meant), self._owned(), self.desired, self.live, self.options))
        for difference in meant:
            if refusal:
                self.held.append(_held(difference, refusal.reason, refusal.message, refusal.fix))
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
            why=f"compute.workers{_commit_of(CLUSTER_FILE, self.desired, ' changed in ')}",
            app_id=None,
            pre=(("workers", difference.changes[0].before),),
            changes=difference.changes,
        )

    def _stop(self, difference: Difference) -> None:
        app_id, running = difference.app_id, difference.running
        self._add(
            Step(
                address=f"stop {app_id}",
                verb=StopApp(app_id),
                why=f"{CLUSTER_FILE} no longer names it{_commit_of(CLUSTER_FILE, self.desired, '; last change ')}",
                app_id=app_id,
                pre=(*_digest_now(running), ("app.owner", self.desired.cluster.name)),
                effect=Effect(Impact.DELETE),
            )
        )

    def _bring(self, difference: Difference, wanted: DesiredApp) -> None:
        """Deploy or update one app, after what it needs."""
        app_id, spec = wanted.app_id, wanted.spec
        before = () if difference.in_place else self._code_ready(difference, wanted)
        others = tuple(self.of_app[needed] for needed in sorted(wanted.depends_on) if needed in self.of_app)
        needs = needs_of(wanted)
        effect = effect_of(difference, self.room, needs, built=_environment(spec) in self.code_that_runs)
        verb, word = (DeployApp, "deploy") if difference.kind is Kind.CREATE else (UpdateApp, "update")
        address = f"{word} {app_id}"
        self.of_app[app_id] = address
        self._add(
            Step(
                address=address,
                verb=verb(spec, wanted.secrets, wanted.provenance),
                why=_why(difference, wanted, self.desired),
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
        address = f"prepare {_name(spec)}" + (" without GPU" if spec.disable_gpu else "")
        why = f"{wanted.app_id} needs its environment before it starts"
        self._share(Step(address, PrepareRuntimeEnv(spec), why, wanted.app_id, needs=uploads))
        return (address,)

    def _upload(self, difference: Difference, wanted: DesiredApp, code: AppCode) -> tuple[str, ...]:
        spec = wanted.spec
        artifact = (self.live.artifacts or {}).get(spec.artifact_id)
        if artifact and artifact.version(spec.version):
            return ()
        address = f"upload {_name(spec)}"
        staged = artifact is not None and artifact.staged
        verb = UploadArtifact(spec.artifact_id, spec.version, code.folder, self.desired.revision.id, resumes=staged)
        why = f"{code.folder.path}{_commit_of(code.folder.path, self.desired, ' changed in ')}; not stored yet"
        self._share(Step(address, verb, why, difference.app_id, pre=(("artifact.version", "absent"),)))
        return (address,)

    def _share(self, step: Step) -> None:
        """Add a step that several apps may need; then it belongs to none of them alone."""
        there = self.steps.get(step.address)
        self.steps[step.address] = replace(there, app_id=None) if there else step

    def _add(self, step: Step) -> None:
        assert step.address not in self.steps, step.address
        self.steps[step.address] = step


def _name(spec: AppSpec) -> str:
    """`demo-app@1.0.0-g51ab07e0cafe`."""
    return f"{spec.artifact_id.rpartition('/')[2]}@{spec.version}"


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


# ── why ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _why(difference: Difference, wanted: DesiredApp, desired: DesiredState) -> str:
    if difference.kind is Kind.CREATE:
        return f"{wanted.where} asks for it and it does not run{_commit_of(_path(wanted), desired, '; last change ')}"
    if difference.drift:
        return "live differs from git (drift)"
    return "; ".join(_causes(difference, wanted, desired)) or "what runs is not what was deployed last"


def _causes(difference: Difference, wanted: DesiredApp, desired: DesiredState) -> Iterator[str]:
    running = difference.running
    old_tree = running.provenance.tree if running and running.provenance else None
    new_tree = wanted.provenance.tree
    path = _path(wanted)
    said_by_folder: frozenset[str] = frozenset()
    if new_tree and new_tree != old_tree:
        said_by_folder = frozenset({"artifact_id", "version", "authorized_users"})
        yield f"{path} changed{_commit_of(path, desired, ' in ')}"
    if difference.fields - said_by_folder - {SECRET_VALUES, STATUS}:
        yield f"{wanted.where} changed{_commit_of(CLUSTER_FILE, desired, ' in ')}"
    if SECRET_VALUES in difference.fields:
        yield "the value of a secret changed where it is read from"
    if STATUS in difference.fields:
        yield "it did not come up, and is to be tried again"


def _path(wanted: DesiredApp) -> str:
    return wanted.code.folder.path if wanted.code else CLUSTER_FILE


def _commit_of(path: str, desired: DesiredState, lead: str) -> str:
    """`<lead>9c1e7d2 "Bump demo-app"`, when it is known which commit touched the path last."""
    last = (desired.changed or {}).get(path)
    if last is None:
        return ""
    commit, subject = last
    return f"{lead}{commit[:7]}" + (f' "{plain(subject, 72)}"' if subject else "")


# ── what may hold an app back ──────────────────────────────────────────────────────────────────────────────────────

ACTIONS: Mapping[Kind, Action] = {
    Kind.CREATE: Action.CREATE,
    Kind.UPDATE: Action.UPDATE,
    Kind.REMOVE: Action.STOP,
    Kind.FOREIGN: Action.UPDATE,
    Kind.WORKERS: Action.SCALE,
}


def _held(difference: Difference, reason: Reason, message: str, fix: str = "") -> Held:
    action = ACTIONS.get(difference.kind, Action.UNKNOWN)
    return Held(difference.app_id, reason, message, fix, action, difference.changes)


def _invalid(difference: Difference, draft: _Draft) -> Held | None:
    if difference.kind is not Kind.BROKEN:
        return None
    problems = draft.desired.broken[difference.app_id]
    first = f": {problems[0].where}: {problems[0].message}" if problems else ""
    stays = "; what runs stays as it is" if difference.running else ""
    message = f"{count(len(problems), 'problem')} in its declaration{first}{stays}"
    return _held(difference, Reason.INVALID_DECLARATION, message, problems[0].fix if problems else "")


def _unseen(difference: Difference, draft: _Draft) -> Held | None:
    if difference.kind is not Kind.UNSEEN:
        return None
    return _held(difference, Reason.LIVE_STATE_UNKNOWN, f"we could not see what runs{_blame('apps', draft)}")


def _blame(what: str, draft: _Draft) -> str:
    return next((f": {unseen.why}" for unseen in draft.live.unseen if unseen.what == what), "")


def _not_targeted(difference: Difference, draft: _Draft) -> Held | None:
    targets = draft.options.targets
    if not targets or difference.app_id in targets:
        return None
    fix = "" if difference.kind is Kind.WORKERS else f"--target {difference.app_id}"
    return _held(difference, Reason.NOT_TARGETED, f"only {listed(sorted(targets))} was asked for", fix)


def _foreign(difference: Difference, draft: _Draft) -> Held | None:
    if difference.kind is not Kind.FOREIGN or difference.running is None:
        return None
    came_from = difference.running.provenance
    who = f"by {came_from.owner} ({came_from.source})" if came_from else "by hand, not by a reconciler"
    message = f"an app of this id was deployed {who}; {draft.desired.cluster.name} does not touch it"
    return _held(difference, Reason.OWNERSHIP_CONFLICT, message, "use another app id, or stop that app first")


def _suspended(difference: Difference, draft: _Draft) -> Held | None:
    del draft
    suspend = difference.wanted.suspend if difference.wanted else False
    if suspend is False or suspend == "":
        return None
    message = f"suspended: {suspend}" if isinstance(suspend, str) else "suspended"
    return _held(difference, Reason.SUSPENDED, message, "remove `suspend`")


def _under_way(difference: Difference, draft: _Draft) -> Held | None:
    running = difference.running
    if running is None or difference.kind is not Kind.UPDATE:
        return None
    if running.status == "DELETING":
        return _held(difference, Reason.UPDATING, "it is being stopped; started again when it is gone")
    if not running.updating or draft.options.force:
        return None
    message = "an update is under way; what differs then is looked at when it has ended"
    return _held(difference, Reason.UPDATING, message, "--force does not wait")


def _rejected(difference: Difference, draft: _Draft) -> Held | None:
    running, wanted = difference.running, difference.wanted
    if running is None or wanted is None or running.rejected is None or draft.options.force:
        return None
    rejected = running.rejected
    if rejected.digest != wanted.spec.digest():
        return None
    failed_with_these = running.status == "DEPLOY_FAILED" and running.digest == rejected.digest
    if failed_with_these and SECRET_VALUES in difference.fields:
        return None  # the secrets that it failed with are known, and they changed since
    message = f"this version was tried and did not come up: {rejected.reason}"
    return _held(difference, Reason.BAD_COMMIT, message, "push a change, or try again with --force")


def _left_as_it_is(difference: Difference, draft: _Draft) -> Held | None:
    if not difference.drift or draft.desired.cluster.policy.self_heal:
        return None
    message = "live differs from git (drift), and policy.self_heal is off"
    return _held(difference, Reason.SELF_HEAL_DISABLED, message, "set policy.self_heal: true to undo it")


def _no_code(difference: Difference, draft: _Draft) -> Held | None:
    """The artifact version that the app needs must be there, or be ours to store."""
    wanted = difference.wanted
    if wanted is None or difference.in_place:
        return None
    spec, artifacts = wanted.spec, draft.live.artifacts
    if artifacts is None:
        if wanted.code is None:
            return None
        message = f"we could not see which versions are stored{_blame('artifacts', draft)}"
        return _held(difference, Reason.LIVE_STATE_UNKNOWN, message)
    artifact = artifacts.get(spec.artifact_id)
    stored = artifact.version(spec.version) if artifact else None
    if wanted.code is None:
        return None if stored or _elsewhere(spec, draft) else _no_version(difference, spec)
    if stored is None or stored.tree == wanted.code.folder.tree:
        return None
    held_by = f"tree {stored.tree[:7]}" if stored.tree else "unknown content"
    message = f"{_name(spec)} is stored with {held_by}, not tree {wanted.code.folder.tree[:7]}"
    return _held(difference, Reason.ARTIFACT_CONFLICT, message, "raise `version` in manifest.yaml")


def _elsewhere(spec: AppSpec, draft: _Draft) -> bool:
    """Artifacts of another workspace are not in our list; the runtime will say whether they are there."""
    worker = draft.live.worker
    return worker is not None and spec.artifact_id.partition("/")[0] != worker.workspace


def _no_version(difference: Difference, spec: AppSpec) -> Held:
    message = f"{spec.artifact_id} has no version {spec.version}"
    return _held(difference, Reason.VERSION_UNKNOWN, message, "name a stored version, or deploy the folder by `source`")


def _no_room(difference: Difference, draft: _Draft) -> Held | None:
    if difference.kind is not Kind.CREATE or difference.wanted is None:
        return None
    short = lacking(draft.room, needs_of(difference.wanted))
    if not short:
        return None
    return _held(difference, Reason.INSUFFICIENT_CAPACITY, short, "free resources, or ask for less")


def _dependency(difference: Difference, draft: _Draft) -> Held | None:
    if difference.wanted is None:
        return None
    for needed in sorted(difference.wanted.depends_on):
        app = draft.running.get(needed)
        if needed not in draft.of_app and (app is None or app.status != "RUNNING"):
            state = app.status if app else "not running"
            message = f"it depends on {needed}, which is {state} and not in this plan"
            return _held(difference, Reason.DEPENDENCY_NOT_READY, message)
    return None


RULES: tuple[Callable[[Difference, _Draft], Held | None], ...] = (
    _invalid,
    _unseen,
    _not_targeted,
    _foreign,
    _suspended,
    _under_way,
    _rejected,
    _left_as_it_is,
    _no_code,
    _no_room,
    _dependency,
)


# ── what the reader should know besides ────────────────────────────────────────────────────────────────────────────


def _notes(
    desired: DesiredState, live: LiveState, fingerprints: Fingerprints, options: PlanOptions, different: set[str]
) -> Iterator[str]:
    running = live.apps
    for app_id in sorted(options.targets - desired.apps.keys() - desired.broken.keys() - running.keys()):
        yield f"--target {app_id}: there is no such app"
    for app_id in sorted(desired.apps.keys() & running.keys() - different):
        app = running[app_id]
        if app.status != "RUNNING":
            said = f": {app.message}" if app.message else ""
            yield f"{app_id} runs what git says and is {app.status}{said}"
        elif app.updating:
            yield f"{app_id} is being brought to what git says"
    for app_id, names in not_compared(desired, fingerprints, live):
        yield f"{app_id}: {count(len(names), 'secret')} not compared ({listed(names)})"
    worker, mode = live.worker, desired.cluster.compute.mode
    if worker is not None and worker.mode != mode:
        yield f"cluster.yaml says compute.mode {mode}, the worker runs in {worker.mode}"
