"""What a yes is a yes to: each change as it was shown, by a mark that an approval keeps.

Law: nothing is done under a yes but what was shown. A change is the one that was shown while it is of the same commit,
begins with what ran then, and leads to what was said; so the rest of a plan is approved however many passes it takes,
and is tried again where it failed. Drift that comes up later is not, not even where undoing it would only bring back
what was approved: whoever changed an app since may have had a reason, of which nobody knew who said yes. Nor is a step
that would now interrupt callers, and was shown as one that does not.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import assert_never

from reconciler.planning.desired import DesiredState
from reconciler.planning.diff import WORKERS
from reconciler.planning.digest import digest_of
from reconciler.planning.live import LiveState
from reconciler.planning.source import Revision
from reconciler.planning.steps import (
    Action,
    DeployApp,
    Held,
    Impact,
    PrepareRuntimeEnv,
    ScaleWorkers,
    Step,
    StopApp,
    UpdateApp,
    UploadArtifact,
)

Mark = str
"""Short, for an approval of hundreds of apps keeps as many; and too long to make another change fit it."""
_DIGITS = 32


def mark_of(step: Step, revision: Revision) -> Mark | None:
    """None for what is only done so that another step can be."""
    ends = _ends(step)
    return _mark(revision, ends, drift=step.drift, interrupts=_interrupts(step)) if ends else None


def mark_of_held(held: Held, revision: Revision, desired: DesiredState, live: LiveState) -> Mark:
    """Of what is not done now. It says nothing of callers, so it may interrupt them."""
    ends = _bounds(held) if held.app_id == WORKERS else _ends_of_held(held, desired, live)
    return _mark(revision, ends, drift=held.drift, interrupts=True)


def is_marked(step: Step, revision: Revision, marks: Collection[Mark]) -> bool:
    """Whether it is one that was shown. Who lets callers be interrupted lets them be spared."""
    ends = _ends(step)
    either = {_interrupts(step), True}
    return ends is not None and any(
        _mark(revision, ends, drift=step.drift, interrupts=shown) in marks for shown in either
    )


Ends = tuple[str, str | None, str]
"""An app id, or (workers); the digest that ran (None: unknown, "": nothing), or the bounds; and what is to be then."""


def _ends(step: Step) -> Ends | None:
    before = dict(step.pre).get("app.digest")
    match step.verb:
        case DeployApp(spec) | UpdateApp(spec):
            return spec.app_id, before, spec.digest()
        case StopApp(app_id):
            return app_id, before, ""
        case ScaleWorkers():
            return _bounds(step)
        case UploadArtifact() | PrepareRuntimeEnv():
            return None
        case _:
            assert_never(step.verb)


def _ends_of_held(held: Held, desired: DesiredState, live: LiveState) -> Ends:
    running, wanted = live.apps.get(held.app_id), desired.apps.get(held.app_id)
    after = wanted.spec.digest() if wanted and held.action is not Action.STOP else ""
    return held.app_id, running.digest if running else "", after


def _bounds(of: Step | Held) -> Ends:
    (change,) = of.changes
    return WORKERS, change.before, change.after


def _interrupts(step: Step) -> bool:
    return step.effect.impact is Impact.INTERRUPTION


def _mark(revision: Revision, ends: Ends, *, drift: bool, interrupts: bool) -> Mark:
    return digest_of([revision.id, *ends, drift, interrupts]).removeprefix("sha256:")[:_DIGITS]
