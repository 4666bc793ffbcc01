"""The page of the example app, in a real browser: it calls the app, shows the answer, and asks no other host."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Error, Page, expect

from tests.e2e.browser import a_browser
from tests.e2e.lab import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EXAMPLE = Path("example-desired-state/apps/demo-app")
# What an app says is text, whatever is in it.
GREETING = "<b id='injected'>Hello</b>"
LOOPBACK = {"127.0.0.1", "localhost"}
ANSWER_MS = 20_000


def a_cluster(people: str = "*") -> dict[str, str]:
    kwargs = f'{{DemoApp: {{greeting: "{GREETING}"}}}}'
    entry = f'{{source: apps/demo-app, kwargs: {kwargs}, authorized_users: ["{people}"]}}'
    return {"cluster.yaml": f"name: lab\napps:\n  demo-app: {entry}\n"}


def the_example() -> dict[str, str]:
    return {f"apps/demo-app/{file.relative_to(EXAMPLE)}": file.read_text() for file in EXAMPLE.rglob("*.*")}


@dataclass
class Seen:
    """One open page, the hosts it asked, and what it complained of."""

    page: Page
    hosts: set[str | None] = field(default_factory=set[str | None])
    complaints: list[str] = field(default_factory=list[str])

    def ask(self, url: str) -> None:
        if not url.startswith("data:"):
            self.hosts.add(urlsplit(url).hostname)

    def hear(self, said: ConsoleMessage) -> None:
        if said.type == "error":
            self.complaints.append(said.text)

    def fail(self, error: Error) -> None:
        self.complaints.append(str(error))


@asynccontextmanager
async def opened(browser: Browser, url: str) -> AsyncIterator[Seen]:
    """A page in a profile of its own: no cookie, no cache."""
    page = await browser.new_page()
    seen = Seen(page)
    page.on("request", lambda request: seen.ask(request.url))
    page.on("websocket", lambda socket: seen.ask(socket.url))
    page.on("console", seen.hear)
    page.on("pageerror", seen.fail)
    try:
        await page.goto(url)
        yield seen
    finally:
        await page.close()


@pytest_asyncio.fixture(scope="module")
async def browser() -> AsyncGenerator[Browser, None]:
    async with a_browser() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module")
async def link(lab: Lab) -> str:
    """Where the worker says that the page of the example app is."""
    await lab.push({**the_example(), **a_cluster()})
    done = await lab.apply()
    assert done.code == 0, done.stdout + done.stderr
    url = (await lab.apps())["demo-app"].static_site_url
    assert url
    return url


def query_of(link: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(link).query))


async def test_the_link_names_the_server_and_both_services_of_the_app(lab: Lab, link: str) -> None:
    service_id = (await lab.apps())["demo-app"].service_id
    assert service_id and query_of(link) == {
        "server": link.split("/bioengine/")[0],
        "ws_service_id": service_id,
        "webrtc_service_id": f"{service_id}-rtc",
    }


async def test_the_page_shows_what_the_app_answers_and_asks_no_other_host(
    browser: Browser, link: str, tmp_path: Path
) -> None:
    async with opened(browser, link) as seen:
        state = seen.page.get_by_role("status")
        await expect(state).to_contain_text("the app is there", timeout=ANSWER_MS)
        await seen.page.get_by_role("button", name="New image").click()
        await expect(seen.page.locator("#summary")).to_contain_text("% of the image", timeout=ANSWER_MS)
        await expect(state).to_contain_text("Answered in")
        rows = await seen.page.locator("#objects tbody tr").all_inner_texts()
        largest = [int(number) for number in rows[0].split()]
        assert len(largest) == 4 and largest[0] >= 1 and 0 <= largest[1] < 64
        await seen.page.screenshot(path=tmp_path / "page.png", full_page=True)
        assert seen.hosts <= LOOPBACK and seen.hosts
        assert seen.complaints == []


async def test_the_threshold_is_moved_with_the_keyboard_alone(browser: Browser, link: str) -> None:
    async with opened(browser, link) as seen:
        slider = seen.page.get_by_role("slider", name="Threshold")
        await expect(slider).to_be_enabled(timeout=ANSWER_MS)
        await slider.focus()
        await slider.press("End")
        await expect(seen.page.locator("#summary")).to_contain_text("0 objects", timeout=ANSWER_MS)


async def test_what_the_app_says_is_text(browser: Browser, link: str) -> None:
    async with opened(browser, link) as seen:
        await expect(seen.page.get_by_role("status")).to_contain_text(GREETING, timeout=ANSWER_MS)
        assert await seen.page.locator("#injected").count() == 0


async def test_without_an_address_the_page_says_where_to_get_one(browser: Browser, link: str) -> None:
    async with opened(browser, link.split("?")[0]) as seen:
        await expect(seen.page.get_by_role("status")).to_contain_text("static_site_url", timeout=ANSWER_MS)


async def test_an_app_that_is_not_there_is_said_in_plain_words(browser: Browser, link: str) -> None:
    query = query_of(link)
    gone = f"{link.split('?')[0]}?{urlencode({**query, 'ws_service_id': query['ws_service_id'] + '-gone'})}"
    async with opened(browser, gone) as seen:
        await expect(seen.page.get_by_role("status")).to_contain_text("The app is not running", timeout=ANSWER_MS)
        await expect(seen.page.get_by_role("button", name="New image")).to_be_disabled()


async def test_somebody_who_may_not_call_is_told_so(lab: Lab, browser: Browser, link: str) -> None:
    await lab.push(a_cluster(people="ann@lab.example"))
    done = await lab.apply()
    assert done.code == 0, done.stdout + done.stderr
    async with opened(browser, link) as seen:
        await expect(seen.page.get_by_role("status")).to_contain_text("does not let you", timeout=ANSWER_MS)
        await expect(seen.page.locator("#said")).not_to_contain_text("ann@lab.example")
