"""The board: what the newest pass said, for whoever asks, and a way to wait for the next.

Showing costs next to nothing; documents are made when somebody asks, once for each report.
"""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from reconciler import views
from reconciler.errors import ReconcilerError, Remedy
from reconciler.ports import Said
from reconciler.views import Document

NOTHING_YET = Said(
    {
        "schema": "reconcile.drift/v1",
        "target": "",
        "observed_at": "",
        "revision": "",
        "commit": "",
        "complete": False,
        "unseen": [{"what": "everything", "why": "no pass has ended yet"}],
        "apps": [],
    }
)


class NotFound(ReconcilerError):
    """Nothing here has this id."""

    remedy = Remedy.OPERATOR


class Board:
    """Answers from memory. `masked` blots out values of secrets; `version` grows when something changed."""

    def __init__(
        self, masked: Callable[[str], str] = lambda text: text, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.version = 0
        self._masked = masked
        self._clock = clock
        self._said = NOTHING_YET
        self._shown_at: float | None = None
        self._made: dict[str, Document] = {}
        self._turn = asyncio.Event()

    def show(self, said: Said) -> None:
        """Put this in the place of what was there. Followers are told only when more than its time is new."""
        news = _content(said) != _content(self._said)
        self._said, self._shown_at = said, self._clock()
        self._made.clear()
        if news:
            self.version += 1
            self._turn.set()
            self._turn = asyncio.Event()

    async def turned(self, version: int, within_s: float) -> bool:
        """Whether something else than `version` is shown, waiting for it that long."""
        if self.version == version:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._turn.wait(), within_s)
        return self.version != version

    @property
    def age_s(self) -> float | None:
        """Seconds since the last look ended; None: there was none."""
        return None if self._shown_at is None else round(self._clock() - self._shown_at, 1)

    def status(self) -> Document:
        """How everything stands."""
        return self._once("status", lambda: views.status(self._said.report, self._said.plan)) | {"age_s": self.age_s}

    def drift(self) -> Document:
        """What differs though no commit asked for it."""
        return self._once("drift", lambda: views.drift(self._said.report, self._said.plan)) | {"age_s": self.age_s}

    def plan(self) -> Document:
        """What would be done now."""
        return self._once("plan", lambda: views.plan(self._said.plan))

    def app(self, app_id: str) -> Document:
        """One app: its row, its drifts, the steps that concern it. Raises NotFound."""
        self.known(app_id)
        status, plan = self.status(), self.plan()
        row = next(app for app in (*status["apps"], *status["orphans"]) if app["id"] == app_id)
        return {
            **row,
            **{name: status[name] for name in ("observed_at", "revision", "complete", "age_s")},
            "drifts": [one for one in self.drift()["apps"] if one["id"] == app_id],
            "steps": [one for one in plan["steps"] if one["app_id"] == app_id],
            "held": [one for one in plan["held"] if one["app_id"] == app_id],
        }

    def story(self, app_id: str) -> Document:
        """Why an app is as it is, and what will become of it. Raises NotFound."""
        return views.public(views.story(self._said.explain(self.known(app_id))), self._masked)

    def known(self, app_id: str) -> str:
        """The id, when there is such an app. Raises NotFound, with the nearest one there is."""
        report = self._said.report
        ids = [app["id"] for app in (*report["apps"], *report.get("orphans", ()))]
        if app_id in ids:
            return app_id
        near = difflib.get_close_matches(app_id, ids, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(ids[:20]) or 'no apps'}"
        raise NotFound(f"app {app_id[:80]!r} not found: neither in git nor running", hint=hint)

    def public(self, document: Any) -> Any:
        """A document of somebody else's, without what nobody may read here."""
        return views.public(document, self._masked)

    def _once(self, name: str, make: Callable[[], Document]) -> Document:
        if name not in self._made:
            self._made[name] = views.public(make(), self._masked)
        return self._made[name]


def _content(said: Said) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Without the times of looking, and what is made of them."""
    report = {name: value for name, value in said.report.items() if name != "observed_at"}
    return report, {name: value for name, value in said.plan.items() if name not in ("created_at", "digest")}
