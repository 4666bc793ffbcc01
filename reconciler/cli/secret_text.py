"""cluster.yaml as a text in which one secret is set, and every comment and line besides stays as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, cast

from pydantic import ValidationError
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.scalarstring import LiteralScalarString

from bioengine_runtime.contract.base import SecretFromAge
from reconciler.cli.yaml_kept import KeptYaml
from reconciler.errors import ReconcilerError, Remedy
from reconciler.planning.explain import did_you_mean
from reconciler.planning.overlay import EXTENDS, is_secret
from reconciler.planning.yaml_text import Document, read_yaml

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""Of an environment variable."""


class NotThere(ReconcilerError):
    """The file does not have, or cannot take, the secret that is named."""

    remedy = Remedy.OPERATOR


@dataclass(frozen=True, slots=True)
class Spot:
    """One place of a secret: `APP.CLASS.NAME`, `APP.hypha_token` or `hypha.token`."""

    path: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(part for part in self.path if part not in ("apps", "env"))


def may_hold_secrets(file: Path) -> bool:
    """Whether an encrypted text stands in it, or we may not look; other files are not ours to judge."""
    try:
        return file.is_file() and b"BEGIN AGE ENCRYPTED FILE" in file.read_bytes()
    except OSError:
        return True


def spot_of(target: str) -> Spot:
    """Raises NotThere for what names no such place."""
    match target.split("."):
        case ["hypha", "token"]:
            return Spot(("hypha", "token"))
        case [app_id, "hypha_token"]:
            return Spot(("apps", app_id, "hypha_token"))
        case [app_id, class_name, name] if NAME.fullmatch(name):
            return Spot(("apps", app_id, "env", class_name, name))
        case _:
            hint = "Write APP.CLASS.NAME (CLASS may be *), APP.hypha_token, or hypha.token."
            raise NotThere(f'"{target}" names no place of a secret', hint=hint)


@dataclass(frozen=True, slots=True)
class SecretText:
    """One YAML file of a repository."""

    file: Path
    text: str

    @classmethod
    def read(cls, file: Path) -> SecretText:
        """Raises NotThere when there is no such file, or it is no clear YAML."""
        try:
            data = file.read_bytes()
        except OSError as error:
            hint = "Name the repository with --repo, and the file with --cluster."
            raise NotThere(f"{file} cannot be read: {error.strerror}", hint=hint) from None
        document = read_yaml(data)
        if document.faults:
            fault = document.faults[0]
            raise NotThere(f"{file}:{fault.line}:{fault.column}: {fault.message}", hint=fault.fix)
        if not isinstance(cast("object", document.value), dict):
            raise NotThere(f"{file} is no mapping", hint="Write `key: value` lines into it.")
        return cls(file, document.text)

    def where(self, spot: Spot) -> str:
        line, column, _ = self._document().place(spot.path, key=True)
        return f"{self.file.name}:{line}:{column}"

    def spots(self) -> list[Spot]:
        """Every encrypted secret of the file."""
        return [Spot(path) for path in _paths(self._document().value, ()) if self._at(path) is not None]

    def ciphertext(self, spot: Spot) -> str:
        """Raises NotThere when what stands there is not an encrypted secret."""
        found = self._at(spot.path)
        if found is None:
            hint = f"Set it with: reconcile secrets encrypt --set {quote(str(spot))}"
            raise NotThere(f"{self.file.name} has no encrypted secret {spot}", hint=hint)
        return found

    def having(self, spot: Spot, armored: str) -> str:
        """The text with this encrypted secret at the spot, whatever stood there. Raises NotThere."""
        self._check(spot)
        kept = KeptYaml(self.text)
        parent = kept.content
        for part in spot.path[:-1]:
            if not isinstance(parent.get(part), dict):
                parent[part] = CommentedMap()
            parent = parent[part]
        parent[spot.path[-1]] = CommentedMap({"age": LiteralScalarString(armored)})
        written = kept.text
        document = read_yaml(written.encode())
        if document.faults or SecretText(self.file, written)._at(spot.path) != armored:
            raise NotThere(f"{self.file.name} cannot take it there without harm", hint="Write it by hand.")
        return written

    def _check(self, spot: Spot) -> None:
        content: dict[str, Any] = self._document().value
        apps: object = content.get("apps")
        named = cast("dict[str, Any]", apps) if isinstance(apps, dict) else {}
        if spot.path[0] == "apps" and spot.path[1] not in named and EXTENDS not in content:
            raise NotThere(f"{self.file.name} has no app {spot.path[1]}", hint=did_you_mean(spot.path[1], named))

    def _document(self) -> Document:
        return read_yaml(self.text.encode())

    def _at(self, path: tuple[str, ...]) -> str | None:
        value: Any = self._document().value
        for part in path:
            value = cast("dict[str, Any]", value).get(part) if isinstance(value, dict) else None
        try:
            return SecretFromAge.model_validate(value).age
        except ValidationError:
            return None


def _paths(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Where a secret reference stands."""
    if is_secret(path):
        yield path
    elif isinstance(value, dict) and len(path) < 5:
        for key, inner in cast("dict[str, Any]", value).items():
            yield from _paths(inner, (*path, key))
