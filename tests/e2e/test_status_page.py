"""The status page in a real browser, and all that the reconciler offers through a real Hypha."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypha_rpc import connect_to_server
from playwright.async_api import Browser, ConsoleMessage, Page, expect

from bioengine_runtime.local.tokens import Permission, mint_user_token
from bioengine_runtime.local.workspace import WORKSPACE
from reconciler.adapters.hypha import Address, HyphaSession
from reconciler.adapters.reports import HyphaReports
from reconciler.adapters.running import RunningReconciler
from reconciler.adapters.status.web import Web
from reconciler.board import Board
from reconciler.page.application import application, shown
from reconciler.planning.memory import Entry, Order
from reconciler.ports import Said
from reconciler.serving import CannotListen
from reconciler.triggers.event import Followed
from reconciler.triggers.receiver import LARGEST_BODY, Receiver
from reconciler.triggers.receiver import application as hearing
from tests.e2e.browser import a_browser
from tests.reconciler.status_world import EVIL, a_condition, a_drifted_app, a_plan, a_report, an_app, said
from tests.reconciler.test_status import FakeOrders
from tests.runtime.stack import Stack, a_stack, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SECRET = "a-secret-of-the-webhook"
SOON_MS = 5_000


# ── On this machine ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Seen:
    """One open page, and what it complained of."""

    page: Page
    complaints: list[str] = field(default_factory=list[str])

    def hear(self, told: ConsoleMessage) -> None:
        if told.type == "error":
            self.complaints.append(told.text)


@pytest_asyncio.fixture(scope="module")
async def browser() -> AsyncGenerator[Browser, None]:
    async with a_browser() as browser:
        yield browser


@asynccontextmanager
async def opened(browser: Browser, url: str, **options: Any) -> AsyncIterator[Seen]:
    context = await browser.new_context(**options)
    seen = Seen(await context.new_page())
    seen.page.on("console", seen.hear)
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    try:
        await seen.page.goto(url)
        yield seen
    finally:
        await context.close()


async def history(limit: int, app_id: str) -> list[Entry]:  # noqa: ARG001 - as the page asks
    return [Entry(1_795_000_000.0, "anna@lab.example.org", f"update {EVIL}", "done", "drifted")]


@pytest_asyncio.fixture
async def board() -> Board:
    board = Board()
    board.show(said(an_app("calm"), a_drifted_app(), conditions=[a_condition("Ready", "False", "Drifted", "drifted")]))
    return board


@pytest_asyncio.fixture
async def url(board: Board) -> AsyncGenerator[str, None]:
    async with shown(board, history, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}/"


def row_of(page: Page, app_id: str) -> Any:
    return page.locator("#rows > tr").filter(has=page.get_by_role("button", name=app_id, exact=True))


async def test_the_page_tells_who_changed_what_and_what_would_be_done(browser: Browser, url: str) -> None:
    async with opened(browser, url) as seen:
        page = seen.page
        await expect(page).to_have_title("lab")
        await expect(row_of(page, "drifted")).to_contain_text("≠ OutOfSync")
        await expect(row_of(page, "drifted")).to_contain_text("anna@…")
        await expect(row_of(page, "drifted").locator("time")).to_have_attribute("title", re.compile("2026-11-03T09:12"))
        await expect(page.locator("#plan")).to_contain_text("update drifted")
        await expect(page.locator("#plan-id")).to_have_text("p-9c1e7d2-ab12")
        await expect(page.locator("#conditions")).to_contain_text("✖ Ready: False")
        await page.locator("#history summary").click()
        await expect(page.locator("#entries")).to_contain_text("anna@…")
        assert "lab.example.org" not in await page.content() and "parameter-" not in await page.content()
        assert seen.complaints == []


async def test_everything_is_reached_with_the_keyboard(browser: Browser, url: str) -> None:
    async with opened(browser, url) as seen:
        page = seen.page
        button = page.get_by_role("button", name="drifted")
        await button.focus()
        await page.keyboard.press("Enter")
        await expect(button).to_have_attribute("aria-expanded", "true")
        await expect(page.locator(".more")).to_contain_text("max_ongoing_requests")
        await expect(page.locator(".story")).to_contain_text("kwargs.Main.greeting: (not shown)")
        await page.keyboard.press("Enter")
        await expect(page.locator(".more")).to_have_count(0)
        await page.get_by_label("Only what is not well").press("Space")
        await expect(row_of(page, "calm")).to_be_hidden()
        await expect(page.locator("#count")).to_have_text("1 of 2")
        await page.get_by_label("Only what is not well").press("Space")
        await page.get_by_label("Find", exact=True).fill("cal")
        await expect(row_of(page, "drifted")).to_be_hidden()


async def test_changes_are_shown_as_they_come(browser: Browser, board: Board, url: str) -> None:
    async with opened(browser, url) as seen:
        await expect(row_of(seen.page, "calm")).to_contain_text("✔ Healthy")
        await seen.page.get_by_role("button", name="calm").click()
        board.show(said(an_app("calm", health="Degraded", message="it fell over"), an_app("fresh")))
        await expect(row_of(seen.page, "calm")).to_contain_text("✖ Degraded", timeout=SOON_MS)
        await expect(row_of(seen.page, "fresh")).to_be_visible()
        await expect(row_of(seen.page, "drifted")).to_have_count(0)
        await expect(seen.page.get_by_role("button", name="calm")).to_have_attribute("aria-expanded", "true")


async def test_an_incomplete_report_looks_like_one(browser: Browser, board: Board, url: str) -> None:
    board.show(
        Said(a_report(complete=False, unseen=[{"what": "worker", "why": "no answer in 20 s"}]), a_plan(steps=[]))
    )
    async with opened(browser, url) as seen:
        page = seen.page
        alert = page.get_by_role("alert").first
        await expect(alert).to_contain_text("Incomplete")
        await expect(alert).to_contain_text("worker: no answer in 20 s")
        await expect(page.locator("#summary")).to_contain_text("? not known")
        await expect(page).to_have_title("⚠ incomplete: lab")
        for calm in ("no drift", "Nothing to do", "✔"):
            await expect(page.locator("body")).not_to_contain_text(calm)
        board.show(said(an_app("calm"), plan=a_plan(steps=[])))
        await expect(page.get_by_role("alert")).to_have_count(0, timeout=SOON_MS)
        await expect(page.locator("#summary")).to_contain_text("✔ no drift")


async def test_a_reconciler_that_is_gone_is_not_taken_for_one_that_is_calm(browser: Browser, board: Board) -> None:
    async with shown(board, None, "127.0.0.1", 0) as port:
        page_there = opened(browser, f"http://127.0.0.1:{port}/")
        seen = await page_there.__aenter__()
        await expect(row_of(seen.page, "calm")).to_be_visible()
    try:
        await expect(seen.page.get_by_role("alert").first).to_contain_text("No connection", timeout=15_000)
    finally:
        await page_there.__aexit__(None, None, None)


async def test_sp_11_nothing_that_is_said_becomes_markup_or_is_run(browser: Browser, board: Board, url: str) -> None:
    evil = a_drifted_app(EVIL, message=EVIL, actor=EVIL, since="javascript:window.pwned=3")
    evil["changes"] = [{"field": EVIL, "live": EVIL, "desired": "javascript:window.pwned=4"}]
    plan = a_plan(
        id=EVIL,
        gate={"reason": EVIL, "message": EVIL, "fix": EVIL},
        source={"url": "javascript:window.pwned=5", "ref": EVIL, "commit": EVIL, "subject": EVIL},
        problems=[{"where": EVIL, "message": EVIL, "fix": EVIL}],
        held=[{"app_id": EVIL, "reason": EVIL, "message": EVIL, "fix": EVIL, "action": "update", "changes": []}],
    )
    report = a_report(evil, target=EVIL, revision=EVIL, notes=[EVIL], conditions=[a_condition(EVIL, EVIL, EVIL, EVIL)])
    board.show(Said(report, plan, lambda _: {"rows": [{"name": EVIL, "text": EVIL}]}))
    async with opened(browser, url) as seen:
        page = seen.page
        await page.locator("#rows button").click()
        await expect(page.locator(".story")).to_contain_text(EVIL)
        await page.locator("#history summary").click()
        await expect(page.locator("#entries")).to_contain_text(EVIL)
        assert await page.locator("#target").inner_text() == EVIL
        assert await page.locator("img, script:not([src]), iframe, a:not(.skip), [onerror]").count() == 0
        assert await page.evaluate("window.pwned") is None
        assert seen.complaints == []


async def test_sp_11_the_page_could_not_make_markup_of_text_if_it_tried(browser: Browser, url: str) -> None:
    async with opened(browser, url) as seen:
        blocked = "() => { try { document.body.innerHTML = '<b>x</b>'; return false } catch (e) { return true } }"
        assert await seen.page.evaluate(blocked) is True
        inline = (
            "() => { const s = document.createElement('img'); s.src = 'http://127.0.0.1:9/x'; document.body.append(s) }"
        )
        await seen.page.evaluate(inline)
        await expect(seen.page.locator("img")).to_have_count(1)
        assert await eventually(lambda: _said(seen, "Content Security Policy"), 5)


async def _said(seen: Seen, text: str) -> bool:
    return any(text in one for one in seen.complaints)


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 740}}])
async def test_nothing_is_cut_off_whatever_the_screen(
    browser: Browser, url: str, options: dict[str, Any], tmp_path: Path
) -> None:
    async with opened(browser, url, **options) as seen:
        await seen.page.get_by_role("button", name="drifted").click()
        await expect(seen.page.locator(".story")).to_contain_text("state")
        await seen.page.screenshot(path=tmp_path / "page.png", full_page=True)
        wider = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await seen.page.evaluate(wider) <= 0


async def test_a_thousand_apps_stay_usable(browser: Browser, board: Board, url: str) -> None:
    apps = [an_app(f"app-{number:04}", message="commit 9c1e7d2 changed apps/x") for number in range(1000)]
    board.show(said(*apps, plan=a_plan(unchanged=[app["id"] for app in apps])))
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{url}status.json")
        assert len(answer.content) < 400_000
        same = await http.get(f"{url}status.json", headers={"if-none-match": answer.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")
    async with opened(browser, url) as seen:
        await expect(row_of(seen.page, "app-0999")).to_be_visible()
        kept = await row_of(seen.page, "app-0001").element_handle()
        apps[0] = an_app("app-0000", health="Degraded")
        board.show(said(*apps))
        await expect(row_of(seen.page, "app-0000")).to_contain_text("Degraded", timeout=SOON_MS)
        assert await kept.evaluate("row => row.isConnected")  # only what changed was drawn again
        await seen.page.get_by_label("Find", exact=True).fill("app-0500")
        await expect(seen.page.locator("#count")).to_have_text("1 of 1000")


async def test_the_page_is_for_this_machine_and_only_to_be_read(board: Board, url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(url, headers={"host": "evil.example"})).status_code == 400
        for method in ("POST", "PUT", "DELETE"):
            assert (await http.request(method, f"{url}status.json")).status_code == 405
        assert (await http.get(f"{url}explain.json", params={"app": "driftet"})).status_code == 404
        page = await http.get(url)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    with pytest.raises(CannotListen, match="asks nobody"):
        async with shown(board, None, "0.0.0.0", 0):
            pass


# ── Through Hypha ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Offered:
    """A Hypha without Ray, and what a reconciler offers there."""

    stack: Stack
    board: Board
    reports: HyphaReports
    session: HyphaSession
    orders: FakeOrders
    wake: asyncio.Event

    def token(self, user: str, right: Permission = "r") -> str:
        """Of somebody of the workspace."""
        secret = self.stack.home.secrets.hypha_jwt_secret.read_text()
        email = f"{user}@lab.example.org"
        return mint_user_token(
            jwt_secret=secret, user_id=user, email=email, grants={WORKSPACE: right}, workspace=WORKSPACE
        )

    @asynccontextmanager
    async def service(self, user: str, right: Permission = "r") -> AsyncIterator[Any]:
        config = {
            "server_url": self.stack.url,
            "token": self.token(user, right),
            "workspace": WORKSPACE,
            "logger": None,
        }
        async with connect_to_server(config) as server:
            yield await server.get_service("reconcile-status")

    def url(self, name: str) -> str:
        return f"{self.stack.url}/{WORKSPACE}/apps/reconcile-status-{name}"


@pytest_asyncio.fixture(scope="module")
async def offered(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Offered, None]:
    secret_file = tmp_path_factory.mktemp("hook") / "secret"
    secret_file.write_text(SECRET)
    wake, orders, board = asyncio.Event(), FakeOrders(), Board()
    receiver = Receiver(Followed.of("https://git.example/lab/apps", "main"), secret_file, wake)
    async with a_stack(with_worker=False) as stack:
        token = stack.home.secrets.admin_token.read_text()
        session = HyphaSession(lambda: Address(stack.url, token, WORKSPACE))
        reports = HyphaReports(
            session,
            board=board,
            orders=orders,
            approvers=lambda: ["ann@lab.example.org"],
            web=[Web("page", application(board, history, live=False)), Web("webhook", hearing(receiver), public=True)],
        )
        try:
            await reports.publish(said(an_app("calm"), a_drifted_app()))
            yield Offered(stack, board, reports, session, orders, wake)
        finally:
            await session.close()
            await stack.stop_hypha()  # it takes its time once it has served web pages; here nobody needs it any more


async def test_everybody_of_the_workspace_may_ask_and_the_named_may_order(offered: Offered) -> None:
    async with offered.service("bob") as status:
        assert (await status.get_drift())["drift"] == "yes"
        assert (await status.get_app("drifted"))["drifts"][0]["path"] == "/max_ongoing_requests"
        assert (await status.get_plan())["id"] == "p-9c1e7d2-ab12"
        schema = status.suspend.__schema__["parameters"]
        assert schema["required"] == ["app_id", "reason"] and schema["properties"]["until"]["description"]
        with pytest.raises(Exception, match='did you mean "drifted"') as error:
            await status.get_app("driftet")
        assert 'File "' not in str(error.value)
        with pytest.raises(Exception, match=r"policy\.approvers"):
            await status.retry("calm")
    async with offered.service("ann") as status:
        await status.approve(plan_id="p-9c1e7d2-ab12", reason="fine")
    (order,) = offered.orders.given
    assert isinstance(order, Order) and order.by == "ann@lab.example.org"


async def test_sp_07_a_token_is_its_makers_only_with_the_right_to_administer(offered: Offered) -> None:
    config = {"server_url": offered.stack.url, "workspace": WORKSPACE, "logger": None}
    made: dict[str, str] = {}
    async with connect_to_server({**config, "token": offered.token("ann", "a")}) as server:
        for right in ("read", "read_write", "admin"):
            made[right] = await server.generate_token({"workspace": WORKSPACE, "permission": right, "expires_in": 600})
    await offered.reports.publish(said(an_app("calm")))
    for right, token in {**made, "login": offered.token("ann")}.items():
        is_ann = right in ("admin", "login")
        session = HyphaSession(lambda token=token: Address(offered.stack.url, token, WORKSPACE))
        me = await RunningReconciler(session, "reconcile-status", "lab").me()
        await session.close()
        assert me.is_one_of(["ann@lab.example.org", "ann"]) == is_ann, right
        async with connect_to_server({**config, "token": token}) as server:
            status = await server.get_service("reconcile-status")
            if is_ann:
                await status.retry("calm")
            else:
                with pytest.raises(Exception, match="permission admin"):
                    await status.retry("calm")
    assert offered.orders.retried == [("calm", "ann@lab.example.org")] * 2


async def test_strangers_learn_nothing(offered: Offered) -> None:
    async with offered.stack.connected("eve") as server:
        with pytest.raises(Exception, match="ermission"):
            service = await server.get_service(f"{WORKSPACE}/reconcile-status")
            await service.get_status()
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{offered.url('page')}/status.json")).status_code == 403


async def test_changes_are_streamed_and_who_leaves_is_forgotten(offered: Offered) -> None:
    offered.board.show(said(an_app("calm"), a_drifted_app()))
    async with offered.service("bob") as status:
        events = await status.watch()
        assert (await anext(events))["event"] == "snapshot"
        offered.board.show(said(an_app("calm", health="Degraded"), a_drifted_app()))
        event = await asyncio.wait_for(anext(events), 20)
        assert event["event"] == "changes" and [app["id"] for app in event["apps"]] == ["calm"]
        await events.aclose()


async def test_the_page_is_shown_through_hypha_to_who_is_logged_in(offered: Offered, browser: Browser) -> None:
    offered.board.show(said(an_app("calm"), a_drifted_app()))
    host = httpx.URL(offered.stack.url).host
    cookie = {"name": "access_token", "value": offered.token("bob"), "domain": host, "path": "/"}
    context = await browser.new_context()
    await context.add_cookies([cookie])  # type: ignore[list-item]
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        await page.goto(f"{offered.url('page')}/")
        await expect(row_of(page, "drifted")).to_contain_text("anna@…", timeout=20_000)
        offered.board.show(said(an_app("calm", health="Degraded")))
        await expect(row_of(page, "calm")).to_contain_text("Degraded", timeout=20_000)
        assert complaints == []
    finally:
        await context.close()


def a_delivery(body: bytes, secret: str = SECRET) -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"content-type": "application/json", "x-hub-signature-256": f"sha256={digest}"}


async def test_sw_01_07_a_signed_delivery_through_hypha_wakes_and_nothing_else_does(offered: Offered) -> None:
    push = json.dumps({"ref": "refs/heads/main", "repository": {"full_name": "lab/apps"}}).encode()
    large = b'{"a": "' + b"x" * LARGEST_BODY + b'"}'
    url = f"{offered.url('webhook')}/webhook"
    signed = a_delivery(push)

    async def chunked() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 2**18):
            yield large[start : start + 2**18]

    refused = {
        "SW-01 unsigned": (push, {"content-type": "application/json"}, 401),
        "SW-02 wrong": (push, a_delivery(push, "another-secret-entirely"), 401),
        "SW-03 of another body": (push + b" ", signed, 401),
        "SW-07 too large": (large, a_delivery(large), 413),
        "SW-07 too large, unannounced": (chunked(), a_delivery(large), 413),
        "SW-09 form": (push, {**signed, "content-type": "application/x-www-form-urlencoded"}, 415),
    }
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        for name, (body, headers, expected) in refused.items():
            assert (await http.post(url, content=body, headers=headers)).status_code == expected, name
            assert not offered.wake.is_set(), name
        answer = await http.post(url, content=push, headers=signed)
    assert (answer.status_code, answer.json()) == (202, {"said": "looking"})
    assert offered.wake.is_set()


async def test_after_hypha_was_away_everything_is_offered_again(offered: Offered) -> None:
    await offered.stack.stop_hypha()
    await offered.stack.start_hypha()

    async def told_again() -> bool:
        await offered.reports.publish(said(an_app("back")))
        async with offered.service("bob") as status:
            return (await status.get_status())["apps"][0]["id"] == "back"

    assert await eventually(told_again, 60)
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(
            f"{offered.url('page')}/status.json", headers={"authorization": f"Bearer {offered.token('bob')}"}
        )
    assert answer.json()["status"]["apps"][0]["id"] == "back"
