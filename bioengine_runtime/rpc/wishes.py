"""What a person asks for, made total: what is left out is taken from the app that runs, or from the defaults.

Law: the AppSpec that results says everything; nothing in it depends on what runs later.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bioengine_runtime.contract.app import HYPHA_TOKEN, AppSpec, Autoscaling, fingerprint
from bioengine_runtime.contract.base import ENTIRE
from bioengine_runtime.contract.manifest import AuthorizedUsers
from bioengine_runtime.contract.status import AppState
from bioengine_runtime.rpc.door import Invalid, in_words

SECRET_PREFIX = "_"
"""A variable `_NAME` reaches the app as the secret NAME."""
HIDDEN = "*****"
"""What status shows for a secret; sent back, it leaves the secret as it is."""
NO_TOKEN = ""
"""A `hypha_token` that takes the app's token away."""
TAKEN_OVER = {
    "application_kwargs": "kwargs",
    "disable_gpu": "disable_gpu",
    "max_ongoing_requests": "max_ongoing_requests",
    "max_queued_requests": "max_queued_requests",
    "auto_redeploy": "auto_redeploy",
    "debug": "debug",
    "ice_servers": "ice_servers",
    "authorized_users": "authorized_users",
}
"""Parameter of `deploy_app` → field of AppSpec that it sets as it is."""

_COLOURS = ("amber", "azure", "coral", "crimson", "indigo", "ivory", "jade", "lilac", "olive", "pearl", "ruby", "teal")
_ANIMALS = ("badger", "crane", "dolphin", "falcon", "gecko", "heron", "ibis", "lynx", "marten", "otter", "seal", "vole")


class Scaling(BaseModel):
    """How many replicas one class has: a number, or the bounds between which Ray Serve decides."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    num_replicas: int | None = Field(default=None, ge=1)
    autoscaling_config: Autoscaling | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Scaling:
        if (self.num_replicas is None) == (self.autoscaling_config is None):
            raise ValueError("give num_replicas or autoscaling_config, and not both")
        return self


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
    manifest_users: AuthorizedUsers | None,
    running: AppState | None,
    key: bytes,
) -> Resolved:
    """The wish over what runs over the defaults. Raises Invalid naming the field.

    `manifest_users`: whom the manifest lets call it, when that is for the manifest to say; None keeps whom it was.
    """
    before: dict[str, Any] = running.spec.model_dump(mode="json") if running and running.spec else {}
    if manifest_users is not None:
        before["authorized_users"] = manifest_users
    held = {place: set(names) for place, names in before.get("secrets", {}).items()}
    env, secrets = split_secrets(wish.get("application_env_vars") or {}, held)
    if token := wish.get("hypha_token"):
        secrets.setdefault(ENTIRE, {})[HYPHA_TOKEN] = token
    names = secret_names(wish, held, env, secrets)
    prints = dict(running.secret_fingerprints) if running else {}
    prints |= {f"{place}/{name}": fingerprint(key, value) for place, name, value in _each(secrets)}
    given = {field: wish[name] for name, field in TAKEN_OVER.items() if name in wish}
    if "application_env_vars" in wish:
        given["env"] = env
    document = {
        **before,
        **given,
        **scaled(wish.get("scaling") or {}, before),
        "app_id": app_id,
        "artifact_id": artifact_id,
        "version": version,
        "secrets": {place: sorted(all_of_it) for place, all_of_it in names.items()},
    }
    try:
        spec = AppSpec.model_validate(document)
        spec.digest()
    except ValidationError as error:
        raise Invalid(in_words(error)) from None
    except (TypeError, ValueError):
        raise Invalid(
            "application_kwargs: only text, numbers, true, false, null, and lists and objects of them"
        ) from None
    wanted = {f"{place}/{name}" for place, all_of_it in spec.secrets.items() for name in all_of_it}
    return Resolved(spec, secrets, {name: print_ for name, print_ in prints.items() if name in wanted})


def scaled(wish: Mapping[str, Scaling], before: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`replicas` and `autoscaling` of the spec: what is said of a class replaces what held for it, either way."""
    replicas = {place: number for place, number in before.get("replicas", {}).items() if place not in wish}
    bounds = {place: kept for place, kept in before.get("autoscaling", {}).items() if place not in wish}
    for place, scaling in wish.items():
        if scaling.autoscaling_config is None:
            replicas[place] = scaling.num_replicas
        else:
            bounds[place] = scaling.autoscaling_config.model_dump(mode="json")
    return {"replicas": replicas, "autoscaling": bounds}


def secret_names(
    wish: Mapping[str, Any],
    held: Mapping[str, Collection[str]],
    env: Mapping[str, Mapping[str, str]],
    given: Mapping[str, Mapping[str, str]],
) -> dict[str, set[str]]:
    """Names by class: those given now and those held, but for what is a plain variable now or was taken away.

    Empty variables take every secret away but the token, an empty token takes the token.
    """
    names = {place: set(kept) - env.get(place, {}).keys() for place, kept in held.items()}
    if wish.get("application_env_vars") == {}:
        names = {ENTIRE: names.get(ENTIRE, set()) & {HYPHA_TOKEN}}
    if wish.get("hypha_token") == NO_TOKEN:
        names[ENTIRE] = names.get(ENTIRE, set()) - {HYPHA_TOKEN}
    for place, values in given.items():
        names.setdefault(place, set()).update(values)
    return names


def split_secrets(
    variables: Mapping[str, Mapping[str, str]], known: Mapping[str, Collection[str]]
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Plain variables, and those that are secrets by their name. What status shows for a secret leaves that as it is.

    Raises Invalid when there is none: to the app it would be a value like any other."""
    plain: dict[str, dict[str, str]] = {}
    secret: dict[str, dict[str, str]] = {}
    for place, values in variables.items():
        for name, value in values.items():
            is_secret = name == HYPHA_TOKEN or (name.startswith(SECRET_PREFIX) and len(name) > 1)
            plain_name = name.removeprefix(SECRET_PREFIX) if is_secret else name
            if value == HIDDEN:
                if plain_name in known.get(place, ()):
                    continue
                raise Invalid(
                    f"application_env_vars.{place}.{name}: {HIDDEN} is how status hides a secret, and the app has none"
                    " of this name now; give its value"
                )
            if is_secret:
                secret.setdefault(place, {})[plain_name] = value
            else:
                plain.setdefault(place, {})[name] = value
    return plain, secret


def _each(table: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str, str]]:
    return ((place, name, value) for place, values in table.items() for name, value in values.items())


def readable_id(taken: Collection[str]) -> str:
    """An id for an app that was given none, such as `teal-otter-3f9a`."""
    while True:
        app_id = f"{random.choice(_COLOURS)}-{random.choice(_ANIMALS)}-{random.getrandbits(16):04x}"
        if app_id not in taken:
            return app_id
