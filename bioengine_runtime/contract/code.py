"""What an app's code says of itself, read from its syntax tree: nothing of it is ever imported or run here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ClassFacts:
    """One deployment class. Of the decorator's options those that are literals (or module constants) are known;
    `unknown` names those that are computed, which only running the code would tell."""

    name: str
    module: str
    line: int
    options: Mapping[str, Any]
    unknown: tuple[str, ...]
    parameters: tuple[str, ...]
    required: tuple[str, ...]
    open_parameters: bool
    methods: tuple[str, ...]
