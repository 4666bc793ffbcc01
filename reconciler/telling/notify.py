"""Notifications: a signed webhook when something is new, and a status beside the commit.

Law: they are made after a pass and sent beside it. Whatever becomes of them, no pass waits, fails or knows; what did
not arrive is tried again after each pass, in its order.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from reconciler.errors import ReconcilerError, Remedy
from reconciler.planning.shown import plain
from reconciler.reconcile import Pass
from reconciler.telling import news
from reconciler.telling.forges import Commits, NoForge, State
from reconciler.telling.line import Line
from reconciler.telling.news import News, Standing
from reconciler.telling.outgoing import Outlet, RefusedAddress, document
from reconciler.telling.runs import run_id

log = logging.getLogger(__name__)

SCHEMA = "reconcile.news/v1"
LAST_WORDS_S = 5.0
"""How long the end waits for what is still on its way."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Whoever listens at `outlet`, and what we share with them."""

    outlet: Outlet
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """The mark beside a commit. `private` are the hosts that may be of a private network."""

    commits: Commits
    token: Callable[[], str] = field(repr=False)
    target_url: str = ""
    private: tuple[str, ...] = ()


Arrived = Callable[[str, bool], None]


class NoToken(ReconcilerError):
    """There is none where it was said to be."""

    remedy = Remedy.OPERATOR


class Notifier:
    """Sends, while it is open, what is given to it. `arrived` is told to whom, and whether."""

    def __init__(
        self,
        *,
        webhooks: tuple[Webhook, ...] = (),
        status: CommitStatus | None = None,
        masked: Callable[[str], str] = lambda text: text,
        arrived: Arrived = lambda to, ok: None,  # noqa: ARG005 - named for who reads it
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._webhooks = [(webhook, Line("webhook", arrived)) for webhook in webhooks]
        self._status = (status, Line(status.commits.forge.value, arrived)) if status else None
        self._lines = [line for _, line in (*self._webhooks, *((self._status,) if self._status else ()))]
        self._masked = masked
        self._now = now
        self._standing = Standing()
        self._cluster = self._revision = self._commit = ""
        self._marked: tuple[str, State, str] | None = None
        self._sending: list[asyncio.Task[None]] = []

    def after(self, done: Pass) -> None:
        """A pass went to its end. Returns at once."""
        plan = done.look.plan
        self._cluster, self._revision, self._commit = plan.cluster, plan.revision.short, plan.revision.id
        self._standing, new = news.after(self._standing, done)
        self._tell(new, done.run, complete=bool(done.report["complete"]))
        if self._status and not plan.revision.worktree:
            self._mark(*self._status, plan.revision.commit, *news.standing_of(done.report))
        self._again()

    def trouble(self, error: Exception) -> None:
        """A pass was stopped. Returns at once."""
        self._standing, new = news.after_trouble(self._standing, error)
        self._tell(new, run_id.get(), complete=False)
        self._again()

    async def __aenter__(self) -> Self:
        self._sending = [asyncio.create_task(line.run()) for line in self._lines]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                await asyncio.gather(*(line.rest() for line in self._lines))
        except TimeoutError:
            log.warning("event=notifications_late after_s=%g", LAST_WORDS_S)
        if left := sum(map(len, self._lines)):
            log.warning("event=notifications_dropped count=%d", left)
        for sending in self._sending:
            sending.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    def _tell(self, new: tuple[News, ...], run: str, *, complete: bool) -> None:
        if not new:
            return
        content = {
            "schema": SCHEMA,
            "cluster": self._cluster,
            "revision": self._revision,
            "commit": self._commit,
            "run": run,
            "complete": complete,
            "news": [self._safe(one.document()) for one in new[: news.AT_MOST]],
            "more": max(0, len(new) - news.AT_MOST),
        }
        for webhook, line in self._webhooks:
            delivery, at = str(uuid.uuid4()), self._now().isoformat(timespec="seconds")
            body = document({**content, "delivery": delivery, "at": at})
            headers = {"X-Signature-256": signature(webhook.secret, body), "X-Delivery-Id": delivery, "X-Timestamp": at}
            line.add(partial(webhook.outlet.send, body, headers))

    def _mark(self, status: CommitStatus, line: Line, commit: str, state: State, description: str) -> None:
        description = plain(self._masked(description), 140)
        if self._marked == (commit, state, description):
            return
        self._marked = (commit, state, description)
        commits, context = status.commits, f"reconcile/{self._cluster}"
        try:
            outlet = Outlet(commits.url(commit), status.private)
            headers = commits.headers(status.token())
        except (NoForge, NoToken, RefusedAddress) as error:
            log.warning("event=status_not_set why=%s", error)
            return
        body = document(commits.content(state, context, description, status.target_url))
        line.add(partial(outlet.send, body, headers))

    def _again(self) -> None:
        for line in self._lines:
            line.again()

    def _safe(self, texts: Mapping[str, str]) -> Mapping[str, str]:
        return {name: self._masked(text) for name, text in texts.items()}


def token_from(file: Path | None, variable: str, environ: Mapping[str, str] = os.environ) -> Callable[[], str]:
    """Reads the token when it is needed, so that it can be changed meanwhile. Raises NoToken, now or then."""

    def read() -> str:
        try:
            token = file.read_text(encoding="utf-8").strip() if file else environ.get(variable, "").strip()
        except (OSError, UnicodeDecodeError):
            token = ""
        if not token or not token.isprintable():
            where = str(file) if file else variable
            raise NoToken(f"no token for commit statuses in {where}", hint="It needs the right to set statuses only.")
        return token

    read()
    return read


def signature(secret: bytes, body: bytes) -> str:
    """As our own receiver checks it, and GitHub's form."""
    return f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"
