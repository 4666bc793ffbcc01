"""Notifications against a real server on loopback: signed, only when something is new, and never in anybody's way."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from reconciler.errors import SourceUnusable
from reconciler.planning.steps import PlanOptions
from reconciler.reconcile import Pass, reconcile
from reconciler.serving import serving
from reconciler.telling import outgoing
from reconciler.telling.forges import Commits, Forge, NoForge
from reconciler.telling.news import standing_of
from reconciler.telling.notify import CommitStatus, Notifier, NoToken, Webhook, token_from
from reconciler.telling.outgoing import NotDelivered, Outlet, RefusedAddress
from reconciler.triggers import signature as receiving
from tests.fakes import FakeSource, FakeWorld, a_repository

SECRET = b"a-secret-of-the-listener"
TOKEN = "canary-token-of-the-forge"


class Listener:
    """Hears requests; `answers` are the status codes it gives, the last one for ever."""

    def __init__(self) -> None:
        self.port = 0
        self.answers = [200]
        self.heard: list[tuple[Request, bytes]] = []
        self.redirected = 0

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/hook?key=in-the-query"

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.heard]

    async def hear(self, request: Request) -> Response:
        self.heard.append((request, await request.body()))
        code = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return RedirectResponse("/elsewhere", 307) if code == 307 else Response(status_code=code)

    async def elsewhere(self, _: Request) -> Response:
        self.redirected += 1
        return Response()

    def outlet(self) -> Outlet:
        return Outlet(self.url, private=("localhost",))


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    there = Listener()
    routes = [
        Route("/elsewhere", there.elsewhere, methods=["POST"]),
        Route("/{path:path}", there.hear, methods=["POST"]),
    ]
    async with serving(Starlette(routes=routes), "127.0.0.1", 0, option="--port") as port:
        there.port = port
        yield there


@pytest.fixture
def fake() -> FakeWorld:
    return FakeWorld(FakeSource(a_repository("one", "two")))


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """Between the attempts."""
    with stamina.set_testing(True, attempts=outgoing.ATTEMPTS, cap=True):
        yield


async def passed(fake: FakeWorld) -> Pass:
    return await reconcile(fake.world, PlanOptions())


def kinds(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["kind"], one["app"]) for one in document["news"]}


# ── the webhook ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_webhook_is_signed_so_that_our_own_receiver_takes_it(listener: Listener, fake: FakeWorld) -> None:
    async with Notifier(webhooks=(Webhook(listener.outlet(), SECRET),)) as notifier:
        done = await passed(fake)
        notifier.after(done)
    [(request, body)] = listener.heard
    proof = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    assert request.headers["x-signature-256"] == f"sha256={proof}"
    receiving.check({key.lower(): value for key, value in request.headers.items()}, body, [SECRET])
    [told] = listener.documents
    assert told["delivery"] == request.headers["x-delivery-id"] and told["at"] == request.headers["x-timestamp"]
    assert told["cluster"] == "lab" and told["commit"] == fake.source.head and told["complete"] is True
    assert told["run"] == done.run and len(told["run"]) == 8
    assert kinds(told) == {("applied", "one"), ("applied", "two")}


async def test_it_speaks_only_when_something_is_new(listener: Listener, fake: FakeWorld) -> None:
    async with Notifier(webhooks=(Webhook(listener.outlet(), SECRET),)) as notifier:
        notifier.after(await passed(fake))
        for _ in range(3):
            notifier.after(await passed(fake))
        change_by_hand(fake, "one")
        for _ in range(3):
            notifier.after(await passed(fake))
        fake.runtime.bad_environments["two"] = "no solution"
        fake.source.commit({"apps/two/main.py": "x = 1\n" + fake.source._files["apps/two/main.py"]})
        for _ in range(3):
            notifier.after(await passed(fake))
        fake.runtime.bad_environments.clear()
        notifier.after(await passed(fake))
    told = [kinds(document) for document in listener.documents]
    assert told == [
        {("applied", "one"), ("applied", "two")},
        {("applied", "one"), ("drift", "one")},
        {("failed", "two")},
        {("applied", "two"), ("recovered", "two")},
    ]


async def test_drift_that_stays_is_told_once(listener: Listener) -> None:
    fake = FakeWorld(FakeSource(a_repository("one", cluster="policy: {self_heal: detect-only}\n")))
    async with Notifier(webhooks=(Webhook(listener.outlet(), SECRET),)) as notifier:
        notifier.after(await passed(fake))
        change_by_hand(fake, "one")
        for _ in range(3):
            notifier.after(await passed(fake))
    assert [kinds(document) for document in listener.documents[1:]] == [{("drift", "one")}]


async def test_a_pass_that_stops_is_told_once_and_its_end_too(listener: Listener, fake: FakeWorld) -> None:
    async with Notifier(webhooks=(Webhook(listener.outlet(), SECRET),)) as notifier:
        notifier.after(await passed(fake))
        for _ in range(3):
            notifier.trouble(SourceUnusable("the branch is gone"))
        notifier.after(await passed(fake))
    told = [kinds(document) for document in listener.documents[1:]]
    assert told == [{("failed", "")}, {("recovered", "")}]
    assert listener.documents[1]["complete"] is False


async def test_what_was_not_seen_is_neither_a_failure_nor_a_recovery(listener: Listener, fake: FakeWorld) -> None:
    fake.runtime.bad["one"] = "ImportError"
    async with Notifier(webhooks=(Webhook(listener.outlet(), SECRET),)) as notifier:
        for _ in range(3):
            notifier.after(await passed(fake))
        fake.runtime.fail("observe")
        notifier.after(await passed(fake))
        fake.runtime.heal()
        notifier.after(await passed(fake))
    told = [kinds(document) for document in listener.documents]
    assert told == [{("applied", "one"), ("applied", "two")}, {("failed", "one")}]


async def test_a_deaf_listener_is_tried_again_and_a_lost_one_is_given_up(
    listener: Listener, fake: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    arrived: list[tuple[str, bool]] = []
    hook = Webhook(listener.outlet(), SECRET)
    listener.answers = [503, 503, 200]
    async with Notifier(webhooks=(hook,), arrived=lambda to, ok: arrived.append((to, ok))) as notifier:
        notifier.after(await passed(fake))
        await until(lambda: arrived == [("webhook", True)])
        assert len(listener.heard) == 3
        listener.answers = [403]
        change_by_hand(fake, "one")
        notifier.after(await passed(fake))
    assert arrived == [("webhook", True), ("webhook", False)] and len(listener.heard) == 4
    assert "answered 403" in caplog.text and "in-the-query" not in caplog.text and SECRET.decode() not in caplog.text


async def test_news_that_did_not_arrive_are_told_after_a_later_pass_in_their_order(
    listener: Listener, fake: FakeWorld
) -> None:
    arrived: list[bool] = []
    hook = Webhook(listener.outlet(), SECRET)
    async with Notifier(webhooks=(hook,), arrived=lambda _, ok: arrived.append(ok)) as notifier:
        listener.answers = [503]
        notifier.after(await passed(fake))
        await until(lambda: arrived == [False])
        listener.answers = [200]
        change_by_hand(fake, "one")
        notifier.after(await passed(fake))
        await until(lambda: arrived == [False, True, True])
    tries, last = listener.documents[:-1], listener.documents[-1]
    assert len({told["delivery"] for told in tries}) == 1 and kinds(tries[-1]) == {
        ("applied", "one"),
        ("applied", "two"),
    }
    assert kinds(last) == {("applied", "one"), ("drift", "one")}


async def test_a_listener_that_is_away_keeps_nothing_from_another(
    listener: Listener, fake: FakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.telling.notify.LAST_WORDS_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        away = Outlet(f"http://localhost:{silent.getsockname()[1]}/", private=("localhost",))
        hooks = (Webhook(away, SECRET), Webhook(listener.outlet(), SECRET))
        async with Notifier(webhooks=hooks) as notifier:
            notifier.after(await passed(fake))
            await until(lambda: listener.heard)


async def test_no_pass_waits_for_a_listener_that_never_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reconciler.telling.notify.LAST_WORDS_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        outlet = Outlet(f"http://localhost:{silent.getsockname()[1]}/", private=("localhost",))
        async with Notifier(webhooks=(Webhook(outlet, SECRET),)) as notifier:
            began = time.monotonic()
            for number in range(300):
                notifier.trouble(type(f"Trouble{number}", (Exception,), {})("gone"))
            assert time.monotonic() - began < 1.0
            assert sum(map(len, notifier._lines)) <= 100, "what waits is bounded"


async def test_nothing_that_goes_wrong_while_sending_ends_the_sending(
    listener: Listener, fake: FakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    async def breaks_once(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("a bug")

    monkeypatch.setattr(Outlet, "send", breaks_once)
    async with Notifier(webhooks=(Webhook(listener.outlet(), SECRET),)) as notifier:
        notifier.after(await passed(fake))
        change_by_hand(fake, "one")
        notifier.after(await passed(fake))
    assert calls == 2


async def test_ss_01_texts_are_masked(listener: Listener, fake: FakeWorld) -> None:
    fake.runtime.bad_environments["one"] = "pip quoted xK9-canary"
    mask = lambda text: text.replace("xK9-canary", "(secret)")  # noqa: E731
    async with Notifier(webhooks=(Webhook(listener.outlet(), SECRET),), masked=mask) as notifier:
        notifier.after(await passed(fake))
    assert "xK9-canary" not in listener.heard[0][1].decode() and "(secret)" in listener.heard[0][1].decode()


# ── SP-12: where it may be sent ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url",
    ["http://hooks.example/x", "ftp://hooks.example", "file:///etc/passwd", "https://", "gopher://x", "https://u:p@h/"],
)
def test_sp_12_only_https_and_no_password_in_the_url(url: str) -> None:
    with pytest.raises(RefusedAddress) as refused:
        Outlet(url)
    assert "u:p" not in str(refused.value)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "[::1]",
        "10.0.0.1",
        "169.254.169.254",
        "[::ffff:10.0.0.1]",
        "[2002:a00:1::]",
        "0.0.0.0",
        "2130706433",
    ],
)
async def test_sp_12_nothing_goes_to_a_private_network(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr("httpx.AsyncClient.send", lambda *words, **_: sent.append(words))
    with pytest.raises(NotDelivered, match="private network"):
        await Outlet(f"https://{host}/").send(b"{}", {})
    assert not sent


async def test_sp_12_a_name_that_changes_its_address_reaches_what_was_checked(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection goes to the address that was checked, not to what the name means a moment later."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def once_public(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        asked.append(str(host))
        return real("127.0.0.1", port, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", once_public)
    monkeypatch.setattr(outgoing, "_is_public", lambda _: True)
    outlet = Outlet(f"http://hooks.example:{listener.port}/", private=("hooks.example",))
    await outlet.send(b"{}", {})
    names = [host for host in asked if "hooks.example" in host]
    assert len(names) == 1 and listener.heard[0][0].headers["host"] == f"hooks.example:{listener.port}"


async def test_sp_12_a_redirect_is_not_followed(listener: Listener) -> None:
    listener.answers = [307]
    with pytest.raises(NotDelivered, match="redirect"):
        await listener.outlet().send(b"{}", {})
    assert listener.redirected == 0 and len(listener.heard) == 1


# ── commit statuses ────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_forge_has_its_own_way() -> None:
    commit = "a" * 40
    github = Commits.of(Forge.GITHUB, "https://github.com/lab/apps.git")
    assert github.url(commit) == f"https://api.github.com/repos/lab/apps/statuses/{commit}"
    assert Commits.of(Forge.GITHUB, "git@git.example:lab/apps.git").api == "https://git.example/api/v3"
    gitlab = Commits.of(Forge.GITLAB, "ssh://git@gitlab.example:2222/lab/sub/apps")
    assert gitlab.url(commit) == f"https://gitlab.example/api/v4/projects/lab%2Fsub%2Fapps/statuses/{commit}"
    forgejo = Commits.of(Forge.FORGEJO, "https://codeberg.org/lab/apps")
    assert forgejo.url(commit) == f"https://codeberg.org/api/v1/repos/lab/apps/statuses/{commit}"
    assert gitlab.content("failure", "reconcile/lab", "x")["state"] == "failed"
    assert gitlab.headers("t")["PRIVATE-TOKEN"] == "t" and github.headers("t")["Authorization"] == "Bearer t"
    assert len(github.content("success", "c", "é\n" * 200)["description"]) <= 140


@pytest.mark.parametrize(
    "repository", ["/srv/lab.git", "https://github.com/only", "https://h/../x y/z", "https://h/a?b"]
)
def test_what_is_at_no_forge_is_refused(repository: str) -> None:
    with pytest.raises(NoForge):
        Commits.of(Forge.GITHUB, repository)
    with pytest.raises(NoForge):
        Commits.of(Forge.GITEA, "https://h/a/b").url("../../x")


@pytest.mark.parametrize(
    ("forge", "header", "proof"),
    [
        (Forge.GITHUB, "authorization", f"Bearer {TOKEN}"),
        (Forge.GITLAB, "private-token", TOKEN),
        (Forge.GITEA, "authorization", f"token {TOKEN}"),
    ],
)
async def test_the_status_follows_the_apps(
    forge: Forge, header: str, proof: str, listener: Listener, fake: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    commits = Commits(forge, f"http://localhost:{listener.port}/api", "lab/apps")
    status = CommitStatus(commits, lambda: TOKEN, "https://status.example/", ("localhost",))
    async with Notifier(status=status) as notifier:
        for _ in range(4):
            notifier.after(await passed(fake))
        first = fake.source.head
        fake.runtime.bad["one"] = "ImportError: torch"
        fake.source.commit({"apps/one/main.py": "x = 1\n" + fake.source._files["apps/one/main.py"]})
        for _ in range(3):
            notifier.after(await passed(fake))
    states = [document["state"] for document in listener.documents]
    failure = "failed" if forge is Forge.GITLAB else "failure"
    assert states[:2] == ["pending", "success"] and states[-1] == failure and len(states) == len(set(states)) + 1
    name = "name" if forge is Forge.GITLAB else "context"
    assert {document[name] for document in listener.documents} == {"reconcile/lab"}
    assert all(document["target_url"] == "https://status.example/" for document in listener.documents)
    assert all(len(document["description"]) <= 140 for document in listener.documents)
    request, _ = listener.heard[0]
    assert request.headers[header] == proof and request.url.path.endswith(f"/statuses/{first}")
    assert TOKEN not in caplog.text and not any(TOKEN in body.decode() for _, body in listener.heard)


async def test_a_status_that_did_not_arrive_is_said_again(listener: Listener, fake: FakeWorld) -> None:
    commits = Commits(Forge.GITEA, f"http://localhost:{listener.port}", "lab/apps")
    arrived: list[bool] = []
    status = CommitStatus(commits, lambda: TOKEN, private=("localhost",))
    await passed(fake)
    async with Notifier(status=status, arrived=lambda _, ok: arrived.append(ok)) as notifier:
        listener.answers = [503, 503, 503, 503, 200]
        notifier.after(await passed(fake))
        await until(lambda: arrived == [False])
        notifier.after(await passed(fake))
        notifier.after(await passed(fake))
    assert arrived == [False, True]


async def test_a_report_that_was_not_complete_is_no_success(fake: FakeWorld) -> None:
    await passed(fake)
    fake.runtime.fail("observe")
    state, why = standing_of((await passed(fake)).report)
    assert state == "pending" and "LiveStateUnknown" in why


def test_the_token_is_read_when_it_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with pytest.raises(NoToken):
        token_from(file, "NO_SUCH_VARIABLE", {})
    file.write_text("one\n")
    read = token_from(file, "NO_SUCH_VARIABLE", {})
    file.write_text("two\n")
    assert read() == "two" and token_from(None, "T", {"T": "three"})() == "three"


def change_by_hand(fake: FakeWorld, app_id: str) -> None:
    app = fake.runtime.apps[app_id]
    assert app.spec is not None
    changed = app.spec.model_copy(update={"max_ongoing_requests": 77})
    fake.runtime.apps[app_id] = app.model_copy(update={"spec": changed, "digest": changed.digest()})


async def until(so: Any) -> None:
    async with asyncio.timeout(20):
        while not so():  # noqa: ASYNC110 - the other side has no event to wait for
            await asyncio.sleep(0.01)
