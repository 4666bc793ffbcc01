"""One app's trouble is its own, and what Hypha did not hear it is told again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from bioengine_runtime.apps.record import AppRecord, Running
from bioengine_runtime.contract.app import IceServer
from bioengine_runtime.gateway.services import Services
from bioengine_runtime.rpc.callers import Callers
from tests.runtime.test_gateway_offer import WORKER, a_record, a_running, a_schema


class Session:
    """Hypha, as far as it listens."""

    def __init__(self) -> None:
        self.offered: dict[str, Mapping[str, Any]] = {}
        self.deaf_to: set[str] = set()

    async def put(self, service: Mapping[str, Any]) -> None:
        self._hear(service["id"])
        self.offered[service["id"]] = service

    async def withdraw(self, service_id: str) -> None:
        self._hear(service_id)
        self.offered.pop(service_id, None)

    def service_id(self, service: str) -> str:
        return f"w/gateway:{service}"

    def _hear(self, service_id: str) -> None:
        if service_id in self.deaf_to:
            raise TimeoutError


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture
def services(session: Session) -> Services:
    return Services(WORKER, session, lambda: (), Callers(AsyncMock()))  # type: ignore[arg-type]


def apps(**records: AppRecord) -> dict[str, Running]:
    return {app_id: replace(a_running(record), app_id=app_id) for app_id, record in records.items()}


def with_schema(parameters: Any) -> AppRecord:
    schema = {**a_schema("run"), "parameters": parameters}
    return a_record().model_copy(update={"methods": [{"name": "run", "schema": schema}]})


def with_ice(*urls: str) -> AppRecord:
    record = a_record("run")
    servers = [IceServer(urls=one) for one in urls]
    return record.model_copy(update={"spec": record.spec.model_copy(update={"ice_servers": servers})})


async def test_an_app_with_a_broken_schema_keeps_no_other_from_callers(services: Services, session: Session) -> None:
    await services.follow(apps(before=a_record("run"), broken=with_schema("boo"), after=a_record("run")))
    assert set(session.offered) == {"before", "before-rtc", "after", "after-rtc"}


async def test_an_app_that_hypha_refuses_keeps_no_other_from_callers_and_its_peers_wait(
    services: Services, session: Session
) -> None:
    running = apps(bad=a_record("run"), good=a_record("run"))
    session.deaf_to = {"bad"}
    await services.follow(running)
    assert set(session.offered) == {"good", "good-rtc"}
    session.deaf_to = set()
    await services.follow(running)
    assert set(session.offered) == {"good", "good-rtc", "bad", "bad-rtc"}


async def test_a_trouble_is_logged_once_and_again_when_it_has_changed(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "ray.serve")
    for parameters in ("boo", "boo", 7):
        await services.follow(apps(broken=with_schema(parameters)))
    assert [one.args[0] for one in caplog.records if one.name == "ray.serve"] == ["broken"] * 2  # type: ignore[index]


async def test_new_methods_that_hypha_did_not_hear_of_are_told_at_the_next_look(
    services: Services, session: Session
) -> None:
    await services.follow(apps(demo=a_record("run")))
    session.deaf_to = {"demo"}
    changed = apps(demo=a_record("run", "more"))
    await services.follow(changed)
    assert "more" not in session.offered["demo"]
    session.deaf_to = set()
    await services.follow(changed)
    assert "more" in session.offered["demo"]
    told = session.offered["demo"]
    await services.follow(changed)
    assert session.offered["demo"] is told


async def test_who_may_call_holds_from_now_on_whether_hypha_hears_of_the_new_version_or_not(
    services: Services, session: Session
) -> None:
    await services.follow(apps(demo=a_record("run")))
    session.deaf_to = {"demo"}
    await services.follow(apps(demo=a_record("run", "more", users=["alice"])))
    with pytest.raises(Exception, match=r"user bob@lab\.example may not call run"):
        await session.offered["demo"]["run"](context={"user": {"id": "bob", "email": "bob@lab.example"}})


@pytest.mark.parametrize("deaf_to", ["demo", "demo-rtc"])
async def test_an_app_that_is_gone_is_withdrawn_until_hypha_has_heard_it(
    services: Services, session: Session, deaf_to: str
) -> None:
    await services.follow(apps(demo=a_record("run")))
    session.deaf_to = {deaf_to}
    await services.follow({})
    assert deaf_to in session.offered
    session.deaf_to = set()
    await services.follow({})
    assert not session.offered


async def test_a_service_for_webrtc_that_hypha_did_not_hear_of_is_told_at_the_next_look(
    services: Services, session: Session
) -> None:
    async def said() -> Any:
        return session.offered["demo"]["get_rtc_service_id"]()

    session.deaf_to = {"demo-rtc"}
    await services.follow(apps(demo=with_ice("stun:a")))
    assert await said() is None
    session.deaf_to = set()
    await services.follow(apps(demo=with_ice("stun:a")))
    assert await said() == "w/gateway:demo-rtc"
    await services.follow(apps(demo=with_ice("stun:b")))
    assert session.offered["demo-rtc"]["config"]["ice_servers"] == [{"urls": "stun:b"}]
