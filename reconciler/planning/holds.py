"""What may hold a difference back: the rules under RULES are the whole of it, and the first that speaks decides."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from bioengine_runtime.contract.app import AppSpec
from bioengine_runtime.contract.status import PERSON, AppState, Gate
from reconciler.planning.backoff import LONGEST_S
from reconciler.planning.desired import DesiredState
from reconciler.planning.diff import RUNNING_CODE, Difference, Kind, failed_and_stays
from reconciler.planning.effects import Room, lacking, needs_of
from reconciler.planning.live import LiveState
from reconciler.planning.memory import Order
from reconciler.planning.shown import at, count, listed
from reconciler.planning.steps import Action, Held, PlanOptions, Reason
from reconciler.planning.suspending import suspended
from reconciler.planning.why import by_hand, rolled_back


class Draft(Protocol):
    """What a rule may ask of the plan in the making. `of_app` has the address of each app's step so far; `undo`,
    the apps of which somebody said yes to undoing changes that else are only told."""

    @property
    def desired(self) -> DesiredState: ...
    @property
    def live(self) -> LiveState: ...
    @property
    def options(self) -> PlanOptions: ...
    @property
    def room(self) -> Room: ...
    @property
    def running(self) -> Mapping[str, AppState]: ...
    @property
    def of_app(self) -> Mapping[str, str]: ...
    @property
    def pins(self) -> Mapping[str, Order]: ...
    @property
    def undo(self) -> Collection[str]: ...


Rule = Callable[[Difference, Draft], Held | None]


def first_hold(difference: Difference, draft: Draft, rules: tuple[Rule, ...] | None = None) -> Held | None:
    """Why this difference is not acted on; None when it may be."""
    return next((held for rule in rules or RULES if (held := rule(difference, draft))), None)


ACTIONS: Mapping[Kind, Action] = {
    Kind.CREATE: Action.CREATE,
    Kind.UPDATE: Action.UPDATE,
    Kind.REMOVE: Action.STOP,
    Kind.FOREIGN: Action.UPDATE,
    Kind.WORKERS: Action.SCALE,
}


def name_of(spec: AppSpec) -> str:
    """`demo-app@1.0.0-g51ab07e0cafe`."""
    return f"{spec.artifact_id.rpartition('/')[2]}@{spec.version}"


def hold(difference: Difference, reason: Reason, message: str, fix: str = "") -> Held:
    action = ACTIONS.get(difference.kind, Action.UNKNOWN)
    return Held(difference.app_id, reason, message, fix, action, difference.changes, difference.drift)


def _invalid(difference: Difference, draft: Draft) -> Held | None:
    if difference.kind is not Kind.BROKEN:
        return None
    problems = draft.desired.broken[difference.app_id]
    first = f": {problems[0].where}: {problems[0].message}" if problems else ""
    stays = "; what runs stays as it is" if difference.running else ""
    message = f"{count(len(problems), 'problem')} in its declaration{first}{stays}"
    return hold(difference, Reason.INVALID_DECLARATION, message, problems[0].fix if problems else "")


def _unseen(difference: Difference, draft: Draft) -> Held | None:
    if difference.kind is not Kind.UNSEEN:
        return None
    known = draft.live.unknown.get(difference.app_id)
    return hold(difference, Reason.LIVE_STATE_UNKNOWN, known or f"we could not see what runs{_blame('apps', draft)}")


def _blame(what: str, draft: Draft) -> str:
    return next((f": {unseen.why}" for unseen in draft.live.unseen if unseen.what == what), "")


def _not_targeted(difference: Difference, draft: Draft) -> Held | None:
    targets = draft.options.targets
    if not targets or difference.app_id in targets:
        return None
    fix = "" if difference.kind is Kind.WORKERS else f"--target {difference.app_id}"
    return hold(difference, Reason.NOT_TARGETED, f"only {listed(sorted(targets))} was asked for", fix)


def _foreign(difference: Difference, draft: Draft) -> Held | None:
    if difference.kind is not Kind.FOREIGN or difference.running is None:
        return None
    came_from = difference.running.provenance
    who = f"by {came_from.owner} ({came_from.source})" if came_from else "by hand, not by a reconciler"
    message = f"an app of this id was deployed {who}; {draft.desired.cluster.name} does not touch it"
    fix = "use another app id, or stop that app first"
    if came_from and came_from.owner.startswith(PERSON):
        fix = "write `adopt: true` to take it over; or use another app id, or stop that app first"
    return hold(difference, Reason.OWNERSHIP_CONFLICT, message, fix)


def _unremembered(difference: Difference, draft: Draft) -> Held | None:
    """Who cannot see the orders that people gave cannot know that there is none."""
    if draft.live.remembered is not None:
        return None
    message = f"we could not see whether somebody ordered to leave it as it is{_blame('memory', draft)}"
    return hold(difference, Reason.LIVE_STATE_UNKNOWN, message)


def _left_alone(difference: Difference, draft: Draft) -> Held | None:
    """Suspended, in git or by an order."""
    revision = draft.desired.revision.id
    found = suspended(difference.app_id, difference.wanted, draft.live, revision, drift=difference.drift)
    return hold(difference, Reason.SUSPENDED, found.message, found.fix) if found else None


def _rolled_back(difference: Difference, draft: Draft) -> Held | None:
    """A pin that still holds here is one whose commit could not be read, so what runs is all there is to keep."""
    pin = draft.pins.get(difference.app_id)
    if pin is None:
        return None
    message = f"{rolled_back(pin)}, which could not be read; what runs is kept"
    fix = f"push a change of this app; or, to have it as git says, reconcile resume {difference.app_id}"
    return hold(difference, Reason.ROLLED_BACK, message, fix)


def _under_way(difference: Difference, draft: Draft) -> Held | None:
    running = difference.running
    if running is None or difference.kind is not Kind.UPDATE:
        return None
    if running.status == "DELETING":
        return hold(difference, Reason.UPDATING, "it is being stopped; started again when it is gone")
    if not running.updating or draft.options.force:
        return None
    message = "an update is under way; what differs then is looked at when it has ended"
    return hold(difference, Reason.UPDATING, message, "--force does not wait")


def _rejected(difference: Difference, draft: Draft) -> Held | None:
    running, wanted = difference.running, difference.wanted
    if running is None or wanted is None or running.rejected is None:
        return None
    if draft.options.insists_on(difference.app_id):
        return None
    rejected = running.rejected
    if rejected.digest != wanted.spec.digest():
        return None
    if difference.mended:
        return None
    message = f"this version was tried and {FAILED[rejected.gate]}: {rejected.reason}"
    app_id = difference.app_id
    fix = f"push a change or a revert; or reconcile rollback {app_id}; or, to try again, reconcile retry {app_id}"
    return hold(difference, Reason.BAD_COMMIT, message, fix)


FAILED: Mapping[Gate, str] = {
    "start": "did not come up",
    "probe": "did not answer its probe rightly",
    "stable": "did not stay healthy",
}


def _other_code(difference: Difference, draft: Draft) -> Held | None:
    """Asking for the same again would change nothing: what runs was deployed as wanted already."""
    del draft
    if difference.fields != frozenset({RUNNING_CODE}):
        return None
    message = "it was deployed as wanted, and a replica says that it runs other code"
    fix = f"bioengine apps stop {difference.app_id}; it is then started anew"
    return hold(difference, Reason.CODE_MISMATCH, message, fix)


def _resting(difference: Difference, draft: Draft) -> Held | None:
    rest = draft.options.resting.get(difference.app_id)
    if rest is None or draft.options.insists_on(difference.app_id):
        return None
    if not 0 < rest.until - draft.live.observed_at <= LONGEST_S:
        return None  # it is over, or the clock was wrong when it began
    if rest.digest != (difference.wanted.spec.digest() if difference.wanted else ""):
        return None
    message = f"it failed ({count(rest.tries, 'time')}): {rest.why}; tried again at {at(rest.until)}"
    return hold(difference, Reason.BACKING_OFF, message, f"reconcile retry {difference.app_id}")


def _left_as_it_is(difference: Difference, draft: Draft) -> Held | None:
    """An app that is gone is always brought back: machines lose apps, too, and mean nothing by it."""
    wanted = difference.wanted
    if wanted is None or not difference.drift or difference.kind is not Kind.UPDATE:
        return None
    own = wanted.self_heal is not None
    mode = wanted.self_heal if wanted.self_heal is not None else draft.desired.cluster.policy.self_heal
    where = f"apps.{difference.app_id}.self_heal" if own else "policy.self_heal"
    if mode is True:
        return None
    hand = by_hand(difference.running)
    if mode is False:
        message = f"taken as meant because {where} is false{hand}"
        return hold(difference, Reason.DRIFT_ACCEPTED, message, f"set {where}: true to undo it, or write it into git")
    if difference.app_id in draft.undo:
        return None
    message = f"live differs from git (drift), and {where} is {mode}{hand}"
    return hold(difference, Reason.SELF_HEAL_DISABLED, message, f"set {where}: true to undo it")


def _no_code(difference: Difference, draft: Draft) -> Held | None:
    """The artifact version that the app needs must be there, or be ours to store."""
    wanted = difference.wanted
    if wanted is None or difference.in_place:
        return None
    spec, artifacts = wanted.spec, draft.live.artifacts
    if artifacts is None:
        if wanted.code is None:
            return None
        message = f"we could not see which versions are stored{_blame('artifacts', draft)}"
        return hold(difference, Reason.LIVE_STATE_UNKNOWN, message)
    artifact = artifacts.get(spec.artifact_id)
    stored = artifact.version(spec.version) if artifact else None
    if wanted.code is None:
        return None if stored or _elsewhere(spec, draft) else _no_version(difference, spec)
    if stored is None or stored.tree == wanted.code.folder.tree:
        return None
    held_by = f"tree {stored.tree[:7]}" if stored.tree else "unknown content"
    message = f"{name_of(spec)} is stored with {held_by}, not tree {wanted.code.folder.tree[:7]}"
    return hold(difference, Reason.ARTIFACT_CONFLICT, message, "raise `version` in manifest.yaml")


def _elsewhere(spec: AppSpec, draft: Draft) -> bool:
    """Artifacts of another workspace are not in our list; the runtime will say whether they are there."""
    worker = draft.live.worker
    return worker is not None and spec.artifact_id.partition("/")[0] != worker.workspace


def _no_version(difference: Difference, spec: AppSpec) -> Held:
    message = f"{spec.artifact_id} has no version {spec.version}"
    return hold(difference, Reason.VERSION_UNKNOWN, message, "name a stored version, or deploy the folder by `source`")


def _no_room(difference: Difference, draft: Draft) -> Held | None:
    if difference.kind is not Kind.CREATE or difference.wanted is None:
        return None
    short = lacking(draft.room, needs_of(difference.wanted))
    if not short:
        return None
    return hold(difference, Reason.INSUFFICIENT_CAPACITY, short, "free resources, or ask for less")


def _dependency(difference: Difference, draft: Draft) -> Held | None:
    if difference.wanted is None:
        return None
    for needed in sorted(difference.wanted.depends_on):
        app = draft.running.get(needed)
        if app is not None and failed_and_stays(app) and needed not in draft.of_app:
            message = f"it depends on {needed}, whose version failed its gate and runs for want of another"
            return hold(difference, Reason.DEPENDENCY_NOT_READY, message)
        if app is not None and app.updating and needed not in draft.of_app and not draft.options.force:
            message = f"it depends on {needed}, whose new version is not called good yet"
            return hold(difference, Reason.UPDATING, message)
        if needed not in draft.of_app and (app is None or app.status != "RUNNING"):
            state = app.status if app else "not known" if needed in draft.live.unknown else "not running"
            message = f"it depends on {needed}, which is {state} and not in this plan"
            return hold(difference, Reason.DEPENDENCY_NOT_READY, message)
    return None


RULES: tuple[Rule, ...] = (
    _invalid,
    _unseen,
    _not_targeted,
    _foreign,
    _unremembered,
    _left_alone,
    _rolled_back,
    _other_code,
    _under_way,
    _rejected,
    _resting,
    _left_as_it_is,
    _no_code,
    _no_room,
    _dependency,
)
REMOVAL_RULES: tuple[Rule, ...] = (_not_targeted, _unremembered, _left_alone, _resting)
"""For each removal by itself; guard.py judges them together."""
