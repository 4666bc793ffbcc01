"""Checks of this machine: git, versions, the home and what lies in it, the tools of SLURM. All of them only look."""

from __future__ import annotations

import platform
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from bioengine_runtime.contract.cluster import ClusterSpec, Slurm
from reconciler.cli.checkup import Check, fail, not_needed, ok, warn
from reconciler.errors import ReconcilerError
from reconciler.planning.shown import count, listed, plain, size

DISTRIBUTION = "bioengine-gitops"
OLDEST_GIT = (2, 30)
SAFE_SETTINGS = {
    "core.hookspath": "/dev/null",
    "core.fsmonitor": "false",
    "http.followredirects": "false",
    "transfer.fsckobjects": "true",
    "submodule.recurse": "false",
}
"""What our git must be started with; the whole list stands in adapters/git/process.py."""
LITTLE_SPACE, TOO_LITTLE_SPACE = 5 * 10**9, 5 * 10**8
SLURM_TOOLS = ("sbatch", "squeue", "sinfo", "scancel")


def git() -> Iterator[Check]:
    """Its version, and that the settings which lock it down are in force."""
    from reconciler.adapters.git.process import Git, GitFailed

    name = "git"
    try:
        said = Git()("version", timeout=10).decode(errors="replace").strip()
        listed_settings = Git()("config", "--list", timeout=10).decode(errors="replace")
    except (GitFailed, ReconcilerError) as error:
        yield fail(name, plain(str(error), 200), "Install git 2.30 or newer.")
        return
    found = re.search(r"(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_GIT:
        yield fail(name, plain(said, 80), "Install git 2.30 or newer: older ones do not know all that keeps us safe.")
        return
    in_force = {key: value for key, _, value in (line.partition("=") for line in listed_settings.splitlines())}
    loose = [key for key, value in SAFE_SETTINGS.items() if in_force.get(key) != value]
    if loose:
        yield fail(name, f"{said}; not in force: {listed(loose)}", "Something changes git's settings: is it a wrapper?")
        return
    yield ok(name, f"{said}, without hooks, helpers and redirects")


def versions() -> Iterator[Check]:
    """Of Python, of ourselves, and of what must be exact."""
    here = platform.python_version()
    wanted = sys.version_info[:2] == (3, 11)
    fix = "Run reconcile with Python 3.11: uv tool install --python 3.11 …"
    yield ok("python", here) if wanted else fail("python", here, fix)
    yield ok("reconcile", f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}")
    locked = locked_version("hypha-rpc")
    installed = metadata.version("hypha-rpc")
    if locked == installed:
        yield ok("hypha-rpc", installed)
    else:
        yield fail("hypha-rpc", f"{installed}, and {locked} is tested", f"Install hypha-rpc=={locked}.")


def locked_version(package: str) -> str:
    """The one version of a package that we are made for; "" when any will do."""
    for line in metadata.requires(DISTRIBUTION) or ():
        wanted = Requirement(line)
        if wanted.name == package:
            return next((one.version for one in wanted.specifier if one.operator == "=="), "")
    return ""


def home(folder: Path) -> Iterator[Check]:
    """Whether others of this machine can read what is ours alone, and how much room there is."""
    secrets = folder / "secrets"
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        yield fail("home", f"{there} is no folder", "Choose another place with --home.")
    elif not folder.exists():
        yield ok("home", f"{folder} is not there yet; it is made when it is needed")
    elif open_files := [path for path in _private(secrets) if _mode(path) & 0o077]:
        shown = listed([f"{path.name} {_mode(path):04o}" for path in open_files])
        yield fail("home", f"others may read {shown} in {secrets}", f"chmod -R go= {secrets}")
    else:
        mode = _mode(folder)
        if mode & 0o022:
            yield fail("home", f"others may write to {folder} ({mode:04o})", f"chmod go-w {folder}")
        else:
            yield ok("home", f"{folder} ({mode:04o}), secrets for us only")
    free = shutil.disk_usage(there).free
    saw, fix = f"{size(free)} free in {there}", "Make room there, or choose another place with --home."
    if free < TOO_LITTLE_SPACE:
        yield fail("disk", saw, fix)
    else:
        yield warn("disk", saw, fix) if free < LITTLE_SPACE else ok("disk", saw)


def webhook_secret(file: Path | None) -> Check:
    """Whether the receiver would start with it, and only we can read it."""
    name = "webhook secret"
    if file is None:
        return not_needed(name, "no --webhook-secret-file was given")
    from reconciler.triggers.signature import read_secrets

    try:
        secrets = read_secrets(file)
    except ReconcilerError as error:
        return fail(name, plain(str(error), 200), error.hint)
    mode = _mode(file)
    if mode & 0o077:
        return fail(name, f"others may read {file} ({mode:04o})", f"chmod 600 {file}, and change the secret")
    return ok(name, f"{count(len(secrets), 'secret')} in {file} ({mode:04o})")


def slurm(cluster: ClusterSpec | None) -> Check:
    """The commands that the worker drives SLURM with."""
    name = "slurm"
    if cluster is None:
        return not_needed(name, "cluster.yaml is not read, so nobody knows")
    if not isinstance(cluster.compute, Slurm):
        return not_needed(name, f"compute.mode is {cluster.compute.mode}")
    if missing := [tool for tool in SLURM_TOOLS if shutil.which(tool) is None]:
        fix = "Load SLURM's module where the worker runs (module load slurm), or run it on a login node."
        return fail(name, f"not found: {listed(missing)}", fix)
    try:
        asked = subprocess.run(["sinfo", "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return fail(name, f"sinfo does not answer ({type(error).__name__})", "Is the SLURM controller up?")
    if asked.returncode:
        return fail(name, plain(asked.stderr.strip() or "sinfo failed", 200), "Is the SLURM controller up?")
    return ok(name, plain(asked.stdout.strip(), 80))


def _private(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield folder
        yield from (path for path in folder.iterdir() if path.is_file())


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
