"""What a person asks for, made total: what is left out is taken from the app that runs, or from the defaults.

Law: the AppSpec that results says everything; nothing in it depends on what runs later.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from bioengine_runtime.contract.app import HYPHA_TOKEN, AppSpec, fingerprint
from bioengine_runtime.contract.base import ENTIRE
from bioengine_runtime.contract.manifest import AuthorizedUsers
from bioengine_runtime.contract.status import AppState
from bioengine_runtime.door import Invalid, in_words

SECRET_PREFIX = "_"
"""A variable `_NAME` reaches the app as the secret NAME."""

_COLOURS = ("amber", "azure", "coral", "crimson", "indigo", "ivory", "jade", "lilac", "olive", "pearl", "ruby", "teal")
_ANIMALS = ("badger", "crane", "dolphin", "falcon", "gecko", "heron", "ibis", "lynx", "marten", "otter", "seal", "vole")


@dataclass(frozen=True, slots=True)
class Resolved:
    """A total spec, with the values of the secrets that were given now. Inherited ones are known by fingerprint."""

    spec: AppSpec
    secrets: Mapping[str, Mapping[str, str]] = field(repr=False)
    fingerprints: Mapping[str, str]


def resolve(
    wish: Mapping[str, Any],
    *,
    app_id: str,
    artifact_id: str,
    version: str,
    default_users: AuthorizedUsers,
    running: AppState | None,
    key: bytes,
) -> Resolved:
    """The wish over what runs over the defaults. Raises Invalid naming the field."""
    defaults: dict[str, Any] = {"authorized_users": default_users}
    before = running.spec.model_dump(mode="json") if running and running.spec else defaults
    env, secrets = split_secrets(wish.get("application_env_vars") or {})
    if token := wish.get("hypha_token"):
        secrets.setdefault(ENTIRE, {})[HYPHA_TOKEN] = token
    given = {
        "kwargs": wish.get("application_kwargs"),
        "env": env if "application_env_vars" in wish else None,
        "disable_gpu": wish.get("disable_gpu"),
        "max_ongoing_requests": wish.get("max_ongoing_requests"),
        "authorized_users": wish.get("authorized_users"),
    }
    prints = dict(running.secret_fingerprints) if running else {}
    names = {place: set(held) for place, held in before.get("secrets", {}).items()}
    for place, values in secrets.items():
        names.setdefault(place, set()).update(values)
        prints |= {f"{place}/{name}": fingerprint(key, value) for name, value in values.items()}
    document = {
        **before,
        **{name: value for name, value in given.items() if value is not None},
        "app_id": app_id,
        "artifact_id": artifact_id,
        "version": version,
        "secrets": {place: sorted(held) for place, held in names.items()},
    }
    try:
        return Resolved(AppSpec.model_validate(document), secrets, prints)
    except ValidationError as error:
        raise Invalid(in_words(error)) from None


def split_secrets(
    variables: Mapping[str, Mapping[str, str]],
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Plain variables, and those that are secrets by their name."""
    plain: dict[str, dict[str, str]] = {}
    secret: dict[str, dict[str, str]] = {}
    for place, values in variables.items():
        for name, value in values.items():
            if name.startswith(SECRET_PREFIX) and len(name) > 1:
                secret.setdefault(place, {})[name.removeprefix(SECRET_PREFIX)] = value
            elif name == HYPHA_TOKEN:
                secret.setdefault(place, {})[name] = value
            else:
                plain.setdefault(place, {})[name] = value
    return plain, secret


def readable_id(taken: Collection[str]) -> str:
    """An id for an app that was given none, such as `teal-otter-3f9a`."""
    while True:
        app_id = f"{random.choice(_COLOURS)}-{random.choice(_ANIMALS)}-{random.getrandbits(16):04x}"
        if app_id not in taken:
            return app_id
