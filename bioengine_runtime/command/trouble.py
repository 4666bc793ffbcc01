"""What can go wrong, as one sentence and a way out; and what a remote error really says."""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST = 1500


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
    """What hypha-rpc's one error type carries: the text, then the other side's traceback (or just `Type: text`)."""
    text = str(error).strip()
    body = text.removeprefix("RemoteError:").strip()
    message, cut, trace = body.partition("\nTraceback (most recent call last)")
    if cut:
        first = message.strip().split("\n")[0]
        ending = f": {re.escape(first)}.*" if first else ":?"
        typed = re.findall(rf"^(?:\w+\.)*(\w+){ending}$", trace, re.MULTILINE)
        return _one_line(typed[-1] if typed else "RuntimeError", message)
    if repeated := re.fullmatch(r"(?P<text>.*)\n(?:\w+\.)*(?P<kind>\w+): (?P=text)", body, re.DOTALL):
        return _one_line(repeated["kind"], repeated["text"])
    *_, last = [line.strip() for line in body.splitlines() if line.strip()] or [""]
    if typed := re.fullmatch(r"(?:\w+\.)*(\w*(?:Error|Exception|Exit|Interrupt)): (.*)", last):
        return _one_line(typed[1], typed[2])
    return _one_line(type(error).__name__, last)


def _one_line(kind: str, message: str) -> Said:
    words = " ".join(message.split())
    if kind == "KeyError":
        words = words.strip("\"'")
    return Said(kind, words if len(words) <= LONGEST else words[: LONGEST - 1] + "…")
