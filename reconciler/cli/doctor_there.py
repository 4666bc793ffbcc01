"""Checks of what is asked over the network: the repository, Hypha, our rights there, the worker, what is remembered."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, cast

import httpx

from bioengine_runtime.contract.cluster import ClusterSpec
from bioengine_runtime.contract.status import WorkerState
from reconciler.adapters.hypha import Address, HyphaSession, unwrapped
from reconciler.cli.checkup import Check, fail, not_needed, ok, warn
from reconciler.cli.doctor_here import locked_version
from reconciler.errors import ReconcilerError, Unreachable, in_words
from reconciler.lease import TTL_S, runs
from reconciler.planning.live import LiveState
from reconciler.planning.memory import Holder
from reconciler.planning.shown import at, count, duration, plain, size

SLOW_S = 2.0
SKEW_WARN_S, SKEW_FAIL_S = 30.0, 300.0
"""Leases and tokens compare clocks of several machines; half a lease and Hypha's own tolerance."""
SOON_S = 7 * 86400.0
READY = "/health/readiness"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Greeting:
    """Hypha's answer to a plain question: how long it took, and its clock (seconds since the epoch), if it told."""

    seconds: float
    clock: float | None


@dataclass(frozen=True, slots=True)
class Standing:
    """Who we are to Hypha: the workspace, and what we may do there (`a`, `rw`, `r`, or "" when it does not say)."""

    workspace: str
    grant: str


class Wire(Protocol):
    """How Hypha is asked about itself."""

    async def greet(self) -> Greeting:
        """Raises Unreachable."""
        ...

    async def standing(self) -> Standing:
        """Raises Unreachable, also when the token is refused."""
        ...


class HyphaWire:
    """Wire to a real server."""

    def __init__(self, address: Callable[[], Address]) -> None:
        self._address = address

    async def greet(self) -> Greeting:
        url = self._address().server_url.rstrip("/")
        own = httpx.URL(url).host not in _LOOPBACK
        try:
            async with httpx.AsyncClient(timeout=10.0, trust_env=own) as client:
                await client.get(url + READY)  # the connection is made, and not counted
                began = time.perf_counter()
                answer = await client.get(url + READY)
                seconds = time.perf_counter() - began
        except httpx.HTTPError as error:
            why = plain(str(error) or type(error).__name__, 200)
            raise Unreachable(f"{url} does not answer: {why}", hint=_WHICH_SERVER) from None
        if not answer.is_success:
            raise Unreachable(f"{url} is not ready (it answers {answer.status_code})", hint="Look at Hypha's own log.")
        return Greeting(seconds, _clock_of(answer.headers.get("date", "")))

    async def standing(self) -> Standing:
        session = HyphaSession(self._address)
        try:
            config = (await session.connection()).config
            workspace, user = str(config.workspace), unwrapped(config.user)
        finally:
            await session.close()
        return Standing(workspace, _grant(user, workspace))


def _grant(user: Any, workspace: str) -> str:
    """Of Hypha's word on a user; "" when it says nothing of this workspace."""
    grants = _as_table(_as_table(_as_table(user).get("scope")).get("workspaces"))
    return str(grants.get(workspace) or grants.get("*") or "")


def _as_table(found: Any) -> Mapping[str, Any]:
    """Empty for what is none."""
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


_WHICH_SERVER = "Is the server up, and the URL right? (hypha.server_url in cluster.yaml, or --server-url)"


def token(address: Callable[[], Address], now: float) -> Check:
    """Whether there is one, and how long it is good for. Its text is never shown."""
    name = "token"
    try:
        there = address()
    except ReconcilerError as error:
        return fail(name, plain(str(error), 200), error.hint)
    except OSError as error:
        return fail(name, f"it cannot be read ({error.strerror})", "Is the home right, and is it yours? (--home)")
    if there.token is None:
        return warn(name, "none: we are nobody to Hypha", "Give one: hypha.token in cluster.yaml, or --token-file.")
    end = _end_of(there.token)
    if end is None:
        return warn(name, "it does not say when it ends", "Nothing to do, if it is one that does not end.")
    if end <= now:
        return fail(name, f"it ended on {at(end)}", "Make a new one on Hypha, and put it where this one is read from.")
    saw = f"good until {at(end)}"
    if end - now < SOON_S:
        return warn(name, f"{saw}, in {duration(end - now)}", "Make a new one on Hypha before that.")
    return ok(name, saw)


def _end_of(text: str) -> float | None:
    """When a token ends, seconds since the epoch; None for what is no JWT, or one without an end. It is read for its
    date only: whether it is good is for Hypha to say."""
    parts = text.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = _as_table(json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))))
    except (ValueError, RecursionError):
        return None
    found = claims.get("exp")
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


async def hypha(wire: Wire, now: Callable[[], float]) -> tuple[Check, ...]:
    """Whether it answers, how fast, and whether our clocks agree."""
    try:
        said = await wire.greet()
    except Unreachable as error:
        clock = not_needed("clock", "Hypha did not tell the time")
        return fail("hypha", plain(str(error), 300), error.hint), clock
    milliseconds = f"answers in {said.seconds * 1000:.0f} ms"
    slow = warn("hypha", milliseconds, "Every step asks it several times: run nearer to it.")
    return (slow if said.seconds > SLOW_S else ok("hypha", milliseconds)), _clock(said.clock, now())


def _clock(theirs: float | None, ours: float) -> Check:
    if theirs is None:
        return warn("clock", "Hypha does not tell the time", "Compare the clocks by hand: date -u")
    # Theirs is cut to whole seconds.
    skew = max(0.0, abs(ours - theirs) - 1.0)
    saw = f"{skew:.0f} s from Hypha's" if skew else "as Hypha's"
    if skew > SKEW_FAIL_S:
        return fail("clock", saw, "Set the clock (chronyc tracking, timedatectl): tokens and leases depend on it.")
    if skew > SKEW_WARN_S:
        return warn("clock", saw, "Set the clock (chronyc tracking, timedatectl) before leases overlap.")
    return ok("clock", saw)


async def rights(wire: Wire, live: LiveState) -> tuple[Check, ...]:
    """What we may do, found out without doing it: by what was answered, and by what Hypha says of us."""
    try:
        standing = await wire.standing()
    except Unreachable as error:
        return (fail("rights", plain(str(error), 300), error.hint),)
    may_list = _of(live, "artifacts", "rights: artifacts", f"may list those of {standing.workspace}")
    may_read = _of(live, "apps", "rights: worker", "may ask it as an admin")
    return (*_written(standing), may_list, may_read)


def _written(standing: Standing) -> Iterator[Check]:
    where = plain(standing.workspace, 80)
    match standing.grant:
        case "a" | "rw":
            yield ok("rights", f"may write in {where} ({standing.grant})")
        case "":
            yield warn("rights", f"Hypha does not say what we may do in {where}", "The first apply will show it.")
        case less:
            fix = "Use a token with the permission read_write for this workspace."
            yield fail("rights", f"may not write in {where} ({plain(less, 20)})", fix)


def _of(live: LiveState, what: str, name: str, saw: str) -> Check:
    unseen = next((one for one in live.unseen if one.what == what), None)
    fix = "May the token do so? It needs the rights of an admin of the worker, and to read the workspace."
    return fail(name, plain(unseen.why, 300), fix) if unseen else ok(name, saw)


def worker(state: WorkerState | None, cluster: ClusterSpec) -> Iterator[Check]:
    """Its version and mode against ours, and what its Ray has."""
    if state is None:
        yield fail("worker", "it does not tell what runs", "Is it running? Its service id is hypha.worker.")
        yield not_needed("ray", "the worker did not tell")
        return
    saw = f"{plain(state.service_id, 120)}, BioEngine {plain(state.bioengine_version, 20)}, {state.mode}"
    if state.mode != cluster.compute.mode:
        fix = f"Start it in that mode, or write compute.mode: {state.mode}."
        yield fail("worker", f"{saw}; cluster.yaml says {cluster.compute.mode}", fix)
    else:
        yield ok("worker", saw)
    yield _ray(state)


def _ray(state: WorkerState) -> Check:
    locked = locked_version("ray")
    total = {what: sum(node.total.get(what, 0.0) for node in state.nodes) for what in ("CPU", "GPU", "memory")}
    nodes = (
        f"{count(len(state.nodes), 'node')}, {total['CPU']:g} CPUs, {total['GPU']:g} GPUs, {size(int(total['memory']))}"
    )
    saw = f"{plain(state.ray_version, 20)}, {nodes}"
    if state.ray_version != locked:
        return fail("ray", f"{saw}; {locked} is what we are made for", "Update the worker, or this reconciler.")
    if not total["CPU"]:
        fix = "Nothing can run there yet. With SLURM: is workers.max above 0, and does squeue show the jobs?"
        return warn("ray", saw, fix)
    return ok("ray", saw)


def remembered(live: LiveState, now: float) -> tuple[Check, ...]:
    """Whether what is remembered can be read, and who has the right to write."""
    unseen = next((one for one in live.unseen if one.what == "memory"), None)
    if unseen or live.remembered is None:
        why = unseen.why if unseen else "it was not read"
        fix = "Without it nobody may write. Is Hypha well, and may the token read the workspace?"
        return fail("memory", plain(why, 300), fix), not_needed("lease", "what is remembered cannot be read")
    orders = count(len(live.remembered.orders), "order")
    return ok("memory", f"readable, {orders}"), _lease(live.remembered.holder, now)


def _lease(holder: Holder | None, now: float) -> Check:
    if holder is None:
        return ok("lease", "nobody has it")
    if runs(holder) is False or now - holder.renewed > TTL_S:
        fix = "If it is dead, the next one takes it by itself; or now: reconcile lock --release"
        return warn("lease", f"{in_words(holder)}, renewed {duration(max(0.0, now - holder.renewed))} ago", fix)
    return ok("lease", in_words(holder))


def _clock_of(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
