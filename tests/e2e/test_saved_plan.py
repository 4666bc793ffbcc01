"""`reconcile plan --out`, then `reconcile apply` of that file: exactly what was read, or nothing at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.lab import Ended, Lab
from tests.fakes import a_repository, an_app_folder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

OWNER = "lab"
REFUSED = 3


@pytest_asyncio.fixture
async def update(lab: Lab, tmp_path: Path) -> Path:
    """alpha runs and says `pong`; a saved plan would have it say `pong 2`."""
    await lab.push(a_repository("alpha"))
    done = await lab.apply()
    assert done.code == 0, done.stdout + done.stderr
    await lab.push(an_app_folder("alpha", says="pong 2"))
    return await plan(lab, tmp_path / "plan.json")


async def plan(lab: Lab, file: Path) -> Path:
    planned = await lab.reconcile("plan", "--out", str(file), "--detailed-exitcode")
    assert planned.code == 2, planned.stdout + planned.stderr
    return file


async def apply(lab: Lab, file: Path) -> Ended:
    """What takes a repository takes a saved plan."""
    return await replace(lab, repository=file).apply()


async def refused(lab: Lab, file: Path) -> str:
    """What is said when the plan is refused; nothing was done."""
    before, stored = await deployed(lab), await lab.artifacts.list()
    done = await apply(lab, file)
    assert done.code == REFUSED, done.stderr
    assert await deployed(lab) == before and await lab.artifacts.list() == stored
    return done.stderr


async def deployed(lab: Lab) -> dict[str, tuple[str | None, float | None]]:
    """What runs and since when; old replicas that still finish their calls do not matter."""
    return {app_id: (app.digest, app.last_updated_at) for app_id, app in (await lab.apps()).items()}


def edit(file: Path) -> None:
    """Leave out the first step."""
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "steps": document["steps"][1:]}))


async def eventually(done: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(150):
        if await done():
            return
        await asyncio.sleep(0.2)
    raise AssertionError("not within 30 s")


async def test_a_saved_plan_does_what_it_says_and_only_once(lab: Lab, update: Path) -> None:
    done = await apply(lab, update)
    assert done.code == 0, done.stdout + done.stderr
    assert done.results == {"upload alpha": "done", "prepare alpha": "done", "update alpha": "done"}
    assert await lab.call("alpha") == "pong 2"
    assert "no longer fits" in await refused(lab, update)


async def test_a_saved_plan_is_refused_when_the_source_has_moved(lab: Lab, update: Path) -> None:
    await lab.push(an_app_folder("alpha", says="pong 3"))
    said = await refused(lab, update)
    assert "the source moved" in said and "reconcile plan" in said
    assert await lab.call("alpha") == "pong"


async def test_a_saved_plan_is_refused_when_what_runs_has_moved(lab: Lab, update: Path) -> None:
    await lab.runtime.remove("alpha", owner=OWNER, expected=None)

    async def gone() -> bool:
        return "alpha" not in await lab.apps()

    await eventually(gone)
    said = await refused(lab, update)
    assert "what runs or is stored changed" in said and "the source moved" not in said


async def test_an_edited_plan_is_refused(lab: Lab, update: Path) -> None:
    edit(update)
    assert "the file was changed" in await refused(lab, update)
    assert await lab.call("alpha") == "pong"


async def test_a_saved_plan_waits_for_its_approval(lab: Lab, tmp_path: Path) -> None:
    manual, callers = "policy: {apply: manual}\n", '    authorized_users: ["*", ann@lab.example]\n'
    await lab.push(a_repository("alpha", cluster=manual, alpha=callers))
    file = await plan(lab, tmp_path / "plan.json")
    plan_id = json.loads(file.read_text())["id"]
    assert f"reconcile approve {plan_id}" in await refused(lab, file)
    said = await replace(lab, repository=Path(plan_id)).reconcile("approve", "--repo", str(lab.repository))
    assert said.code == 0, said.stderr
    done = await apply(lab, file)
    assert done.code == 0, done.stdout + done.stderr
    spec = (await lab.apps())["alpha"].spec
    assert spec and "ann@lab.example" in str(spec.authorized_users)
