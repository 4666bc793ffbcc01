"""Generated worlds: some apps wanted, some running, some of both in every state that the planner tells apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from bioengine_runtime.contract.status import AppState
from reconciler.planning.desired import AppCode, DesiredApp, DesiredState
from reconciler.planning.diff import CLUSTER_FILE, Fingerprints
from reconciler.planning.live import ArtifactVersion, LiveArtifact, LiveState
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
ROLES = ("absent", "both", "both", "both", "both", "wanted", "wanted", "removed", "removed", "broken")
CANARY = "canary-7f3a91"
"""Stands for a secret value wherever one could come near a plan."""

WAYS_TO_DIFFER = ("same", "code", "kwargs", "in place", "env", "leak", "secret", "gpu", "no spec", "no digest")
STATES = (*["RUNNING"] * 5, "UNHEALTHY", "DEPLOYING", "DEPLOY_FAILED", "DELETING")


@dataclass(frozen=True)
class World:
    desired: DesiredState
    live: LiveState
    fingerprints: Fingerprints
    options: PlanOptions


@st.composite
def codes(draw: st.DrawFn) -> AppCode | None:
    name = draw(st.sampled_from(("one", "two", "three", None)))
    return some_code(name, content=draw(st.sampled_from(("v1", "v2")))) if name else None


@st.composite
def wanted_apps(draw: st.DrawFn, app_id: str, before: tuple[str, ...], code: AppCode | None) -> DesiredApp:
    return an_app(
        app_id,
        code=code,
        secrets=draw(st.sampled_from(({}, a_secret(), a_secret("API_KEY", class_name="Main")))),
        depends_on=tuple(draw(st.sets(st.sampled_from(before), max_size=2))) if before and draw(st.booleans()) else (),
        suspend=draw(st.sampled_from((*[False] * 6, True, "until Monday"))),
        disable_gpu=draw(st.booleans()),
        env=draw(st.sampled_from(({}, {"*": {"LEVEL": "1"}}))),
        replicas=draw(st.sampled_from(({}, {"*": 2}))),
    )


@st.composite
def running_apps(draw: st.DrawFn, wanted: DesiredApp) -> AppState:
    """The app as it may run: as wanted, or differing in one way, ours or not."""
    way = draw(st.sampled_from(WAYS_TO_DIFFER))
    old = _differing(wanted, way)
    commit = draw(st.sampled_from((OLD_COMMIT, COMMIT)))
    owner = draw(st.sampled_from(("prod", "prod", "prod", "staging", None)))
    status = draw(st.sampled_from(STATES))
    rejected = draw(st.sampled_from((*[None] * 5, wanted.spec.digest(), "0" * 64)))
    state = a_status(
        replace(old, provenance=old.provenance.model_copy(update={"commit": commit, "owner": owner or ""})),
        rejected=rejected,
        status=status,
        updating=draw(st.sampled_from((*[False] * 6, True))),
    )
    update: dict[str, object] = {}
    if owner is None:
        update["provenance"] = None
    if way == "no spec":
        update["spec"] = None
        update["digest"] = "1" * 64
    if way == "no digest":
        update["digest"] = None
    if way == "secret":
        update["secret_fingerprints"] = dict.fromkeys(keys_of(old.secrets), "0" * 16)
    return state.model_copy(update=update)


def _differing(wanted: DesiredApp, way: str) -> DesiredApp:
    spec = wanted.spec
    match way:
        case "code":
            tree = "a" * 40
            provenance = wanted.provenance.model_copy(update={"tree": tree})
            return replace(
                wanted, spec=spec.model_copy(update={"version": "0.9.0-gaaaaaaaaaaaa"}), provenance=provenance
            )
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
            changed = {}
    return replace(wanted, spec=spec.model_copy(update=changed))


@st.composite
def stored(draw: st.DrawFn, app: DesiredApp) -> LiveArtifact | None:
    match draw(st.sampled_from(("none", "older", "this", "this", "staged", "other tree"))):
        case "older":
            return LiveArtifact(app.spec.artifact_id, (ArtifactVersion("0.9.0-gaaaaaaaaaaaa", "a" * 40),))
        case "this":
            return an_artifact(app)
        case "staged":
            return LiveArtifact(app.spec.artifact_id, (), staged=True)
        case "other tree":
            return LiveArtifact(app.spec.artifact_id, (ArtifactVersion(app.spec.version, None),))
        case _:
            return None


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Two of three are calm (complete, without targets), so that much is done in them."""
    calm = draw(st.sampled_from((True, True, False)))
    apps: list[DesiredApp] = []
    broken: dict[str, tuple] = {}
    running: list[AppState] = []
    artifacts: dict[str, LiveArtifact] = {}
    fingerprints: dict[str, dict[str, str | None]] = {}
    by_name: dict[str, AppCode] = {}
    for at, app_id in enumerate(IDS):
        role = draw(st.sampled_from(ROLES))
        if role == "absent":
            continue
        code = draw(codes())
        code = by_name.setdefault(code.manifest.id, code) if code else None
        app = draw(wanted_apps(app_id, IDS[:at], code))
        if role in ("both", "wanted"):
            apps.append(app)
            values = st.just("f" * 16) if calm else st.sampled_from(("f" * 16, "f" * 16, None))
            fingerprints[app_id] = {key: draw(values) for key in keys_of(app.secrets)}
        if role == "broken":
            broken[app_id] = (a_problem(app_id),)
        if role != "wanted" and not (role == "broken" and draw(st.booleans())):
            running.append(draw(running_apps(app)))
        artifact = draw(stored(app)) if app.code or draw(st.booleans()) else None
        if artifact and artifact.artifact_id not in artifacts:
            artifacts[artifact.artifact_id] = artifact
    names = {app.app_id for app in apps} | broken.keys()
    apps = [replace(app, depends_on=tuple(sorted(set(app.depends_on) & names))) for app in apps]
    slurm = draw(st.booleans()) and draw(st.booleans())
    desired = a_desired(
        *apps,
        broken=broken,
        policy={
            "prune": draw(st.sampled_from((True, True, False))),
            "self_heal": draw(st.booleans()),
            "removal_budget": draw(st.sampled_from(("100%", "100%", "50%", "10%", 1, 0))),
        },
        compute={"mode": "slurm", "workers": {"min": 0, "max": 4}} if slurm else None,
        changed=draw(st.sampled_from((None, {CLUSTER_FILE: (OLD_COMMIT, "Add an app"), "apps/one": (COMMIT, "Fix")}))),
    )
    nodes = draw(st.sampled_from(([], [a_node(CPU=3, GPU=1, memory=8 * GIB)], [a_node(CPU=64)])))
    unseen = (
        () if calm else draw(st.sampled_from(((), ("artifacts",), ("artifacts",), ("apps",), ("apps", "artifacts"))))
    )
    live = a_live(
        *running,
        artifacts=artifacts.values(),
        unseen=unseen,
        nodes=nodes,
        mode="slurm" if slurm else "single-machine",
        workers=draw(st.sampled_from(({"min": 0, "max": 4}, {"min": 0, "max": 2}))) if slurm else None,
        workspace=WORKSPACE,
    )
    options = PlanOptions(
        targets=frozenset()
        if calm
        else draw(st.sampled_from((frozenset[str](), frozenset({"app-b"}), frozenset({"app-a", "app-d"})))),
        prune_confirmed=draw(st.sampled_from((0, 0, 1, 6))),
        force=draw(st.booleans()),
    )
    return World(desired, live, fingerprints, options)
