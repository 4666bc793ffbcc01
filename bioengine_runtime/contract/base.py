"""Vocabulary of the contract: frozen models, ids, and secrets that can be named but never held."""

from __future__ import annotations

import base64
import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints, field_validator

APP_ID_PATTERN = r"^[a-z][a-z0-9-]{0,62}$"
ENTIRE = "*"
"""The key that stands for every deployment class (kwargs, env) or every method (authorized_users)."""

OF_HYPHA = frozenset({"built-in", "default"})
"""Services that every client of Hypha has; no app can have such an id."""

AppId = Annotated[str, StringConstraints(pattern=APP_ID_PATTERN)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

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

    def described(self) -> str:
        """Where the value comes from, fit to be shown."""
        return f"env:{self.env}"


class SecretFromFile(Closed):
    """A secret read from a file beside the reconciler when it applies; one trailing newline is dropped."""

    file: str = Field(min_length=1, description="Path of the file, on the reconciler's machine.")

    def described(self) -> str:
        return f"file:{self.file}"


class SecretFromAge(Closed):
    """A secret whose value stands in git, encrypted with age; the reconciler opens it with a key kept elsewhere."""

    age: str = Field(
        min_length=1,
        repr=False,
        description="What `reconcile secrets encrypt` printed: armored, or the binary form as base64.",
    )
    _where: str = PrivateAttr(default="")

    @field_validator("age")
    @classmethod
    def _is_encrypted(cls, text: str) -> str:
        if not text.lstrip().startswith(_AGE_ARMOR) and not _in_base64(text).startswith(_AGE_HEADER):
            raise ValueError("this is not encrypted with age; use what `reconcile secrets encrypt` prints")
        return text

    def at(self, where: str) -> SecretFromAge:
        """The same, knowing at which file:line it stands."""
        placed = self.model_copy()
        placed._where = where
        return placed

    def described(self) -> str:
        return f"age:{self._where}" if self._where else "age"


SecretRef = SecretFromEnv | SecretFromFile | SecretFromAge
_AGE_ARMOR, _AGE_HEADER = "-----BEGIN AGE ENCRYPTED FILE-----", b"age-encryption.org/"


def _in_base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        return b""


def is_app_id(text: str) -> bool:
    return re.fullmatch(APP_ID_PATTERN[1:-1], text) is not None
