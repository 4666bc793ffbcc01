"""`reconcile retry`: a version that failed is tried once more, and what became of it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioengine_runtime.contract.status import Rejection
from tests.fakes import FakeSource, FakeWorld, a_repository
from tests.reconciler.test_cli import applied, reconcile


@pytest.fixture
def stays(tmp_path: Path) -> FakeWorld:
    """`one` is up, has failed its probe, and stays as there is nothing to go back to."""
    fake = applied(FakeWorld(FakeSource(a_repository("one", "two"))), tmp_path)
    app = fake.runtime.apps["one"]
    wrong = Rejection(digest=app.digest or "", reason="the probe ping raised", at=0.0, gate="probe")
    fake.runtime.apps["one"] = app.model_copy(update={"rejected": wrong})
    fake.forget_calls()
    return fake


def tries(fake: FakeWorld) -> list[str]:
    return [call for call in fake.runtime.calls if call.startswith("apply")]


def test_ro_04_one_that_stays_is_judged_anew_and_its_end_is_told(stays: FakeWorld, tmp_path: Path) -> None:
    result = reconcile(stays, "retry", "one", home=tmp_path)
    assert result.exit_code == 0 and "one  healthy" in result.stdout
    assert tries(stays) == ["apply one"]


def test_ro_04_one_that_fails_again_is_told_and_tried_no_third_time(stays: FakeWorld, tmp_path: Path) -> None:
    stays.runtime.bad["one"] = "the probe ping raised KeyError"
    result = reconcile(stays, "retry", "one", home=tmp_path)
    assert result.exit_code == 1 and "one  rejected" in result.stdout
    assert "the probe ping raised KeyError" in result.stderr
    assert tries(stays) == ["apply one"]


def test_forcing_everything_tries_each_once(stays: FakeWorld, tmp_path: Path) -> None:
    stays.runtime.bad["one"] = "the probe ping raised KeyError"
    reconcile(stays, "apply", "--force", "--wait", "--auto-approve", home=tmp_path)
    assert tries(stays) == ["apply one"]
