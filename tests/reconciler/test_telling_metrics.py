"""What Prometheus reads: that it tells what happened, and that nothing people write makes it grow."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from reconciler.errors import HeldElsewhere, SourceUnusable, Unreachable
from reconciler.planning.steps import PlanOptions
from reconciler.reconcile import Pass, reconcile
from reconciler.telling.metrics import STUCK_AFTER_S, Metrics, scraped
from tests.fakes import FakeMemory, FakeSecrets, FakeSource, FakeWorld, a_repository


class Clock:
    """Seconds since the epoch."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def a_pass(metrics: Metrics, fake: FakeWorld) -> Pass:
    with metrics.passing() as watch:
        done = await reconcile(watch.on(fake.world), PlanOptions(), tell=watch)
    metrics.after(done)
    return done


@pytest.fixture
def fake() -> FakeWorld:
    return FakeWorld(FakeSource(a_repository("one", "two")))


async def test_a_pass_is_told_in_numbers(fake: FakeWorld) -> None:
    metrics = Metrics(clock=Clock())
    fake.runtime.bad_environments["two"] = "no solution"
    await a_pass(metrics, fake)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert value("reconcile_passes_total", result="failed") == 1
    assert value("reconcile_steps_total", kind="upload_artifact", result="done") == 2
    assert value("reconcile_steps_total", kind="prepare_runtime_env", result="failed") == 1
    assert value("reconcile_steps_total", kind="deploy_app", result="skipped") == 1
    for phase in ("fetch", "look", "apply"):
        assert value("reconcile_pass_seconds_count", phase=phase) == 1
    assert value("reconcile_report_complete") == 1 and value("reconcile_lease_held") == 1
    assert value("reconcile_last_success_timestamp_seconds") == 0
    assert value("reconcile_last_pass_timestamp_seconds") == 1_000.0
    assert value("reconcile_source_info", cluster="lab", ref="main", commit=fake.source.head) == 1
    assert value("reconcile_apps", sync="Synced", health="Progressing") == 1

    fake.runtime.bad_environments.clear()
    await a_pass(metrics, fake)
    await a_pass(metrics, fake)
    assert value("reconcile_passes_total", result="done") == 2
    assert value("reconcile_pass_seconds_count", phase="apply") == 2, "the last one had nothing to apply"
    assert value("reconcile_last_success_timestamp_seconds") == 1_000.0
    assert value("reconcile_apps", sync="Synced", health="Healthy") == 2


async def test_an_app_that_is_gone_is_gone_here_too(fake: FakeWorld) -> None:
    metrics = Metrics()
    await a_pass(metrics, fake)
    assert {labels["app"] for labels in app_series(metrics)} == {"one", "two"}
    fake.source.commit({**a_repository("one", cluster="policy: {prune: true, removal_budget: 5}\n")})
    await a_pass(metrics, fake)
    await a_pass(metrics, fake)
    assert {labels["app"] for labels in app_series(metrics)} == {"one"}


async def test_only_app_gauges_carry_what_people_write(fake: FakeWorld) -> None:
    metrics = Metrics()
    for number in range(5):
        fake.source.commit(a_repository(*(f"app-{number}-{index}" for index in range(3))), subject=f"subject {number}")
        fake.runtime.fail("observe") if number == 3 else fake.runtime.heal()
        await a_pass(metrics, fake)
    told = {
        (sample.name, key): value
        for family in metrics.registry.collect()
        for sample in family.samples
        for key, value in sample.labels.items()
        if "app-" in value or "subject" in value
    }
    assert {name for name, _ in told} == {"reconcile_app_info"}
    commits = [s for f in metrics.registry.collect() for s in f.samples if s.name == "reconcile_source_info"]
    assert len(commits) == 1, "only what is followed now"


async def test_drift_and_what_is_held_are_counted() -> None:
    fake = FakeWorld(FakeSource(a_repository("one", "two", cluster="policy: {self_heal: detect-only}\n")))
    metrics = Metrics()
    await a_pass(metrics, fake)
    one = fake.runtime.apps["one"]
    assert one.spec is not None
    changed = one.spec.model_copy(update={"max_ongoing_requests": 77})
    fake.runtime.apps["one"] = one.model_copy(update={"spec": changed, "digest": changed.digest()})
    await a_pass(metrics, fake)
    assert metrics.registry.get_sample_value("reconcile_drift", {"class": "config"}) == 1
    assert metrics.registry.get_sample_value("reconcile_held", {"reason": "SelfHealDisabled"}) == 1


async def test_trouble_makes_what_was_shown_incomplete(fake: FakeWorld) -> None:
    metrics = Metrics()
    await a_pass(metrics, fake)
    fake.source.fail("fetch", SourceUnusable("gone"))
    with pytest.raises(SourceUnusable):
        await a_pass(metrics, fake)
    assert metrics.registry.get_sample_value("reconcile_report_complete") == 0
    assert metrics.registry.get_sample_value("reconcile_passes_total", {"result": "stopped"}) == 1
    assert metrics.registry.get_sample_value("reconcile_stops_total", {"remedy": "commit"}) == 1
    assert app_series(metrics), "what was known last is still shown"
    metrics.trouble(HeldElsewhere(None))
    assert metrics.registry.get_sample_value("reconcile_lease_held") == 0
    metrics.trouble(ValueError("a bug"))
    assert metrics.registry.get_sample_value("reconcile_stops_total", {"remedy": "bug"}) == 1


async def test_without_its_memory_nobody_has_the_lease() -> None:
    fake = FakeWorld(FakeSource(a_repository("one")), memory=FakeMemory())
    metrics = Metrics()
    await a_pass(metrics, fake)
    assert metrics.registry.get_sample_value("reconcile_lease_held") == 1
    assert fake.memory is not None
    fake.memory.fail("read")
    await a_pass(metrics, fake)
    assert metrics.registry.get_sample_value("reconcile_lease_held") == 0


async def test_what_was_not_seen_is_no_success(fake: FakeWorld) -> None:
    metrics = Metrics()
    fake.runtime.fail("observe", Unreachable("gone"))
    await a_pass(metrics, fake)
    assert metrics.registry.get_sample_value("reconcile_passes_total", {"result": "incomplete"}) == 1
    assert metrics.registry.get_sample_value("reconcile_report_complete") == 0
    assert metrics.registry.get_sample_value("reconcile_last_success_timestamp_seconds") == 0


async def test_they_are_served_beside_a_sign_of_life(fake: FakeWorld) -> None:
    clock = Clock()
    metrics = Metrics(clock=clock)
    await a_pass(metrics, fake)
    metrics.delivery(202)
    metrics.notified("webhook", True)
    async with scraped(metrics) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answer = await client.get("/metrics")
        names = {family.name for family in text_string_to_metric_families(answer.text)}
        assert {"reconcile_passes", "reconcile_apps", "reconcile_webhook_deliveries"} <= names
        assert "process_resident_memory_bytes" in names and answer.headers["content-type"].startswith("text/plain")
        alive = await client.get("/healthz")
        assert alive.status_code == 200 and alive.json()["alive"] is True
        clock.now += STUCK_AFTER_S
        assert (await client.get("/healthz")).status_code == 503
        metrics.waits(86400.0)
        clock.now += 86400.0 + STUCK_AFTER_S - 1
        assert (await client.get("/healthz")).status_code == 200, "it rested as it was told to"
        clock.now += 1
        assert (await client.get("/healthz")).status_code == 503
        assert (await client.post("/metrics")).status_code == 405


async def test_ss_01_no_secret_is_in_a_label(fake: FakeWorld) -> None:
    canary = "xK9-canary-value-77"
    fake = FakeWorld(FakeSource(a_repository("one", one="    env: {Main: {PASS: {env: CI_PASS}}}\n")))
    fake.secrets = FakeSecrets({"CI_PASS": canary})
    fake.runtime.bad_environments["one"] = f"pip quoted {canary}"
    metrics = Metrics()
    await a_pass(metrics, fake)
    assert canary not in str(list(metrics.registry.collect()))


def app_series(metrics: Metrics) -> list[dict[str, str]]:
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    return [dict(sample.labels) for sample in samples if "app" in sample.labels]
