"""Partial and wrong reads: unknown is not empty (RR-01 … RR-04)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import pytest

from bioengine_runtime.contract.app import AppSpec
from reconciler.adapters.artifacts import HyphaArtifacts, comment, tree_of
from reconciler.adapters.hypha import RemoteError
from reconciler.adapters.runtime import WorkerRuntime
from reconciler.errors import Spoiled, Unreachable
from reconciler.observe import observe
from reconciler.planning.live import LiveArtifact
from reconciler.ports import Hypha, StepFailed
from tests.builders import a_worker
from tests.contracts.ports import REMEMBERED
from tests.fakes import FakeArtifacts, FakeMemory, FakeRuntime


class ScriptedSession:
    """A Hypha session that answers from a table: method → the answers, in order; an exception is raised."""

    def __init__(self, **answers: list[object]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, object]]] = []

    async def workspace(self) -> str:
        return "ws"

    async def find(self, service_id: str) -> str:
        return service_id

    async def ask(self, service_id: str, method: str, *, timeout_s: float, **arguments: object) -> object:  # noqa: ARG002 - as the real one
        self.asked.append((method, arguments))
        answer = self.answers[method].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def a_record(alias: str, **fields: object) -> dict[str, object]:
    return {"id": f"ws/{alias}", "versions": [], "staging": None, **fields}


async def test_all_questions_are_asked_at_once() -> None:
    runtime, artifacts = FakeRuntime(), FakeArtifacts()
    live = await observe(Hypha(artifacts, runtime))
    assert live.complete and live.worker is not None and live.artifacts == {}


async def test_an_error_is_unseen_and_says_why() -> None:
    runtime, artifacts = FakeRuntime(), FakeArtifacts()
    runtime.fail("observe")
    live = await observe(Hypha(artifacts, runtime))
    assert live.worker is None and live.artifacts == {}
    assert [(unseen.what, unseen.why) for unseen in live.unseen] == [("apps", "observe: no answer. Try again.")]


async def test_what_is_remembered_is_asked_for_too() -> None:
    memory, began = FakeMemory(REMEMBERED), time.time()
    live = await observe(Hypha(FakeArtifacts(), FakeRuntime(), memory=memory))
    assert live.complete and live.remembered == REMEMBERED and memory.calls == ["read"]
    assert began <= live.observed_at <= time.time()


@pytest.mark.parametrize("error", [Unreachable("away", hint="Wait."), Spoiled("forged", hint="Wait.")])
async def test_rc_12_a_memory_that_cannot_be_read_is_not_an_empty_one(error: Unreachable) -> None:
    memory = FakeMemory(REMEMBERED)
    memory.fail("read", error)
    live = await observe(Hypha(FakeArtifacts(), FakeRuntime(), memory=memory))
    assert live.remembered is None and not live.complete
    assert [(unseen.what, unseen.why) for unseen in live.unseen] == [("memory", f"{error}. Wait.")]


async def test_silence_is_unseen_after_its_time() -> None:
    class Silent(FakeArtifacts):
        async def list(self) -> Mapping[str, LiveArtifact]:
            await asyncio.Event().wait()
            return {}

    began = time.monotonic()
    live = await observe(Hypha(Silent(), FakeRuntime()), timeout_s=0.05)
    assert live.artifacts is None and live.worker is not None
    assert time.monotonic() - began < 5


async def test_rr_01_all_pages_are_read() -> None:
    first, second = [a_record(f"a{n}") for n in range(3)], [a_record("b")]
    session = ScriptedSession(list=[{"items": first, "total": 4}, {"items": second, "total": 4}])
    assert len(await HyphaArtifacts(session).list()) == 4  # type: ignore[arg-type]
    assert [arguments["offset"] for _, arguments in session.asked] == [0, 3]


@pytest.mark.parametrize(
    "second",
    [Unreachable("page 2: no answer"), {"items": [], "total": 4}, RemoteError("PermissionError", "no")],
    ids=["no answer", "fewer than promised", "refused"],
)
async def test_rr_01_a_lost_page_is_no_answer(second: object) -> None:
    session = ScriptedSession(list=[{"items": [a_record("a")], "total": 4}, second])
    with pytest.raises(Unreachable):
        await HyphaArtifacts(session).list()  # type: ignore[arg-type]


async def test_a_collection_that_does_not_exist_holds_nothing() -> None:
    missing = RemoteError("KeyError", "Artifact with ID 'ws/applications' does not exist.")
    assert await HyphaArtifacts(ScriptedSession(list=[missing])).list() == {}  # type: ignore[arg-type]


async def test_an_upload_that_was_cut_off_is_seen_as_staged() -> None:
    versions = [{"version": "1-g0", "comment": comment("a" * 40, "c" * 40)}, {"version": "v1", "comment": "by hand"}]
    record = a_record("a", staging=[{"_intent": "new_version"}], versions=versions)
    session = ScriptedSession(list=[{"items": [record], "total": 1}])
    artifact = (await HyphaArtifacts(session).list())["ws/a"]  # type: ignore[arg-type]
    assert artifact.staged
    assert [version.tree for version in artifact.versions] == ["a" * 40, None]


def test_only_our_own_comment_names_a_tree() -> None:
    assert tree_of(comment("b" * 40, "c" * 40)) == "b" * 40
    assert tree_of("bioengine/v1 tree=short commit=x") is None
    assert tree_of(None) is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, "another version of the contract"),
        ({**a_worker().model_dump(mode="json"), "new_field": 1}, "another version of the contract"),
        ({"error": {"kind": "Denied", "message": "not an admin"}}, "not an admin"),
        (RemoteError("AttributeError", "no method observe"), "another version of the contract"),
        (RemoteError("ValueError", "Multiple services found"), "several workers"),
        (RemoteError("RuntimeError", "boom"), "boom"),
    ],
)
async def test_rr_02_an_answer_that_is_no_worker_state_is_no_answer(answer: object, words: str) -> None:
    with pytest.raises(Unreachable, match=words):
        await WorkerRuntime(ScriptedSession(observe=[answer]), "worker").observe()  # type: ignore[arg-type]


async def test_an_environment_that_takes_long_can_be_asked_for_again() -> None:
    answers = [{"done": False, "message": "resolving"}, {"done": True, "nodes": 2}]
    spec = AppSpec(app_id="a", artifact_id="ws/a", version="1", authorized_users=[])
    runtime = WorkerRuntime(ScriptedSession(prepare_app=list(answers)), "worker")  # type: ignore[arg-type]
    going, done = await runtime.prepare(spec), await runtime.prepare(spec)
    assert (going.done, going.message, done.done, done.nodes) == (False, "resolving", True, 2)


async def test_a_no_of_the_worker_fails_the_step_in_its_words() -> None:
    no = {"error": {"kind": "Refused", "message": "a belongs to somebody else"}}
    runtime = WorkerRuntime(ScriptedSession(remove_app=[no]), "worker")  # type: ignore[arg-type]
    with pytest.raises(StepFailed, match="belongs to somebody else"):
        await runtime.remove("a", owner="lab", expected=None)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            "RemoteError:Traceback (most recent call last):\n  File\nValueError: no such version\n",
            "ValueError",
            "no such",
        ),
        ("RemoteError:KeyError: \"Artifact 'x' does not exist.\"", "KeyError", "Artifact 'x'"),
        ("something else", "RuntimeError", "something else"),
    ],
)
def test_a_remote_traceback_is_read_to_its_last_line(text: str, kind: str, message: str) -> None:
    read = RemoteError.read(RuntimeError(text))
    assert read.kind == kind and read.message.startswith(message)
