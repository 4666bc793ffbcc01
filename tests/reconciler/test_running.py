"""The reconciler that keeps this cluster, and not another one that answers by the same id."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from reconciler.adapters.hypha import RemoteError
from reconciler.adapters.running import RunningReconciler
from reconciler.errors import Unreachable
from reconciler.ports import OrderRefused


@dataclass
class Session:
    """Answers each question with `answer`, or raises it."""

    answer: Any = None
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list[tuple[str, str, dict[str, Any]]])

    async def ask(self, service_id: str, method: str, *, timeout_s: float, **arguments: Any) -> Any:
        assert timeout_s > 0
        self.asked.append((service_id, method, arguments))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def running(session: Session) -> RunningReconciler:
    return RunningReconciler(session, "reconcile-status", "lab")  # type: ignore[arg-type]


async def test_an_order_says_for_which_cluster_it_is() -> None:
    session = Session()
    await running(session).order("suspend", {"app_id": "one", "until": None})
    assert session.asked == [("reconcile-status", "suspend", {"app_id": "one", "cluster": "lab"})]


async def test_what_is_refused_is_told() -> None:
    with pytest.raises(OrderRefused, match="may not"):
        await running(Session(RemoteError("PermissionError", "ben may not suspend"))).order("suspend", {})


@pytest.mark.parametrize(
    ("answer", "there"),
    [
        ({"target": "lab"}, True),
        ({"target": "staging"}, False),
        ({"target": ""}, True),
        ("what is this", True),
        (RemoteError("KeyError", "several"), True),
        (Unreachable("nobody offers it"), False),
    ],
)
async def test_only_another_cluster_or_no_answer_is_nobody(answer: Any, *, there: bool) -> None:
    """Who cannot tell must be taken for there: nobody may start the memory anew beside him."""
    assert await running(Session(answer)).answers() is there
