"""Secrets of one app between the call that brings them and the replica that needs them: sealed per deployment.

A secret that the spec names and the call does not bring is inherited from what runs, so an update by hand keeps them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from bioengine_runtime.apps.builder import Blueprint
from bioengine_runtime.apps.errors import BadApp
from bioengine_runtime.apps.surroundings import place
from bioengine_runtime.claims import claims_of
from bioengine_runtime.contract.app import HYPHA_TOKEN, AppSpec
from bioengine_runtime.contract.base import ENTIRE
from bioengine_runtime.sealing import read_key, seal, unseal

Secrets = Mapping[str, Mapping[str, str]]


def complete(
    spec: AppSpec, given: Secrets, kept: Blueprint | None, classes: Sequence[str], key_file: str
) -> dict[str, dict[str, str]]:
    """class → NAME → value, for exactly the names in the spec. Raises BadApp when a value is nowhere to be found."""
    complete: dict[str, dict[str, str]] = {}
    for name in classes:
        needs = {*spec.secrets.get(ENTIRE, ()), *spec.secrets.get(name, ())}
        values = {**given.get(ENTIRE, {}), **given.get(name, {})}
        if missing := needs - values.keys():
            values = {**_inherited(spec.app_id, name, kept, key_file), **values}
            if missing := sorted(needs - values.keys()):
                raise BadApp(f"{spec.app_id}: no value for the secret {', '.join(missing)} of {name}")
        complete[name] = {secret: values[secret] for secret in sorted(needs)}
    return complete


def sealed_for(app_id: str, name: str, values: Mapping[str, str], key_file: str) -> str | None:
    """One text for one deployment; None when it has no secrets."""
    if not values:
        return None
    return seal(read_key(key_file), json.dumps(dict(values)).encode(), place(app_id, name))


def first_end(values: Secrets) -> float | None:
    """When the first of the app's own Hypha tokens ends, seconds since the epoch; None when none does.

    A token says so itself, and is not checked: that is for those who take it."""
    tokens = {named[HYPHA_TOKEN] for named in values.values() if HYPHA_TOKEN in named}
    return min((end for token in tokens if (end := claims_of(token).expires_at)), default=None)


def _inherited(app_id: str, name: str, kept: Blueprint | None, key_file: str) -> dict[str, str]:
    sealed = kept.sealed.get(name) if kept else None
    return json.loads(unseal(read_key(key_file), sealed, place(app_id, name))) if sealed else {}
