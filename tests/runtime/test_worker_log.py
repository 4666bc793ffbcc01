"""The end of the worker's log: right, and never more of the file than it takes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from bioengine_runtime.worker import log_file as worker_log
from bioengine_runtime.worker.log_file import tail


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


@pytest.mark.parametrize("block", [1, 3, 7, 64 * 1024])
@pytest.mark.parametrize("ending", ["", "\n"])
def test_the_last_lines_whatever_the_size_of_a_block(
    log: Path, block: int, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_log, "BLOCK", block)
    written = ["", "first", "zweite Zeile: ü", "", "last"]
    log.write_text("\n".join(written) + ending)
    for lines in range(1, 8):
        assert tail(log, lines) == written[-lines:]
    assert tail(log, 0) == written


def test_a_log_without_lines(log: Path) -> None:
    log.touch()
    assert tail(log, 0) == tail(log, 5) == []


def test_a_huge_log_is_not_read(log: Path) -> None:
    with log.open("wb") as file:
        file.truncate(1 << 36)  # a hole of 64 GB: reading it would take more time and memory than there is
        file.seek(1 << 36)
        file.write(b"\n" + b"".join(b"line %d\n" % number for number in range(100_000)))
    assert tail(log, 2) == ["line 99998", "line 99999"]
    everything = tail(log, 0)
    assert everything[-1] == "line 99999"
    assert "older lines are left out" in everything[0] and str(log) in everything[0]
    assert sum(map(len, everything)) < worker_log.MOST_BYTES + 200


def test_one_endless_line_is_cut_and_said(log: Path) -> None:
    log.write_bytes(b"x" * (worker_log.MOST_BYTES + 10) + b"\nlast\n")
    assert tail(log, 1) == ["last"]
    shown = tail(log, 2)
    assert "older lines are left out" in shown[0] and shown[1:] == ["last"]


def test_bytes_that_are_no_text_do_not_matter(log: Path) -> None:
    log.write_bytes(b"\xff\xfe bad\nlast\n")
    assert tail(log, 1) == ["last"]
    assert len(tail(log, 0)) == 2


def test_no_log_is_said_in_plain_words(log: Path) -> None:
    with pytest.raises(RuntimeError, match=r"standard error.*--log-file"):
        tail(None, 10)
    with pytest.raises(RuntimeError, match=r"worker\.log cannot be read: No such file"):
        tail(log, 10)


def test_a_log_does_not_grow_for_ever(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_log, "LARGEST_BYTES", 1000)
    handler = worker_log.writer(log)
    for number in range(1000):
        handler.emit(logging.makeLogRecord({"msg": f"line {number}"}))
    handler.close()
    assert sum(file.stat().st_size for file in log.parent.iterdir()) <= 2000
    assert tail(log, 1) == ["line 999"]
