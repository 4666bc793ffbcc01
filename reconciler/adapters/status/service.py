"""`reconcile-status`: what may be asked by everybody of the workspace, and ordered by the people that git names.

Questions are answered from memory, whatever state the cluster is in. Orders are for `policy.approvers` (user ids or
e-mail addresses) and for whoever the reconciler itself is; approvals are for `policy.pruners`, too. They are kept where
the reconciler keeps its orders, and take effect with its next pass. An error ends with a line `<Type>: <message>`;
nothing is done then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Annotated, Any, Protocol

from pydantic import AwareDatetime, Field

from reconciler import views
from reconciler.adapters.status.people import Caller
from reconciler.adapters.status.watcher import Watcher, Watchers
from reconciler.adapters.status.wire import Method, remote
from reconciler.board import Board, NotFound
from reconciler.errors import ReconcilerError, Remedy
from reconciler.planning.memory import Order, OrderKind
from reconciler.ports import Memory
from reconciler.views import Document

log = logging.getLogger(__name__)

AppName = Annotated[str, Field(min_length=1, max_length=200, description="App id, as in cluster.yaml.")]
AnyApp = Annotated[str, Field(max_length=200, description="Only of this app; left out: of all.")]
Limit = Annotated[int, Field(ge=1, le=500, description="At most so many entries.")]
PlanId = Annotated[str, Field(min_length=1, max_length=100, description="Id of the plan, from get_plan or get_drift.")]
Why = Annotated[str, Field(max_length=500, description="Why; kept in the history.")]
Needed = Annotated[str, Field(min_length=1, max_length=500, description="Why; shown wherever the app is shown.")]
Until = Annotated[
    AwareDatetime | None, Field(description="ISO 8601 with its offset from UTC; left out: until somebody resumes it.")
]
Once = Annotated[bool, Field(description="Let the next commit through, that one only.")]
Commit = Annotated[
    str,
    Field(pattern=r"^([0-9a-f]{7,64})?$", description="Commit id to go back to; left out: the last that was good."),
]

Cluster = Annotated[
    str, Field(max_length=200, description="Name of the cluster that it is for; left out: whichever this one keeps.")
]


class Orders(Protocol):
    """Where orders go; each is kept, and the next pass brought forward. All raise ReconcilerError."""

    async def give(self, order: Order) -> None:
        """Keep it in the place of an earlier one of its kind. Of a pin, `revision` "" is the last good one; which
        content it replaces is filled in."""
        ...

    async def take_back(self, kind: OrderKind, subject: str, by: str) -> bool:
        """Whether there was one."""
        ...

    async def retry(self, app_id: str, by: str) -> None:
        """Try again what was rejected, without waiting for git to move."""
        ...


class OtherCluster(ReconcilerError):
    """An order that is not for this one."""

    remedy = Remedy.OPERATOR


class NoOrders(ReconcilerError):
    """This reconciler takes none."""

    remedy = Remedy.OPERATOR


class StatusService:
    """The methods. `ourselves` is who the reconciler is to Hypha."""

    def __init__(
        self,
        board: Board,
        *,
        memory: Memory | None = None,
        orders: Orders | None = None,
        approvers: Callable[[], Collection[str]] = tuple,
        pruners: Callable[[], Collection[str]] = tuple,
        ourselves: Callable[[], Caller] = Caller,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._board = board
        self._memory = memory
        self._orders = orders
        self._approvers = approvers
        self._pruners = pruners
        self._ourselves = ourselves
        self._clock = clock
        self.watchers = Watchers(board)

    def methods(self) -> dict[str, Any]:
        """By their names on the wire, as functions made for one registration."""
        asked: tuple[Method, ...] = (
            self.get_status, self.get_app, self.get_drift, self.get_plan, self.get_history, self.explain, self.watch,
            self.approve, self.suspend, self.resume, self.rollback, self.retry,
        )  # fmt: skip
        return {method.__name__: remote(method) for method in asked}

    async def get_status(self, caller: Caller) -> Document:  # noqa: ARG002 - the wire gives it to all
        """How everything stands: apps with sync and health, conditions, what could not be seen. `complete: false`
        means that some question got no answer; `drift` is yes, no or unknown. `age_s`: seconds since that look."""
        return self._board.status()

    async def get_app(self, caller: Caller, app_id: AppName) -> Document:  # noqa: ARG002 - the wire gives it to all
        """One app: how it stands, how it drifted, and the steps that concern it."""
        return self._board.app(app_id)

    async def get_drift(self, caller: Caller) -> Document:  # noqa: ARG002 - the wire gives it to all
        """What differs though no commit asked for it (reconcile.drift/v1), one row per field, with the id of the plan
        that would undo it. Only `drift: no` says that there is none; when not everything was seen it is `unknown`."""
        return self._board.drift()

    async def get_plan(self, caller: Caller) -> Document:  # noqa: ARG002 - the wire gives it to all
        """What the reconciler would do now, what it holds back and why, and the gate it waits at."""
        return self._board.plan()

    async def get_history(self, caller: Caller, limit: Limit = 50, app_id: AnyApp = "") -> list[Document]:  # noqa: ARG002 - the wire gives it to all
        """Who did what, when, with which result; the newest first. `at` in seconds since the epoch."""
        if self._memory is None:
            raise NoOrders("this reconciler keeps no history", hint="It does so when it runs with a token of Hypha.")
        return self._board.public([views.entry(one) for one in await self._memory.history(limit, app_id)])

    async def explain(self, caller: Caller, app_id: AppName) -> Document:  # noqa: ARG002 - the wire gives it to all
        """Why an app is as it is, and what will become of it: rows of name and text."""
        return self._board.story(app_id)

    async def watch(self, caller: Caller) -> Watcher:  # noqa: ARG002 - the wire gives it to all
        """Events as they come: first {event: snapshot, …get_status}, then {event: changes, apps: those that changed,
        gone: ids, …}, and {event: alive} when nothing changed for ten seconds. Who is slow gets several at once."""
        return await self.watchers.join()

    async def approve(self, caller: Caller, plan_id: PlanId, reason: Why = "", cluster: Cluster = "") -> Document:
        """Let the plan of this id be carried out, though the policy would wait or no window is open (so say approvers),
        and apps be stopped (so say pruners). Of a plan without steps: undo the drift that it only tells (approvers),
        or stop the apps that it holds back until somebody confirms it (pruners). It counts as long as a saved plan, for
        what that plan shows, and for nothing that comes up later."""
        orders = self._ordering(caller, "approve", cluster, self._pruners())
        plan = self._board.plan()
        if not plan.get("id") or plan["id"] != plan_id:
            now = f"the plan now is {plan['id']}" if plan.get("id") else "there is no plan now"
            raise NotFound(f"plan {plan_id!r} not found: {now}", hint="Look at it with get_plan, and approve that id.")
        return await self._give(orders, self._order(OrderKind.APPROVE, plan_id, caller, reason=reason))

    async def suspend(
        self,
        caller: Caller,
        app_id: AppName,
        reason: Needed,
        until: Until = None,
        once: Once = False,
        cluster: Cluster = "",
    ) -> Document:
        """Change nothing about an app for a while, whatever git says; with `once` let the next commit through."""
        orders = self._ordering(caller, "suspend", cluster)
        end = until.timestamp() if isinstance(until, datetime) else None
        known = self._board.known(app_id)
        order = self._order(OrderKind.SUSPEND, known, caller, reason=reason, until=end, once=once)
        return await self._give(orders, order)

    async def resume(self, caller: Caller, app_id: AppName, cluster: Cluster = "") -> Document:
        """Follow an app again that somebody suspended, or rolled back, by an order."""
        orders = self._ordering(caller, "resume", cluster)
        self._board.known(app_id)
        ended = [await orders.take_back(kind, app_id, caller.name) for kind in (OrderKind.SUSPEND, OrderKind.PIN)]
        if not any(ended):
            hint = "What cluster.yaml suspends, a commit resumes."
            raise NotFound(f"order for {app_id} not found: nobody suspended it, or rolled it back", hint=hint)
        log.info("event=order kind=resume subject=%s by=%s", app_id, caller.name)
        return {"accepted": True, "kind": "resume", "subject": app_id}

    async def rollback(
        self, caller: Caller, app_id: AppName, to: Commit = "", reason: Why = "", cluster: Cluster = ""
    ) -> Document:
        """Run an app as an older commit has it, until git asks for something else."""
        orders = self._ordering(caller, "rollback", cluster)
        order = self._order(OrderKind.PIN, self._board.known(app_id), caller, reason=reason, revision=to)
        return await self._give(orders, order)

    async def retry(self, caller: Caller, app_id: AppName, cluster: Cluster = "") -> Document:
        """Try again what was rejected, without a new commit."""
        orders = self._ordering(caller, "retry", cluster)
        await orders.retry(self._board.known(app_id), caller.name)
        log.info("event=order kind=retry subject=%s by=%s", app_id, caller.name)
        return {"accepted": True, "kind": "retry", "subject": app_id}

    def _ordering(self, caller: Caller, what: str, cluster: str, besides: Collection[str] = ()) -> Orders:
        """Where the order goes. Raises PermissionError, OtherCluster or NoOrders."""
        if not caller.is_one_of({*self._approvers(), *besides, *self._ourselves().names}):
            who = "one of policy.approvers in cluster.yaml, or of --approvers where that is given"
            how = "a token that one of them made counts only with the permission admin"
            raise PermissionError(f"{caller.name} may not {what}; it takes {who}; {how}")
        if cluster not in ("", keeps := self._board.status()["target"]):
            hint = "Give each cluster of a workspace a service id of its own: hypha.status in cluster.yaml."
            raise OtherCluster(f"this reconciler keeps {keeps or 'no cluster yet'}, not {cluster}", hint=hint)
        if self._orders is None:
            raise NoOrders("this reconciler takes no orders", hint="Commit what you want to the repository.")
        return self._orders

    def _order(self, kind: OrderKind, subject: str, caller: Caller, **more: Any) -> Order:
        """`revision` is where git is now, but where to go for a pin."""
        return Order(
            kind,
            subject,
            **{"revision": self._board.status()["commit"], **more},
            by=caller.name,
            by_id=caller.user_id,
            at=self._clock(),
        )

    async def _give(self, orders: Orders, order: Order) -> Document:
        await orders.give(order)
        log.info("event=order kind=%s subject=%s by=%s", order.kind.value, order.subject, order.by)
        return {"accepted": True, "kind": order.kind.value, "subject": order.subject}
