"""What has to be up before an app is stopped: it may be the same app under another name, or one that calls it no more.

What the same plan changes, the removal's step needs; here is what earlier passes began. Law: no removal waits for what
waits for room, since what is stopped may make it, nor for what failed before this commit.
"""

from __future__ import annotations

from bioengine_runtime.contract.status import AppState
from reconciler.planning.desired import DesiredState
from reconciler.planning.diff import CLUSTER_FILE, Difference
from reconciler.planning.holds import Draft, hold
from reconciler.planning.steps import Held, Reason

PLACED_WITHIN_S = 60.0
"""A replica that is on no machine after that time waits for room."""


def awaited(difference: Difference, draft: Draft) -> Held | None:
    """Why this app is not stopped yet; None when it may be. Who was named by a person waits for nobody."""
    if draft.options.targets:
        return None
    fix = f"or, to stop it now, reconcile apply --target {difference.app_id}"
    for app_id, app in sorted(draft.live.apps.items()):
        if app_id not in draft.desired.apps or app_id in draft.of_app or not _is_ours(app, draft):
            continue
        if _is_coming(app, draft):
            message = f"stopped when {app_id}, which may come in its place, is up"
            return hold(difference, Reason.UPDATING, message, f"wait; {fix}")
        if app.status == "DEPLOY_FAILED" and _is_of_this_commit(app, draft.desired):
            message = f"kept, since {app_id}, which may come in its place, did not come up"
            return hold(difference, Reason.DEPENDENCY_NOT_READY, message, f"push a change or a revert; {fix}")
    return None


def _is_ours(app: AppState, draft: Draft) -> bool:
    return app.provenance is not None and app.provenance.owner == draft.desired.cluster.name


def _is_coming(app: AppState, draft: Draft) -> bool:
    if not app.updating and app.status not in ("NOT_STARTED", "DEPLOYING"):
        return False
    placed = bool(app.replicas) and all(replica.node_id for replica in app.replicas)
    age_s = draft.live.observed_at - (app.last_updated_at or 0.0)
    return placed or age_s < PLACED_WITHIN_S or draft.room.grows


def _is_of_this_commit(app: AppState, desired: DesiredState) -> bool:
    """Or of the one that last changed the list of apps: later ones may have come since."""
    last = (desired.changed or {}).get(CLUSTER_FILE, ("", ""))[0]
    return app.provenance is not None and app.provenance.commit in (desired.revision.id, last)
