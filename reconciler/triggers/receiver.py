"""The webhook receiver: checks who sends, answers 202, and wakes the loop. It never waits for what it wakes.

Law: one wake-up however many events, nothing of the event kept, and memory bounded whatever is sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from reconciler.errors import ReconcilerError
from reconciler.serving import serving
from reconciler.triggers.event import Followed, Malformed, read
from reconciler.triggers.signature import NotAuthentic, check, read_secrets

log = logging.getLogger(__name__)

PATH = "/webhook"
LARGEST_BODY = 2 * 2**20
"""Bytes; a push with more to tell than this is found by the next poll."""
BODY_WITHIN_S = 10.0
DELIVERIES_KEPT = 1000
LONGEST_DELIVERY = 100
DELIVERY_HEADERS = (
    "x-github-delivery",
    "x-gitea-delivery",
    "x-forgejo-delivery",
    "idempotency-key",
    "x-delivery-id",
)
"""What names one delivery and its repetitions: GitLab's is Idempotency-Key, for all that a webhook of it sets off has
one X-Gitlab-Event-UUID."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status code of HTTP, and a word for whoever reads the sender's list of deliveries."""

    status: int
    said: str


class Receiver:
    """One source's webhook. `wake` is set when the source may have moved; `answered` is told each status code."""

    def __init__(
        self,
        followed: Followed,
        secret_file: Path,
        wake: asyncio.Event,
        answered: Callable[[int], None] = lambda _: None,
    ) -> None:
        read_secrets(secret_file)
        self._followed = followed
        self._secret_file = secret_file
        self._wake = wake
        self.answered = answered
        self._seen: OrderedDict[str, None] = OrderedDict()

    def receive(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Header names in lower case. The secret is read at every delivery, so that it can be changed while we run."""
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return Answer(415, "send it as application/json")
        if headers.get("content-encoding", "identity") != "identity":
            return Answer(415, "send it without compression")
        try:
            check(headers, body, read_secrets(self._secret_file))
        except (NotAuthentic, ReconcilerError) as error:
            log.warning("event=webhook_refused why=%s", type(error).__name__)
            return Answer(401, "the signature does not hold")
        try:
            push = read(body)
        except Malformed as error:
            return Answer(400, str(error))
        if self._is_repeated(headers):
            return Answer(202, "seen before")
        if not push.concerns(self._followed):
            return Answer(202, "not what is followed here")
        self._wake.set()
        log.info("event=webhook_accepted")
        return Answer(202, "looking")

    def _is_repeated(self, headers: Mapping[str, str]) -> bool:
        delivery = next((headers[name] for name in DELIVERY_HEADERS if name in headers), None)
        if delivery is None:
            return False
        delivery = delivery[:LONGEST_DELIVERY]
        repeated = delivery in self._seen
        self._seen[delivery] = None
        if len(self._seen) > DELIVERIES_KEPT:
            self._seen.popitem(last=False)
        return repeated


def application(receiver: Receiver) -> Starlette:
    """The receiver behind POST /webhook."""

    async def webhook(request: Request) -> JSONResponse:
        answer = await _answer(receiver, request)
        receiver.answered(answer.status)
        return JSONResponse({"said": answer.said}, answer.status)

    return Starlette(routes=[Route(PATH, webhook, methods=["POST"])])


async def _answer(receiver: Receiver, request: Request) -> Answer:
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            body = await _body(request)
    except TimeoutError:
        return Answer(408, "too slow")
    except ClientDisconnect:
        return Answer(400, "incomplete")
    if body is None:
        return Answer(413, f"more than {LARGEST_BODY} bytes")
    return receiver.receive({name.lower(): value for name, value in request.headers.items()}, body)


async def _body(request: Request) -> bytes | None:
    """None when it is too large, which is found out before it is read, or while."""
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > LARGEST_BODY:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            return None
    return bytes(body)


@asynccontextmanager
async def listening(receiver: Receiver, host: str, port: int) -> AsyncGenerator[int, None]:
    """Yields the port it listens on (0 asks for any). Raises CannotListen."""
    async with serving(application(receiver), host, port, option="--webhook") as bound:
        yield bound
