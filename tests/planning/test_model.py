"""RP-14: every world of two apps that six events can bring about, and the real planner in each of them.

An app is wanted as one of WANTED and runs as one of RUNS; an event is a push, a hand on the cluster, or a pass: done
in full, killed after any of its steps, or made from a look that a hand has made old meanwhile. In every world reached,
the plans (of a full look and of looks that missed something) hold RP-05, RP-06 and RP-07, and what they do, too. Two
apps are interchangeable, so of a world and its mirror image one is looked at.

Each invariant was seen failing: no removal budget, an empty source not refused, removals while something was unseen,
owners not compared, no digest expected of what is changed, a deployment that does not need its upload, a rejected
version tried again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import NamedTuple

from bioengine_runtime.contract.status import AppState
from reconciler.planning.desired import DesiredApp, DesiredState
from reconciler.planning.live import ArtifactVersion, LiveArtifact, LiveState, Unseen
from reconciler.planning.planner import plan
from reconciler.planning.steps import DeployApp, Plan, PrepareRuntimeEnv, StopApp, UpdateApp, UploadArtifact
from tests.builders import a_desired, a_problem, a_status, a_worker, an_app, some_code

DEPTH = 6
WORLDS_AT_LEAST = 20_000
"""So that the model cannot shrink unnoticed."""

IDS = ("app-a", "app-b")
VERSIONS = ("v1", "v2", "bad")
WANTED = ("absent", *VERSIONS, "broken")
"""`bad` never comes up; `broken` is a declaration that is invalid."""
RUNS = ("absent", "v1", "v2", "bad", "v1 after bad", "v2 after bad", "unhealthy", "foreign")
"""`after bad`: it was put back when `bad` did not come up. `unhealthy`: v1, whose replica fails its check."""


class One(NamedTuple):
    """One app of a world: as git wants it, as it runs, and the versions of its folder that are stored."""

    wanted: str
    runs: str
    stored: frozenset[str]


World = tuple[One, One]
NOTHING = One("absent", "absent", frozenset())


@dataclass(frozen=True)
class Act:
    """A step as the model does it. `needs` are places in the plan's acts."""

    verb: str
    app: int
    version: str = ""
    expected: str | None = None
    needs: tuple[int, ...] = ()


def test_rp_14_in_every_world_that_six_events_make_the_plan_keeps_the_invariants() -> None:
    """RP-05, RP-06, RP-07 and RP-12 in each of about 21,000 worlds."""
    seen = {(one, other) for one, other in product(_beginnings(), repeat=2) if (one, other) == _canonical((one, other))}
    edge = list(seen)
    for _ in range(DEPTH):
        edge = [new for world in edge for new in {_canonical(to) for to in _after(world)} if _is_new(new, seen)]
    assert len(seen) >= WORLDS_AT_LEAST, len(seen)
    assert {one.runs for world in seen for one in world} == set(RUNS)
    for world in seen:
        _check_plans(world)
        _check_convergence(world)


def test_rp_14_of_a_world_and_its_mirror_image_the_plan_is_the_mirror_image() -> None:
    ways = [One(wanted, runs, frozenset()) for wanted, runs in product(WANTED, RUNS)]
    for one, other in product(ways, repeat=2):
        assert sorted(_shapes((one, other), IDS)) == sorted(_shapes((other, one), IDS[::-1]))


def _shapes(world: World, names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(type(step.verb).__name__, str(step.app_id == names[0])) for step in _plan(world).steps]


def _beginnings() -> Iterator[One]:
    """Nothing at all, and every way in which an app may have been left to a reconciler that starts anew."""
    for runs in RUNS:
        yield NOTHING._replace(runs=runs)


def _is_new(world: World, seen: set[World]) -> bool:
    new = world not in seen
    seen.add(world)
    return new


def _canonical(world: World) -> World:
    one, other = world
    return world if _rank(one) <= _rank(other) else (other, one)


@cache
def _rank(one: One) -> tuple[str, str, list[str]]:
    return one.wanted, one.runs, sorted(one.stored)


# ── what may happen ────────────────────────────────────────────────────────────────────────────────────────────────


def _after(world: World) -> Iterator[World]:
    yield from _pushes(world)
    hands = list(_hands(world))
    yield from hands
    acts = _acts(world)
    for done in _prefixes(acts):
        yield _carried_out(acts, done, world)
    everything = tuple(range(len(acts)))
    for moved in hands if acts else ():
        yield _carried_out(acts, everything, moved, looked=world)


def _pushes(world: World) -> Iterator[World]:
    for at, wanted in product((0, 1), WANTED):
        if world[at].wanted != wanted:
            yield _with(world, at, world[at]._replace(wanted=wanted))


def _hands(world: World) -> Iterator[World]:
    """Somebody stops it, starts an app of that id, or loses what is stored; or its replica fails."""
    for at in (0, 1):
        one = world[at]
        if one.runs != "absent":
            yield _with(world, at, one._replace(runs="absent"))
        if one.runs in ("absent", "v1"):
            yield _with(world, at, one._replace(runs="foreign" if one.runs == "absent" else "unhealthy"))
        if one.stored:
            yield _with(world, at, one._replace(stored=frozenset[str]()))


def _with(world: World, at: int, one: One) -> World:
    return (one, world[1]) if at == 0 else (world[0], one)


@cache
def _prefixes(acts: tuple[Act, ...]) -> tuple[tuple[int, ...], ...]:
    """Every set of acts that holds what each of them needs: a kill may leave any of these done."""
    found: list[tuple[int, ...]] = [()]
    for at, act in enumerate(acts):
        found += [(*done, at) for done in found if set(act.needs) <= set(done)]
    return tuple(found)


def _carried_out(acts: tuple[Act, ...], done: tuple[int, ...], world: World, *, looked: World | None = None) -> World:
    """The world after these acts, where what is refused stops what needs it; `looked`: the world of the plan, if it is
    another by now. On the way: nothing is refused without a cause, and only what was looked at is changed (RP-06)."""
    refused: set[int] = set()
    before = looked or world
    for at in done:
        act = acts[at]
        one = world[act.app]
        if refused & set(act.needs):
            refused.add(at)
        elif (new := _done(act, one)) is None:
            assert looked, (act, world)
            refused.add(at)
        else:
            same = _digest(one.runs) == _digest(before[act.app].runs) and one.runs != "foreign"
            assert same or new.runs == one.runs, (act, before, world)
            world = _with(world, act.app, new)
    return world


@cache
def _done(act: Act, one: One) -> One | None:
    """What becomes of one app; None when the worker refuses, as it does for what changed since the look."""
    if act.verb == "upload":
        return one._replace(stored=one.stored | {act.version})
    digest, ours = _digest(one.runs), one.runs not in ("foreign", "absent")
    if act.verb == "stop":
        if one.runs == "absent":
            return one
        return one._replace(runs="absent") if ours and act.expected in (None, digest) else None
    if one.runs == "foreign" or act.expected not in (None, digest) or act.version not in one.stored:
        return None
    if act.version != "bad":
        return one._replace(runs=act.version)
    put_back = digest if digest in ("v1", "v2") else ""
    return one._replace(runs=f"{put_back} after bad" if put_back else "bad")


def _digest(runs: str) -> str:
    """Which version runs, "" for none; the model's name for its digest."""
    return {"absent": "", "unhealthy": "v1"}.get(runs, runs.split()[0])


# ── what the planner sees, and what it says ────────────────────────────────────────────────────────────────────────


@cache
def _acts(world: World) -> tuple[Act, ...]:
    """The plan of a full look, as acts; environments, which change nothing that is seen, are left out."""
    acts: list[Act] = []
    place: dict[str, tuple[int, ...]] = {}
    for step in _plan(world).steps:
        needs = tuple(at for address in step.needs for at in place[address])
        expected = dict(step.pre).get("app.digest")
        known = None if expected is None else _name_of_digest(expected)
        match step.verb:
            case PrepareRuntimeEnv():
                place[step.address] = needs
                continue
            case UploadArtifact(artifact_id, version):
                app = IDS.index(artifact_id.partition("/")[2])
                act = Act("upload", app, _name_of_version(app, version), needs=needs)
            case DeployApp(spec) | UpdateApp(spec):
                app = IDS.index(spec.app_id)
                act = Act("apply", app, _name_of_version(app, spec.version), known, needs)
            case StopApp(app_id):
                act = Act("stop", IDS.index(app_id), "", known, needs)
            case _:
                raise AssertionError(f"nobody asked for {step.address}")
        place[step.address] = (len(acts),)
        acts.append(act)
    return tuple(acts)


@cache
def _plan(world: World) -> Plan:
    return plan(_desired(world[0].wanted, world[1].wanted), _live(world), {})


def _check_plans(world: World) -> None:
    _check(world, _plan(world), complete=True)
    for made in _plans_of_partial_looks(world):
        _check(world, made, complete=False)


def _check(world: World, made: Plan, *, complete: bool) -> None:
    stops = [step for step in made.steps if isinstance(step.verb, StopApp)]
    desired = _desired(world[0].wanted, world[1].wanted)
    owned = sum(one.runs not in ("absent", "foreign") for one in world)
    started = sum(isinstance(step.verb, DeployApp) for step in made.steps)
    assert len(stops) <= desired.cluster.policy.removals_allowed(owned + started), world  # RP-05
    assert not stops or (complete and (desired.apps or desired.broken)), world
    for step in made.steps:
        if isinstance(step.verb, DeployApp | UpdateApp | StopApp):
            one = world[IDS.index(step.app_id or "")]
            assert one.runs != "foreign", world  # RP-06
            assert one.wanted != "broken", world
            assert isinstance(step.verb, StopApp) == (one.wanted == "absent"), world
        if isinstance(step.verb, DeployApp | UpdateApp):
            assert step.verb.spec.app_id == step.app_id, world  # RP-07


def _check_convergence(world: World) -> None:
    """One undisturbed pass settles everything; what it leaves alone, and what was rejected, stays untouched."""
    acts = _acts(world)
    after = _carried_out(acts, tuple(range(len(acts))), world)
    assert not _acts(after), (world, after)
    for before, now in zip(world, after, strict=True):
        assert not before.runs.endswith("bad") or now.wanted != "bad" or now.runs == before.runs, world
        assert now.wanted not in ("v1", "v2") or now.runs == "foreign" or _digest(now.runs) == now.wanted, (world, now)


def _plans_of_partial_looks(world: World) -> tuple[Plan, ...]:
    one, other = world
    no_apps = _plan_without_apps((one.wanted, other.wanted), (one.stored, other.stored))
    return no_apps, _plan_without_artifacts((one.wanted, other.wanted), (one.runs, other.runs))


@cache
def _plan_without_apps(wanted: tuple[str, str], stored: tuple[frozenset[str], frozenset[str]]) -> Plan:
    return plan(_desired(*wanted), LiveState(None, _artifacts(stored), (Unseen("apps", "no answer"),)), {})


@cache
def _plan_without_artifacts(wanted: tuple[str, str], runs: tuple[str, str]) -> Plan:
    return plan(_desired(*wanted), LiveState(_worker(runs), None, (Unseen("artifacts", "no answer"),)), {})


# ── the values of the real planner ─────────────────────────────────────────────────────────────────────────────────

APPS = {
    (at, version): an_app(IDS[at], code=some_code(IDS[at], content=version))
    for at, version in product((0, 1), VERSIONS)
}
NAMES_BY_DIGEST = {app.spec.digest(): version for (_, version), app in APPS.items()}
WORKER = a_worker()


def _name_of_digest(digest: str) -> str:
    return NAMES_BY_DIGEST[digest] if digest else ""


def _name_of_version(at: int, version: str) -> str:
    return next(name for name in VERSIONS if APPS[at, name].spec.version == version)


@cache
def _desired(*wanted: str) -> DesiredState:
    apps = [APPS[at, name] for at, name in enumerate(wanted) if name in VERSIONS]
    broken = {IDS[at]: (a_problem(IDS[at]),) for at, name in enumerate(wanted) if name == "broken"}
    return a_desired(*apps, broken=broken, policy={"prune": True, "removal_budget": "50%"})


def _live(world: World) -> LiveState:
    one, other = world
    return LiveState(_worker((one.runs, other.runs)), _artifacts((one.stored, other.stored)))


@cache
def _worker(runs: tuple[str, str]):
    return WORKER.model_copy(update={"apps": [app for at, name in enumerate(runs) if (app := _app_state(at, name))]})


@cache
def _artifacts(stored: tuple[frozenset[str], frozenset[str]]) -> dict[str, LiveArtifact]:
    found: dict[str, LiveArtifact] = {}
    for at, names in enumerate(stored):
        versions = tuple(ArtifactVersion(APPS[at, name].spec.version, _tree(APPS[at, name])) for name in sorted(names))
        if versions:
            artifact_id = APPS[at, "v1"].spec.artifact_id
            found[artifact_id] = LiveArtifact(artifact_id, versions)
    return found


def _tree(app: DesiredApp) -> str | None:
    return app.code.folder.tree if app.code else None


@cache
def _app_state(at: int, runs: str) -> AppState | None:
    match runs:
        case "absent":
            return None
        case "foreign":
            return a_status(an_app(IDS[at], owner="somebody-else"))
        case "unhealthy":
            return a_status(APPS[at, "v1"], status="UNHEALTHY")
        case "bad":
            return a_status(APPS[at, "bad"], status="DEPLOY_FAILED", rejected=APPS[at, "bad"].spec.digest())
        case "v1" | "v2":
            return a_status(APPS[at, runs])
        case _:
            return a_status(APPS[at, runs.split()[0]], rejected=APPS[at, "bad"].spec.digest())
