"""An app's requirements: one line per package, and held against what the worker's own environment needs. Pure.

An app's packages are laid over the worker's and share the process with Ray Serve and hypha-rpc. What cannot go together
is said here, in words and before anything is installed; what only a search would find out is left to the resolver.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from bioengine_runtime.apps.errors import BadApp
from bioengine_runtime.apps.here import Need

FIXED = ("ray", "hypha-rpc", "pydantic", "pydantic-core", "cloudpickle")
"""What the worker and a replica exchange objects with must be the same on both sides."""

_COMMENT = re.compile(r"(^|\s)#.*$")


def merged(lines: Sequence[str]) -> list[str]:
    """One line per package in the order of first mention: names made canonical, versions and extras joined, markers
    judged. Options and bare addresses stay as they are. Raises BadApp for what is no requirement or contradicts itself.

    >>> merged(["NumPy>=1.26", "numpy<3", "pywin32; sys_platform == 'win32'"])
    ['numpy<3,>=1.26']
    """
    packages: dict[str, list[Requirement]] = {}
    for line in filter(None, (_COMMENT.sub("", line).strip() for line in lines)):
        wanted = _read(line)
        if wanted is None:
            packages.setdefault(line, [])
        elif wanted.marker is None or wanted.marker.evaluate():
            packages.setdefault(canonicalize_name(wanted.name), []).append(wanted)
    return [_joined(name, wanted) if wanted else name for name, wanted in packages.items()]


def conflicts(lines: Sequence[str], here: Mapping[str, str], needs: Mapping[str, Sequence[Need]]) -> list[str]:
    """What cannot go together with the worker's own packages, as sentences. `lines` are merged."""
    asked = [wanted for line in lines if (wanted := _read(line)) is not None]
    return [sentence for wanted in asked for sentence in _against(wanted, here, needs)]


def constraints(here: Mapping[str, str], needs: Mapping[str, Sequence[Need]]) -> list[str]:
    """The same for a resolver, which also sees what the app's packages ask for in turn."""
    fixed = [f"{name}=={here[name]}" for name in FIXED if name in here]
    kept = [
        f"{name}{need.versions}" for name, of in needs.items() if name not in FIXED for need in _met(name, of, here)
    ]
    return [*fixed, *sorted(set(kept))]


def _read(line: str) -> Requirement | None:
    """None for an option of the installer and for a bare address, which name no package."""
    if line.startswith("-"):
        return None
    try:
        return Requirement(line)
    except InvalidRequirement as error:
        if "://" in line:
            return None
        why = str(error).splitlines()[0]
        raise BadApp(f'"{line}" is not a requirement ({why}); write name==version, like numpy==2.3.4') from None


def _joined(name: str, wanted: Sequence[Requirement]) -> str:
    versions = SpecifierSet()
    for one in wanted:
        versions &= one.specifier
    addresses = {one.url for one in wanted if one.url}
    if len(addresses) > 1 or _pins_outside(versions, versions) or (addresses and versions):
        said = " and ".join(dict.fromkeys(str(one) for one in wanted))
        raise BadApp(f"{said} exclude each other; keep one of them")
    extras = sorted({extra for one in wanted for extra in one.extras})
    bracket = f"[{','.join(extras)}]" if extras else ""
    return f"{name}{bracket} @ {addresses.pop()}" if addresses else f"{name}{bracket}{versions}"


def _against(wanted: Requirement, here: Mapping[str, str], needs: Mapping[str, Sequence[Need]]) -> Iterator[str]:
    name = canonicalize_name(wanted.name)
    version = here.get(name)
    if version and name in FIXED:
        if wanted.url or not wanted.specifier.contains(version, prereleases=True):
            yield (
                f"{wanted} against {name} {version} of the worker, through which the two exchange objects; an app "
                f"cannot bring its own: ask for {name} without a version, or for a range with {version} in it"
            )
        return
    for need in _met(name, needs.get(name, ()), here):
        if _pins_outside(wanted.specifier, need.versions):
            yield (
                f"{wanted} against {name}{need.versions}, which {need.by} of the worker needs in every replica; "
                f"ask for a version that fits both (the worker has {version})"
            )


def _met(name: str, needs: Sequence[Need], here: Mapping[str, str]) -> Iterator[Need]:
    """The needs that the worker's environment meets itself; what it does without, an app may do without too."""
    version = here.get(name)
    return (need for need in needs if version and need.versions.contains(version, prereleases=True))


def _pins_outside(versions: SpecifierSet, allowed: SpecifierSet) -> bool:
    """Whether an exact version is asked for that is not allowed."""
    pins = [one.version for one in versions if one.operator in ("==", "===") and not one.version.endswith(".*")]
    return any(not allowed.contains(pin, prereleases=True) for pin in pins)
