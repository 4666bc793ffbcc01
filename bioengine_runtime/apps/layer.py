"""An app's own Python packages as a folder laid over the worker's environment, built once per node.

Ray's own way (a copy of the whole virtual environment per app, 0.5 GB here, and pip's error wrapped in a traceback) is
not used. Only what the worker's environment lacks is installed, into a folder named by its content, and the folder goes
first on PYTHONPATH of the app's processes. A node that joins later builds it when its first replica starts.

Law: the folder exists under its name only when it is complete.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from bioengine_runtime.apps.errors import PrepareFailed
from bioengine_runtime.apps.here import is_here, needs, versions
from bioengine_runtime.apps.merging import conflicts, constraints, merged
from bioengine_runtime.apps.package import in_use, settle

BUILD_TIMEOUT_S = 1800.0


def layer_path(requirements: Sequence[str], layers: str | Path) -> str | None:
    """Where the folder of these requirements is, on every node; None when the worker's environment has them all.

    Raises PrepareFailed for what cannot go together with the worker's own packages."""
    wanted = merged(requirements)
    if problems := conflicts(wanted, versions(), needs()):
        raise PrepareFailed("; ".join(problems))
    if all(map(_is_here, wanted)):
        return None
    name = hashlib.sha256(json.dumps([_base(), sorted(wanted)]).encode()).hexdigest()[:32]
    return str(Path(layers) / name)


def build_layer(requirements: Sequence[str], path: str) -> bool:
    """Make the folder if it is not there; whether it had to be made. Raises PrepareFailed with the resolver's words."""
    target = Path(path)
    if in_use(target):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f".{target.name}.lock")):
        if target.is_dir():
            return False
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as draft:
            _install(merged(requirements), Path(draft))
            settle(Path(draft) / "site", target)
    return True


def packages_in(path: str) -> set[str]:
    """Top-level import names that the folder provides."""
    entries = (entry.name for entry in Path(path).iterdir())
    skipped = (".dist-info", ".data", ".libs", ".pth")
    return {name.split(".")[0] for name in entries if not name.startswith(".") and not name.endswith(skipped)}


def _install(requirements: Sequence[str], draft: Path) -> None:
    """Resolve with a leaning to what is here, then install what differs. Two steps, for pip's --target takes all."""
    options = [line for line in requirements if line.startswith("-")]
    here = versions()
    wanted, lock, site = draft / "requirements.txt", draft / "lock.txt", draft / "site"
    wanted.write_text("\n".join(requirements))
    lock.write_text("\n".join(f"{name}=={version}" for name, version in here.items()))
    fixed = draft / "fixed.txt"
    fixed.write_text("\n".join(constraints(here, needs())))
    _uv("compile", "--no-header", "--no-annotate", "--no-strip-extras", "-c", fixed, "-o", lock, wanted)
    missing = [line for line in lock.read_text().splitlines() if line.strip() and not _is_same(line, here)]
    (draft / "missing.txt").write_text("\n".join([*options, *missing]))
    site.mkdir()
    if missing:
        _uv("install", "--no-deps", "--target", site, "-r", draft / "missing.txt")


def _uv(verb: str, *arguments: str | Path) -> None:
    command = [_uv_path(), "pip", verb, "--quiet", "--no-progress", "--color=never", "--python", sys.executable]
    process = subprocess.Popen(
        [*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=BUILD_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise PrepareFailed(f"installing took longer than {BUILD_TIMEOUT_S:g} s") from error
    if process.returncode:
        raise PrepareFailed(_plain(output))


def _plain(output: str) -> str:
    """The resolver's message without the names of our scratch files."""
    text = " ".join(line.strip() for line in output.splitlines())
    text = text.removeprefix("error: ").replace(" cause: ", ": ").replace("dependencies cause:", "dependencies:")
    return " ".join(word for word in text.split() if tempfile.gettempdir() not in word)


def _uv_path() -> str:
    try:
        from uv import find_uv_bin  # pyright: ignore[reportMissingImports]
    except ImportError:
        found = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    else:
        found = find_uv_bin()
    if not found:
        raise PrepareFailed("uv is not installed on this node; it installs the packages that apps ask for")
    return str(found)


@functools.cache
def _base() -> str:
    """Name of the worker's environment; its layers fit no other."""
    facts = [platform.python_version(), platform.machine(), sorted(versions().items())]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _is_here(line: str) -> bool:
    try:
        return is_here(Requirement(line))
    except InvalidRequirement:
        return False


def _is_same(line: str, here: Mapping[str, str]) -> bool:
    try:
        locked = Requirement(line)
    except InvalidRequirement:
        return False
    version = here.get(canonicalize_name(locked.name))
    return bool(version) and str(locked.specifier) == f"=={version}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
