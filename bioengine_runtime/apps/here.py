"""The Python packages of the worker's own environment: what is there, and what a replica cannot do without."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

REPLICA_RUNS = ("ray[serve]", "fastapi", "hypha-rpc", "pydantic", "anyio", "cryptography")
"""What every replica imports beside the author's code. What those ask for in turn counts; what is further away does
not: much of it (tracing, gRPC reflection) is never imported there, and would refuse apps for nothing."""


@dataclass(frozen=True, slots=True)
class Need:
    """`by` needs a package in one of the versions `versions`."""

    by: str
    versions: SpecifierSet


@functools.cache
def versions() -> Mapping[str, str]:
    """Canonical name → version."""
    return {name: one.version for name, one in sorted(_distributions().items())}


@functools.cache
def needs() -> Mapping[str, tuple[Need, ...]]:
    """Canonical name → what the packages that run in every replica ask of it."""
    found: dict[str, list[Need]] = {}
    for root in map(Requirement, REPLICA_RUNS):
        name = canonicalize_name(root.name)
        for asked in (asked for extra in ("", *root.extras) for asked in _asked_by(name, extra)):
            if asked.specifier:
                need = Need(f"{name} {versions()[name]}", asked.specifier)
                found.setdefault(canonicalize_name(asked.name), []).append(need)
    return {name: tuple(dict.fromkeys(asked)) for name, asked in found.items()}


def is_here(wanted: Requirement) -> bool:
    """Whether the worker's environment meets the requirement as it is, extras and all."""
    name = canonicalize_name(wanted.name)
    version = versions().get(name)
    if version is None or wanted.url or not wanted.specifier.contains(version, prereleases=True):
        return False
    return all(is_here(asked) for extra in wanted.extras for asked in _asked_by(name, extra))


def _asked_by(name: str, extra: str) -> Iterator[Requirement]:
    """What a package asks for, for itself (extra "") or for one of its extras; on this machine, and if it is here."""
    one = _distributions().get(name)
    for line in (one.requires or ()) if one else ():
        asked = Requirement(line)
        for_all = asked.marker is None or asked.marker.evaluate({"extra": ""})
        if for_all if not extra else not for_all and asked.marker and asked.marker.evaluate({"extra": extra}):
            yield asked


@functools.cache
def _distributions() -> dict[str, metadata.Distribution]:
    found: dict[str, metadata.Distribution] = {}
    for one in metadata.distributions(path=_base_path()):
        if name := one.metadata["Name"]:
            found.setdefault(canonicalize_name(name), one)
    return found


def _base_path() -> list[str]:
    """sys.path without what an app put before it."""
    ours = set(os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return [path for path in sys.path if path not in ours]
