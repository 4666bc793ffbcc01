"""Second defence: blots out every value we ever read from texts on their way out. The first is not to put it in.

A value is found as it is, and in the forms that other people's errors quote it in. What could as well be a word or a
number is left alone: blotting it out would spoil what is said, and tell that it is the secret.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import quote, quote_plus

from bioengine_runtime.contract.status import AppState
from reconciler.planning.live import LiveState

MASK = "(secret)"
SHORTEST = 6
SURELY = 16
"""A value of at least so many characters is no word; a shorter one must not look like words or a number."""
_WORDS = re.compile(r"[^\W\d]+([-_. ]?[^\W\d]+)*|[\d.]+")


class Mask:
    """Knows values, and no text that holds one passes it unchanged."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._forms: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def add(self, value: str) -> None:
        if value in self._values:
            return
        with self._lock:
            self._values.add(value)
            parts = {value, *value.splitlines()}
            forms = {form for part in parts if _is_telling(part) for form in _forms(part)}
            self._forms = tuple(sorted({*self._forms, *forms}, key=len, reverse=True))

    def __call__(self, text: str) -> str:
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        return text


def _is_telling(value: str) -> bool:
    return len(value) >= SURELY or (len(value) >= SHORTEST and not _WORDS.fullmatch(value))


def _forms(value: str) -> Iterator[str]:
    """As it is, escaped for JSON and Python, for a URL, in base64 (also inside something longer), and backwards."""
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield from (quote(value, safe=""), quote(value), quote_plus(value))
    yield value[::-1]
    data = value.encode()
    for before in range(3):
        # What depends on the neighbours is cut off: the characters that are left stand in every longer text.
        after = -(before + len(data)) % 3
        text = base64.b64encode(bytes(before) + data + bytes(after)).decode()
        inner = text[-(-before * 8 // 6) : len(text) - (-(-after * 8 // 6))]
        if len(inner) >= SHORTEST:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")


def masked_live(live: LiveState, masked: Callable[[str], str]) -> LiveState:
    """What was seen, with every text in it that the other side wrote freely masked: it goes into plans and reports."""
    unseen = tuple(replace(one, why=masked(one.why)) for one in live.unseen)
    if live.worker is None:
        return replace(live, unseen=unseen)
    apps = [_masked_app(app, masked) if app.message or app.rejected else app for app in live.worker.apps]
    return replace(live, unseen=unseen, worker=live.worker.model_copy(update={"apps": apps}))


def _masked_app(app: AppState, masked: Callable[[str], str]) -> AppState:
    rejected = app.rejected and app.rejected.model_copy(
        update={"reason": masked(app.rejected.reason), "log_lines": list(map(masked, app.rejected.log_lines))}
    )
    return app.model_copy(update={"message": masked(app.message), "rejected": rejected})
