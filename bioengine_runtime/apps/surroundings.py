"""What an app finds around it in its replica: its packages, its code, its folder, its variables, its secrets."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from bioengine_runtime.apps import store
from bioengine_runtime.apps.layer import build_layer, packages_in
from bioengine_runtime.apps.loading import offer_bioengine
from bioengine_runtime.apps.package import in_use, unpack
from bioengine_runtime.sealing import read_key, unseal

NOT_THE_APPS = ("RAY_AUTH_", "HYPHA_", "BIOENGINE_TOKEN", "UV_", "PIP_")
"""Beginnings of variables that a replica inherits from whoever started Ray: how *they* reach Ray, Hypha and the index
that its packages come from, whose address may hold a password."""


def place(app_id: str, deployment: str) -> bytes:
    """What the secrets of one deployment are sealed for."""
    return f"{app_id}/{deployment}".encode()


def lay_packages(requirements: Sequence[str], layer: str) -> None:
    """Make sure of the app's packages; they were prepared, unless this node joined since."""
    built = build_layer(requirements, layer)
    if layer not in sys.path:
        sys.path.insert(0, layer)
    if built:
        importlib.invalidate_caches()
        early = sorted(packages_in(layer) & {name.split(".")[0] for name in sys.modules})
        if early:  # imported already, from the worker's environment; only a new process finds the app's own
            raise RuntimeError(f"{', '.join(early)} was installed on this node just now; starting again with it")


def settle_in(home: str, environment: Mapping[str, str], given: Collection[str]) -> None:
    """Folder and variables. `given` names those that the app's author or its instance set, which stay."""
    for name in [name for name in os.environ if name.startswith(NOT_THE_APPS) and name not in given]:
        del os.environ[name]
    temporary = Path(home) / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    os.environ.update(environment)
    os.environ.update(HOME=home, TMPDIR=str(temporary), TEMP=str(temporary), TMP=str(temporary))
    os.chdir(home)
    offer_bioengine()


def open_secrets(seal_key_file: str, sealed: str, app_id: str, deployment: str) -> None:
    """Into this process's environment, and nowhere else."""
    os.environ.update(json.loads(unseal(read_key(seal_key_file), sealed, place(app_id, deployment))))


def fetch_code(package: str, cache: str) -> str:
    """The folder of the app's code on this node."""
    target = Path(cache) / package
    if not in_use(target):
        content = store.get(store.CODE, package)
        if content is None:
            raise RuntimeError(f"the app's code {package} is gone from the cluster; deploy the app again")
        target = unpack(content, package, cache)
    os.environ["BIOENGINE_APP_DIR"] = str(target)
    return str(target)
