"""What can go wrong, as one sentence and a way out; and what a remote error really says."""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST = 1500
_TRACEBACK = "Traceback (most recent call last):"


class Trouble(Exception):
    """It was not done; the message says what and why, the hint what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Said:
    """An error of the other side: its type there, and its text on one line."""

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


def said(error: BaseException) -> Said:
    """What an error of hypha-rpc carries: the other side's traceback, or its text and then `Type: text`."""
    body = str(error).strip().removeprefix("RemoteError:").strip()
    _, cut, trace = body.rpartition(_TRACEBACK)
    if cut:
        return _typed(_below_frames(trace))
    if repeated := re.fullmatch(r"(?P<text>.*)\n(?:\w+\.)*(?P<kind>\w+): (?P=text)", body, re.DOTALL):
        return _one_line(repeated["kind"], repeated["text"])
    return _one_line(type(error).__name__, body)


def _below_frames(trace: str) -> str:
    """`Type: text`, which follows the frames; those are indented. Later lines of the text may be, too."""
    lines = trace.splitlines()
    start = next((number for number, line in enumerate(lines) if line.strip() and not line[0].isspace()), 0)
    return "\n".join(lines[start:])


def _typed(text: str) -> Said:
    """`Type: text` taken apart."""
    if match := re.fullmatch(r"(?:\w+\.)*([A-Za-z_]\w*)(?:: (.*))?", text.strip(), re.DOTALL):
        return _one_line(match[1], match[2] or "")
    return _one_line("RuntimeError", text)


def _one_line(kind: str, message: str) -> Said:
    words = " ".join(message.split())
    if kind == "KeyError":
        words = words.strip("\"'")
    return Said(kind, words if len(words) <= LONGEST else words[: LONGEST - 1] + "…")
