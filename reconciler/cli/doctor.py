"""`reconcile doctor`: everything that is needed, looked at once, from here outwards. Nothing is changed anywhere, but
the mirror of a remote repository is brought up to date."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

from rich.text import Text

from bioengine_runtime.contract.cluster import ClusterSpec
from reconciler.adapters.hypha import Address
from reconciler.cli import doctor_here as here
from reconciler.cli import doctor_there as there
from reconciler.cli.checkup import Check, Level, fail, failed, not_needed, ok
from reconciler.cli.place import Place, address_of, opened
from reconciler.cli.show import Screen
from reconciler.errors import InvalidDesiredState, ReconcilerError
from reconciler.observe import observe
from reconciler.planning.declare import declare
from reconciler.planning.shown import count, plain
from reconciler.ports import World
from reconciler.secrets import LocalSecrets

FORMAT_VERSION = "1.0"
PATIENCE_S = 30.0
MARKS = {
    Level.OK: ("✔", "green"),
    Level.WARN: ("!", "yellow"),
    Level.FAIL: ("✗", "red"),
    Level.NOT_NEEDED: ("-", "dim"),
}

Addressed = Callable[[ClusterSpec], Address]
"""Where the Hypha of a cluster is, and who we are there. Raises Unreachable."""
Wired = Callable[[Callable[[], Address]], there.Wire]


async def doctor(
    place: Place,
    screen: Screen,
    *,
    webhook_secret_file: Path | None,
    as_json: bool,
    wired: Wired = there.HyphaWire,
) -> int:
    """Exit 0: nothing fails; 1: something does."""
    checks: list[Check] = []
    async with opened(place, writes=False) as world:
        screen.masked = world.secrets.masked
        async for check in examine(place, world, webhook_secret_file=webhook_secret_file, wired=wired):
            check = replace(check, fix=screen.typed(check.fix))
            checks.append(check)
            if not as_json:
                _show(check, screen)
    sick = failed(checks)
    following = screen.typed(f"reconcile {'doctor' if sick else 'plan'}")
    if as_json:
        screen.document(_document(checks, following))
    else:
        warnings = sum(check.level is Level.WARN for check in checks)
        said = f"\n{count(len(checks), 'check')}: {len(sick)} failed, {count(warnings, 'warning')}."
        screen.result(f"{said}\nNext: {'mend what fails, then ' if sick else ''}{following}")
    return 1 if sick else 0


async def examine(
    place: Place, world: World, *, webhook_secret_file: Path | None, wired: Wired = there.HyphaWire
) -> AsyncIterator[Check]:
    """The checks, each as soon as it is made."""
    for check in (*here.git(), *here.versions(), *here.home(place.home), here.webhook_secret(webhook_secret_file)):
        yield check
    source, desired, cluster = await _source(world)
    yield source
    yield desired
    yield here.slurm(cluster)
    if cluster is None:
        for name in ("token", *_OUTSIDE):
            yield not_needed(name, "cluster.yaml says where Hypha is, and is not read")
        return

    def address() -> Address:
        spec = place.hypha_of(cluster)
        secrets = world.secrets if isinstance(world.secrets, LocalSecrets) else LocalSecrets(place.home)
        return address_of(spec, place.home, secrets)

    yield there.token(address, time.time())
    wire = wired(address)
    hypha, clock = await there.hypha(wire, time.time)
    yield hypha
    yield clock
    if hypha.level is Level.FAIL:
        for name in _OUTSIDE[2:]:
            yield not_needed(name, "Hypha does not answer")
        return
    live = await observe(world.hypha(cluster), timeout_s=PATIENCE_S)
    asked = await there.rights(wire, live)
    for check in (*asked, *there.worker(live.worker, cluster), *there.remembered(live, time.time())):
        yield check


_OUTSIDE = ("hypha", "clock", "rights", "worker", "ray", "memory", "lease")


async def _source(world: World) -> tuple[Check, Check, ClusterSpec | None]:
    unread = not_needed("cluster.yaml", "the source is not read")
    try:
        tree = await world.source.fetch()
    except ReconcilerError as error:
        return fail("source", plain(str(error), 300), error.hint), unread, None
    saw = f"{plain(tree.revision.url, 120)} {tree.revision.short}"
    if tree.revision.away:
        away = plain(tree.revision.away, 200)
        source = fail("source", f"{saw} is what was known last: {away}", "Is the repository's server up?")
    else:
        source = ok("source", saw)
    validate = "reconcile validate says where and how to mend it."
    try:
        desired = declare(tree)
    except InvalidDesiredState as error:
        return source, fail("cluster.yaml", plain(f"{error}: {error.problems[0].message}", 300), validate), None
    except ReconcilerError as error:
        return source, fail("cluster.yaml", plain(str(error), 300), error.hint or validate), None
    if desired.problems:
        saw = f"{count(len(desired.problems), 'problem')}: {desired.problems[0].message}"
        return source, fail("cluster.yaml", plain(saw, 300), validate), desired.cluster
    named = f"{desired.cluster.name}, {count(len(desired.apps), 'app')}"
    return source, ok("cluster.yaml", named), desired.cluster


def _show(check: Check, screen: Screen) -> None:
    mark, style = MARKS[check.level]
    screen.result(Text.assemble((mark, style), f" {check.name:<18} ", plain(check.saw)))
    if check.fix:
        screen.result(Text.assemble(f"  {'':<18} ", ("fix: ", "bold"), plain(check.fix)))


def _document(checks: list[Check], following: str) -> dict[str, object]:
    return {
        "format_version": FORMAT_VERSION,
        "ok": not failed(checks),
        "checks": [
            {"name": check.name, "level": check.level.value, "saw": check.saw, "fix": check.fix} for check in checks
        ],
        "next": following,
    }
