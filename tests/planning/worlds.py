"""Generated worlds: some apps wanted, some running, some of both in every state that the planner tells apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from bioengine_runtime.contract.status import AppState
from reconciler.planning.desired import AppCode, DesiredApp, DesiredState
from reconciler.planning.diff import CLUSTER_FILE, Fingerprints
from reconciler.planning.live import ArtifactVersion, LiveArtifact, LiveState
from reconciler.planning.problems import Problem
from reconciler.planning.steps import PlanOptions
from tests.builders import (
    COMMIT,
    GIB,
    OLD_COMMIT,
    WORKSPACE,
    a_desired,
    a_live,
    a_node,
    a_problem,
    a_secret,
    a_status,
    an_app,
    an_artifact,
    keys_of,
    some_code,
)

IDS = ("app-a", "app-b", "app-c", "app-d", "app-e")
CANARY = "canary-7f3a91"
"""Stands for a secret value wherever one could come near a plan."""

OLD_VERSION = ArtifactVersion("0.9.0-gaaaaaaaaaaaa", "a" * 40)
ONE_ANSWER = st.sampled_from  # made once here: making a strategy costs more than drawing from it

ORDER = ONE_ANSWER((IDS, IDS[::-1]))  # dependencies come first in it, and not always in the alphabet
ROLE = ONE_ANSWER(("absent", *["both"] * 4, "wanted", "wanted", "removed", "removed", "broken"))
CODE = ONE_ANSWER(
    (*(some_code(name, content=content) for name in ("one", "two", "three") for content in ("v1", "v2")), None)
)
SECRETS = ONE_ANSWER(({}, a_secret(), a_secret("API_KEY", class_name="Main")))
SUSPEND = ONE_ANSWER((*[False] * 6, True, "until Monday"))
ENV = ONE_ANSWER(({}, {"*": {"LEVEL": "1"}}))
REPLICAS = ONE_ANSWER(({}, {"*": 2}))
MAYBE = st.booleans()
DEPENDENCIES = {at: st.sets(st.integers(0, at - 1), max_size=2) for at in range(1, len(IDS))}

WAY = ONE_ANSWER(("same", "code", "kwargs", "in place", "env", "leak", "secret", "gpu", "no spec", "no digest"))
STATUS = ONE_ANSWER((*["RUNNING"] * 5, "UNHEALTHY", "DEPLOYING", "DEPLOY_FAILED", "DELETING"))
OWNER = ONE_ANSWER(("prod", "prod", "prod", "staging", None))
FROM_COMMIT = ONE_ANSWER((OLD_COMMIT, COMMIT))
REJECTED = ONE_ANSWER((*[None] * 5, "wanted", "other"))
UPDATING = ONE_ANSWER((*[False] * 6, True))
STORED = ONE_ANSWER(("none", "older", "this", "this", "staged", "other tree"))
FINGERPRINT = ONE_ANSWER(("f" * 16, "f" * 16, None))

CALM = ONE_ANSWER((True, True, False))
UNSEEN = ONE_ANSWER(((), ("artifacts",), ("artifacts",), ("apps",), ("apps", "artifacts")))
TARGETS = ONE_ANSWER((frozenset[str](), frozenset({"app-b"}), frozenset({"app-a", "app-d"})))
CONFIRMED = ONE_ANSWER((0, 0, 1, 6))
PRUNE = ONE_ANSWER((True, True, False))
PRUNERS = ONE_ANSWER((None, None, ["ann-id"]))
BUDGET = ONE_ANSWER(("100%", "100%", "50%", "10%", 1, 0))
CHANGED = ONE_ANSWER((None, {CLUSTER_FILE: (OLD_COMMIT, "Add an app"), "apps/one": (COMMIT, "Fix")}))
NODES = ONE_ANSWER(([], [a_node(CPU=3, GPU=1, memory=8 * GIB)], [a_node(CPU=64)]))
SLURM = ONE_ANSWER((False, False, False, True))
BOUNDS = ONE_ANSWER(({"min": 0, "max": 4}, {"min": 0, "max": 2}))


@dataclass(frozen=True)
class World:
    desired: DesiredState
    live: LiveState
    fingerprints: Fingerprints
    options: PlanOptions


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Two of three are calm (complete, without targets), so that much is done in them."""
    calm = draw(CALM)
    ids = draw(ORDER)
    apps: list[DesiredApp] = []
    broken: dict[str, tuple[Problem, ...]] = {}
    running: list[AppState] = []
    artifacts: dict[str, LiveArtifact] = {}
    fingerprints: dict[str, dict[str, str | None]] = {}
    trees: dict[str, AppCode] = {}  # a folder has one content in one commit
    for at, app_id in enumerate(ids):
        role = draw(ROLE)
        if role == "absent":
            continue
        code = draw(CODE)
        app = _wanted(draw, app_id, ids[:at], trees.setdefault(code.manifest.id, code) if code else None)
        if role in ("both", "wanted"):
            apps.append(app)
            fingerprints[app_id] = {key: draw(FINGERPRINT) for key in keys_of(app.secrets)}
        if role == "broken":
            broken[app_id] = (a_problem(app_id),)
        if role in ("both", "removed") or (role == "broken" and draw(MAYBE)):
            running.append(_running(draw, app))
        artifact = _stored(draw, app) if app.code or draw(MAYBE) else None
        if artifact:
            artifacts.setdefault(artifact.artifact_id, artifact)
    slurm = draw(SLURM)
    desired = a_desired(
        *_with_dependencies_among(apps, broken),
        broken=broken,
        policy={
            "prune": draw(PRUNE),
            "pruners": draw(PRUNERS),
            "self_heal": draw(MAYBE),
            "removal_budget": draw(BUDGET),
        },
        compute={"mode": "slurm", "workers": {"min": 0, "max": 4}} if slurm else None,
        changed=draw(CHANGED),
    )
    live = a_live(
        *running,
        artifacts=artifacts.values(),
        unseen=() if calm else draw(UNSEEN),
        nodes=draw(NODES),
        mode="slurm" if slurm else "single-machine",
        workers=draw(BOUNDS) if slurm else None,
        workspace=WORKSPACE,
    )
    targets = frozenset[str]() if calm else draw(TARGETS)
    return World(desired, live, fingerprints, PlanOptions(targets, draw(CONFIRMED), draw(MAYBE)))


FLEET = {app_id: an_app(app_id) for app_id in (f"app-{number:02}" for number in range(24))}
SIZE = st.integers(0, 8)
PART_UNSEEN = ONE_ANSWER(((), (), ("artifacts",)))
NOTHING_LEFT = ONE_ANSWER((None, None, None, (0, 3, 0)))
SHARE = ONE_ANSWER(("0%", "10%", "33%", "50%", "100%"))
ROOM = ONE_ANSWER(([], [a_node(CPU=2)], [a_node(CPU=5)]))


@st.composite
def fleets(draw: st.DrawFn) -> World:
    """Many plain apps of which some stay, some go and some are new; little room, and a budget in percent."""
    kept, removed, new = draw(NOTHING_LEFT) or (draw(SIZE), draw(SIZE), draw(SIZE))
    apps = list(FLEET.values())
    stay, go, come = apps[:kept], apps[kept : kept + removed], apps[kept + removed : kept + removed + new]
    desired = a_desired(*stay, *come, policy={"prune": True, "removal_budget": draw(SHARE)})
    live = a_live(
        *(a_status(app) for app in [*stay, *go]),
        artifacts=[an_artifact(app) for app in stay],
        nodes=draw(ROOM),
        unseen=draw(PART_UNSEEN),
    )
    return World(desired, live, {}, PlanOptions(prune_confirmed=draw(CONFIRMED)))


def _with_dependencies_among(apps: list[DesiredApp], broken: Mapping[str, Any]) -> list[DesiredApp]:
    names = {app.app_id for app in apps} | broken.keys()
    return [replace(app, depends_on=tuple(sorted(set(app.depends_on) & names))) for app in apps]


def _wanted(draw: st.DrawFn, app_id: str, before: tuple[str, ...], code: AppCode | None) -> DesiredApp:
    needed = draw(DEPENDENCIES[len(before)]) if before and draw(MAYBE) else ()
    return an_app(
        app_id,
        code=code,
        secrets=draw(SECRETS),
        depends_on=tuple(before[at] for at in needed),
        suspend=draw(SUSPEND),
        disable_gpu=draw(MAYBE),
        env=draw(ENV),
        replicas=draw(REPLICAS),
    )


def _running(draw: st.DrawFn, wanted: DesiredApp) -> AppState:
    """The app as it may run: as wanted, or differing in one way, ours or not."""
    way, owner = draw(WAY), draw(OWNER)
    old = _differing(wanted, way)
    rejected = {"wanted": wanted.spec.digest(), "other": "0" * 64}.get(draw(REJECTED) or "")
    provenance = old.provenance.model_copy(update={"commit": draw(FROM_COMMIT), "owner": owner})
    state = a_status(
        replace(old, provenance=provenance) if owner else old,
        rejected=rejected,
        status=draw(STATUS),
        updating=draw(UPDATING),
    )
    update: dict[str, object] = {} if owner else {"provenance": None}
    match way:
        case "no spec":
            update |= {"spec": None, "digest": "1" * 64}
        case "no digest":
            update |= {"digest": None}
        case "secret":
            update |= {"secret_fingerprints": dict.fromkeys(keys_of(old.secrets), "0" * 16)}
        case _:
            pass
    return state.model_copy(update=update)


def _differing(wanted: DesiredApp, way: str) -> DesiredApp:
    spec, changed = wanted.spec, {}
    match way:
        case "code":
            provenance = wanted.provenance.model_copy(update={"tree": OLD_VERSION.tree})
            return replace(wanted, spec=spec.model_copy(update={"version": OLD_VERSION.name}), provenance=provenance)
        case "kwargs":
            changed = {"kwargs": {"Main": {"size": 3}}}
        case "in place":
            changed = {"max_ongoing_requests": 3, "authorized_users": ["someone"]}
        case "env":
            changed = {"env": {"Main": {"OTHER": "x"}}}
        case "leak":  # a name that is a secret in git runs with its value in plain sight
            changed = {"env": {"*": {"DB_PASS": CANARY}, "Main": {"API_KEY": CANARY}}, "secrets": {}}
        case "gpu":
            changed = {"disable_gpu": not spec.disable_gpu}
        case _:
            pass
    return replace(wanted, spec=spec.model_copy(update=changed))


def _stored(draw: st.DrawFn, app: DesiredApp) -> LiveArtifact | None:
    artifact_id = app.spec.artifact_id
    match draw(STORED):
        case "older":
            return LiveArtifact(artifact_id, (OLD_VERSION,))
        case "this":
            return an_artifact(app)
        case "staged":
            return LiveArtifact(artifact_id, (), staged=True)
        case "other tree":
            return LiveArtifact(artifact_id, (ArtifactVersion(app.spec.version, None),))
        case _:
            return None
