"""The webhook receiver: who may wake us, and that nothing a stranger sends costs more than a refusal."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
import re
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from reconciler.cli import keep
from reconciler.cli.doors import BadAddress, Doors
from reconciler.cli.outlets import Outlets
from reconciler.cli.place import Place
from reconciler.cli.show import Screen
from reconciler.serving import CannotListen
from reconciler.triggers import receiver as receiving
from reconciler.triggers import signature
from reconciler.triggers.event import Followed
from reconciler.triggers.receiver import Receiver, listening
from reconciler.triggers.signature import NoWebhookSecret
from tests.fakes import FakeSource, FakeWorld, a_repository

SECRET, NEXT_SECRET = "a-secret-of-the-webhook", "the-one-that-follows-it"
PUSH = {"ref": "refs/heads/main", "repository": {"full_name": "lab/apps", "default_branch": "main"}}


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "webhook.secret"
    file.write_text(SECRET + "\n")
    return file


@pytest.fixture
def wake() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def receiver(secret_file: Path, wake: asyncio.Event) -> Receiver:
    return Receiver(Followed.of("https://git.example/lab/apps.git", "main"), secret_file, wake)


@pytest.fixture
async def url(receiver: Receiver) -> AsyncIterator[str]:
    async with listening(receiver, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}/webhook"


def port_of(url: str) -> int:
    return httpx.URL(url).port or 0


def digest(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def github(event: Any = PUSH, secret: str = SECRET, **headers: str) -> tuple[dict[str, str], bytes]:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"content-type": "application/json", "x-hub-signature-256": f"sha256={digest(body, secret)}", **more}, body


def status(receiver: Receiver, request: tuple[dict[str, str], bytes]) -> int:
    return receiver.receive(*request).status


def test_a_signed_push_wakes(receiver: Receiver, wake: asyncio.Event) -> None:
    assert status(receiver, github()) == 202
    assert wake.is_set()


@pytest.mark.parametrize(
    "proof",
    [
        {"x-gitea-signature": digest(b"{}")},
        {"x-forgejo-signature": digest(b"{}"), "x-hub-signature-256": "sha256=" + digest(b"{}")},
        {"x-gitlab-token": SECRET},
        {"x-signature-256": "sha256=" + digest(b"{}")},
    ],
)
def test_every_known_sender_is_understood(receiver: Receiver, wake: asyncio.Event, proof: dict[str, str]) -> None:
    assert status(receiver, ({"content-type": "application/json; charset=utf-8", **proof}, b"{}")) == 202
    assert wake.is_set()


@pytest.mark.parametrize(
    "proof",
    [
        pytest.param({}, id="SW-01 none"),
        pytest.param({"x-hub-signature-256": "sha256=" + digest(b"{}", "another-secret-entirely")}, id="SW-02 wrong"),
        pytest.param({"x-gitlab-token": "another-secret-entirely"}, id="SW-02 wrong token"),
        pytest.param({"x-hub-signature-256": "sha256=" + digest(b"[]")}, id="SW-03 of another body"),
        pytest.param({"x-hub-signature": "sha1=" + "0" * 40}, id="SW-04 SHA-1 only"),
        pytest.param({"x-hub-signature-256": "sha1=" + digest(b"{}")}, id="SW-04 SHA-1 by name"),
        pytest.param({"x-hub-signature-256": digest(b"{}")}, id="SW-04 of no kind"),
        pytest.param({"x-gitea-signature": "sha256=" + digest(b"{}")}, id="SW-05 prefixed"),
        pytest.param({"x-hub-signature-256": "sha256=" + digest(b"{}")[:-1]}, id="SW-05 cut"),
        pytest.param({"x-hub-signature-256": "sha256=" + digest(b"{}").upper()}, id="SW-05 upper case"),
        pytest.param({"x-hub-signature-256": "sha256= " + digest(b"{}")}, id="SW-05 space"),
        pytest.param({"x-hub-signature-256": "sha256=" + digest(b"{}")[:-1] + "é"}, id="SW-05 not ASCII"),
        pytest.param({"x-gitlab-token": SECRET + "é"}, id="SW-05 token not ASCII"),
        pytest.param({"x-gitlab-token": SECRET, "x-hub-signature-256": "sha256=0"}, id="one of two wrong"),
    ],
)
def test_whoever_does_not_know_the_secret_is_refused(
    receiver: Receiver, wake: asyncio.Event, proof: dict[str, str]
) -> None:
    assert status(receiver, ({"content-type": "application/json", **proof}, b"{}")) == 401
    assert not wake.is_set()


def test_SW_06_proofs_are_compared_in_constant_time() -> None:
    source = Path(signature.__file__).read_text()
    compared = source[source.index("def _holds") :]
    assert compared.count("hmac.compare_digest") == 2
    assert not re.search(r"(proof|digits|secret)\)? *==", compared)


async def test_SW_07_a_body_too_large_is_refused_before_it_is_read(url: str, wake: asyncio.Event) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 2**20

    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
    writer.write(b"POST /webhook HTTP/1.1\r\nhost: x\r\ncontent-length: 104857600\r\n\r\n{")
    assert b"413" in await asyncio.wait_for(reader.readline(), 20)
    writer.close()

    tracemalloc.start()
    async with httpx.AsyncClient() as client:
        try:
            unannounced = (await client.post(url, content=endless())).status_code
        except httpx.TransportError:  # it hung up while we still sent
            unannounced = 413
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert unannounced == 413
    assert most < 20 * 2**20
    assert not wake.is_set()


async def test_SW_07_a_body_too_slow_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "BODY_WITHIN_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
    writer.write(b"POST /webhook HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    assert b"408" in await asyncio.wait_for(reader.readline(), 20)
    writer.close()


async def test_SW_07_a_length_that_is_no_number_is_refused(receiver: Receiver) -> None:
    """Hypha lets one through; a server of our own would not."""
    answered: list[Any] = []

    async def asked() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def answer(message: Any) -> None:
        answered.append(message)

    scope = {"type": "http", "method": "POST", "path": "/webhook", "query_string": b"", "root_path": ""}
    await receiving.application(receiver)({**scope, "headers": [(b"content-length", b"\xb2")]}, asked, answer)
    assert answered[0]["status"] == 413


@pytest.mark.parametrize(
    ("event", "headers", "expected"),
    [
        pytest.param(gzip.compress(b"{}"), {"content_encoding": "gzip"}, 415, id="SW-08 compressed"),
        pytest.param(b"payload=%7B%7D", {"content_type": "application/x-www-form-urlencoded"}, 415, id="SW-09 form"),
        pytest.param(b'{"a":' * 100_000, {}, 400, id="SW-10 deep"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, {}, 400, id="SW-10 deep and whole"),
        pytest.param([PUSH], {}, 400, id="SW-10 no object"),
        pytest.param({"ref": {"a": 1}}, {}, 400, id="SW-10 ref no text"),
        pytest.param({"repository": "lab/apps"}, {}, 400, id="SW-10 repository no object"),
        pytest.param(b"\xff\xfe", {}, 400, id="SW-10 no text"),
    ],
)
def test_what_no_sender_sends_is_refused(
    receiver: Receiver, wake: asyncio.Event, event: Any, headers: dict[str, str], expected: int
) -> None:
    assert status(receiver, github(event, **headers)) == expected
    assert not wake.is_set()


def test_SW_11_a_delivery_sent_again_is_known(receiver: Receiver, wake: asyncio.Event) -> None:
    delivery = github(x_github_delivery="72d3162e")
    assert status(receiver, delivery) == 202
    wake.clear()
    assert receiver.receive(*delivery).said == "seen before"
    assert not wake.is_set()
    for number in range(receiving.DELIVERIES_KEPT):
        receiver.receive(*github(x_github_delivery=str(number)))
    assert receiver.receive(*delivery).said == "looking"


def test_SW_11_what_a_webhook_of_gitlab_set_off_is_another_delivery(receiver: Receiver, wake: asyncio.Event) -> None:
    """A pipeline that it started pushes: GitLab tells of that push by the same event id, and by a key of its own."""
    for key, said in (("k1", "looking"), ("k2", "looking"), ("k2", "seen before")):
        wake.clear()
        answer = receiver.receive(*github(x_gitlab_event_uuid="72d3162e", idempotency_key=key))
        assert (answer.said, wake.is_set()) == (said, said == "looking")


async def test_SW_12_a_thousand_events_are_one_wake_up(url: str, wake: asyncio.Event) -> None:
    headers, body = github()
    woken = 0

    async def looks() -> None:
        nonlocal woken
        while True:
            await wake.wait()
            wake.clear()
            woken += 1
            await asyncio.sleep(0.5)

    looking = asyncio.create_task(looks())
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=20), timeout=60) as client:
        started = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(client.post(url, headers=headers, content=body) for _ in range(1000)))
        took = asyncio.get_running_loop().time() - started
    looking.cancel()
    assert {answer.status_code for answer in answers} == {202}
    assert 1 <= woken <= took / 0.5 + 2


@pytest.mark.parametrize(
    "event",
    [
        {**PUSH, "repository": {"full_name": "lab/other"}},
        {**PUSH, "repository": {"full_name": "elab/apps"}},
        {**PUSH, "ref": "refs/heads/experiment"},
        {**PUSH, "ref": "refs/tags/v1"},
        {"ref": "refs/heads/main", "project": {"path_with_namespace": "lab/other"}},
    ],
)
def test_SW_13_what_moved_elsewhere_is_taken_and_ignored(
    receiver: Receiver, wake: asyncio.Event, event: dict[str, Any]
) -> None:
    assert status(receiver, github(event)) == 202
    assert not wake.is_set()


@pytest.mark.parametrize(
    ("source", "ref", "concerned"),
    [
        ("git@git.example:lab/apps.git", "main", True),
        ("ssh://git@git.example:22/lab/apps", None, True),
        ("/srv/git/lab/apps.git", "main", True),
        ("/srv/checkout", "main", True),
        ("apps", None, True),
        ("~/odd@name:x/apps", None, True),
        ("/srv/checkout", "other", False),
        ("https://git.example/lab/apps", "v1", False),
        ("https://git.example/lab/apps", "refs/heads/main", True),
        ("https://git.example/lab/more", None, False),
    ],
)
def test_the_followed_branch_is_known_in_every_form_of_its_address(
    secret_file: Path, wake: asyncio.Event, source: str, ref: str | None, concerned: bool
) -> None:
    receiver = Receiver(Followed.of(source, ref), secret_file, wake)
    assert status(receiver, github()) == 202
    assert wake.is_set() == concerned


def test_SW_14_addresses_in_an_event_are_not_looked_at(receiver: Receiver, wake: asyncio.Event) -> None:
    elsewhere = {**PUSH["repository"], "clone_url": "http://169.254.169.254/", "url": "ext::sh -c id"}  # type: ignore[dict-item]
    assert status(receiver, github({**PUSH, "repository": elsewhere})) == 202
    assert wake.is_set()
    assert "169.254" not in repr(vars(receiver))


def test_SW_15_two_secrets_hold_while_one_follows_the_other(receiver: Receiver, secret_file: Path) -> None:
    assert status(receiver, github(secret=NEXT_SECRET)) == 401
    secret_file.write_text(f"{SECRET}\n{NEXT_SECRET}\n")
    assert [status(receiver, github(secret=one)) for one in (SECRET, NEXT_SECRET)] == [202, 202]
    secret_file.write_text(f"{NEXT_SECRET}\n")
    assert [status(receiver, github(secret=one)) for one in (SECRET, NEXT_SECRET)] == [401, 202]


@pytest.mark.parametrize("content", [None, "", "\n\n", "tiny-pass\n", f"{SECRET}\ntiny-pass\n"])
def test_SW_16_without_a_good_secret_nothing_starts(tmp_path: Path, wake: asyncio.Event, content: str | None) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)
    with pytest.raises(NoWebhookSecret) as refusal:
        Receiver(Followed("lab/apps", None), file, wake)
    assert "openssl rand" in refusal.value.hint
    assert "tiny-pass" not in str(refusal.value)


def test_a_secret_that_vanishes_lets_nobody_in(receiver: Receiver, secret_file: Path, wake: asyncio.Event) -> None:
    secret_file.unlink()
    assert status(receiver, github()) == 401
    assert not wake.is_set()


async def test_only_posts_are_heard(url: str) -> None:
    async with httpx.AsyncClient() as client:
        assert (await client.get(url)).status_code == 405
        assert (await client.post(url.replace("/webhook", "/other"))).status_code == 404


async def test_a_taken_address_says_so(receiver: Receiver, url: str) -> None:
    port = port_of(url)
    with pytest.raises(CannotListen, match=str(port)):
        async with listening(receiver, "127.0.0.1", port):
            pass


async def test_a_push_reaches_the_loop_long_before_its_interval(
    tmp_path: Path, secret_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWorld(FakeSource(a_repository("one")))
    heard: list[str] = []
    screen = Screen()
    monkeypatch.setattr(screen, "note", lambda text: heard.append(str(text)))
    doors = Doors.read("127.0.0.1:0", secret_file, None, None)
    place = Place(repository="https://git.example/lab/apps", ref="main", home_option=tmp_path, world=fake.world)
    running = asyncio.create_task(keep.run(place, screen, interval_s=3600, doors=doors, outlets=Outlets()))
    try:
        await until(lambda: "one" in fake.runtime.apps)
        fake.source.commit(a_repository("one", "two"))
        headers, body = github()
        async with httpx.AsyncClient() as client:
            await client.post(heard[0].split()[-1], headers=headers, content=body)
        await until(lambda: "two" in fake.runtime.apps)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("address", ["8780", "localhost:", "localhost:http", "localhost:²", "localhost:99999"])
def test_an_address_that_is_none_says_what_one_looks_like(secret_file: Path, address: str) -> None:
    with pytest.raises(BadAddress) as refusal:
        Doors.read(address, secret_file, None, None)
    assert "127.0.0.1:" in refusal.value.hint
