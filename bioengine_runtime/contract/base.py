"""Vocabulary of the contract: frozen models, ids, and secrets that can be named but never held."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

APP_ID_PATTERN = r"^[a-z][a-z0-9-]{0,62}$"
ENTIRE = "*"
"""The key that stands for every deployment class (kwargs, env) or every method (authorized_users)."""

AppId = Annotated[str, StringConstraints(pattern=APP_ID_PATTERN)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Revision40 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]

JsonValue = Any


class Closed(BaseModel):
    """A document we invent: frozen, and a field we do not know is an error (a typo must not be silence)."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Open(BaseModel):
    """A format we inherit: frozen, and fields we do not know are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")


class SecretFromEnv(Closed):
    """A secret read from an environment variable of the reconciler when it applies."""

    env: EnvName = Field(description="Name of the environment variable, in the reconciler's own environment.")


class SecretFromFile(Closed):
    """A secret read from a file beside the reconciler when it applies; one trailing newline is dropped."""

    file: str = Field(min_length=1, description="Path of the file, on the reconciler's machine.")


SecretRef = SecretFromEnv | SecretFromFile


def is_app_id(text: str) -> bool:
    return re.fullmatch(APP_ID_PATTERN[1:-1], text) is not None
