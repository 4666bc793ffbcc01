"""An app folder on disk: its files as they are uploaded, or everything that is wrong with it. Nothing of it is run."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import ValidationError

from bioengine_runtime.contract.base import ENTIRE
from bioengine_runtime.contract.code import ClassFacts, CodeError, read_class, requirements
from bioengine_runtime.contract.composition import deployments
from bioengine_runtime.contract.limits import MAX_FILES, MAX_FOLDER_BYTES
from bioengine_runtime.contract.manifest import AppManifest, EntryPoint
from bioengine_runtime.manifest_text import BadText, read_manifest

MANIFEST = "manifest.yaml"
LEFT_OUT = frozenset({"__pycache__", ".git", ".hg", ".svn", ".jj", ".bzr"})
"""Folders that are no part of an app: what Python compiles, and what version control keeps."""

Item = dict[str, str]


class BadFolder(Exception):
    """The folder is not an app; `problems` are all there are, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class AppFolder:
    """A folder that can be uploaded."""

    manifest: AppManifest
    files: Mapping[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))

    @property
    def version(self) -> str | None:
        """The version the manifest names, if it names one."""
        return self.manifest.version if "version" in self.manifest.model_fields_set else None

    def items(self) -> list[Item]:
        """The files as `upload_app` takes them."""
        return [_item(name, content) for name, content in self.files.items()]


def read_app_folder(folder: Path) -> AppFolder:
    """Everything in the folder, checked. Raises BadFolder."""
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise BadFolder([f"{folder} is a file, not a folder"])
    except FileNotFoundError:
        raise BadFolder([f"{folder} is not there"]) from None
    except OSError as error:
        raise BadFolder([_unread(folder, error)]) from None
    files, problems = _read_files(folder)
    if MANIFEST not in files:
        if any(problem.startswith(f"{MANIFEST} ") for problem in problems):
            raise BadFolder(problems)
        near = [name for name in files if name.lower() in ("manifest.yaml", "manifest.yml", "manifest.json")]
        rename = f"; rename {near[0]} to {MANIFEST}" if near else ""
        raise BadFolder([*problems, f"{folder} has no {MANIFEST}{rename}"])
    manifest, faults = _read_manifest(files[MANIFEST])
    problems += [f"{MANIFEST}: {fault}" for fault in faults]
    if manifest is not None:
        problems += _code_problems(manifest, files)
    if manifest is None or problems:
        raise BadFolder(problems)
    return AppFolder(manifest, files)


# ── Files ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_files(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """Files by their path in the folder, in order. What is beyond a limit is not read."""
    problems: list[str] = []
    sizes = dict(_walk(folder, problems))
    if len(sizes) > MAX_FILES:
        problems.append(f"{folder} has {len(sizes)} files; at most {MAX_FILES} can be uploaded: keep data outside")
    if (total := sum(sizes.values())) > MAX_FOLDER_BYTES:
        largest = max(sizes, key=lambda path: sizes[path])
        problems.append(
            f"{folder} has {_mib(total)} of files (largest: {largest.relative_to(folder)}, {_mib(sizes[largest])}); "
            f"at most {_mib(MAX_FOLDER_BYTES)} can be uploaded: keep weights and data outside, and load them in "
            "async_init"
        )
    if len(sizes) > MAX_FILES or total > MAX_FOLDER_BYTES:
        raise BadFolder(problems)
    files: dict[str, bytes] = {}
    for path in sorted(sizes):
        inside = path.relative_to(folder)
        try:
            files[inside.as_posix()] = path.read_bytes()
        except OSError as error:
            problems.append(_unread(inside, error))
    return files, problems


def _walk(folder: Path, problems: list[str]) -> Iterator[tuple[Path, int]]:
    """Every file and its size in bytes. What cannot be looked at is a problem: left out, the app would lack it."""

    def unread(error: OSError) -> None:
        problems.append(_unread(Path(error.filename).relative_to(folder), error))

    for place, folders, names in os.walk(folder, onerror=unread):
        folders[:] = sorted(set(folders) - LEFT_OUT)
        for name in sorted([*folders, *names]):
            path = Path(place, name)
            inside = path.relative_to(folder).as_posix()
            try:
                found = path.lstat()
            except OSError as error:
                unread(error)
                continue
            if stat.S_ISLNK(found.st_mode):
                problems.append(f"{inside} is a symbolic link; replace it by the file itself")
            elif "\\" in inside or not inside.isprintable():
                problems.append(f"{inside!r} has a character that no path in an app may have; rename it")
            elif stat.S_ISREG(found.st_mode):
                yield path, found.st_size
            elif not stat.S_ISDIR(found.st_mode):
                problems.append(f"{inside} is neither a file nor a folder; remove it")


def _unread(path: Path, error: OSError) -> str:
    return f"{path} cannot be read: {error.strerror}; make it readable for you, or move it out of the folder"


def _item(name: str, content: bytes) -> Item:
    try:
        return {"name": name, "content": content.decode(), "type": "text"}
    except UnicodeDecodeError:
        return {"name": name, "content": base64.b64encode(content).decode(), "type": "base64"}


def _mib(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB"


# ── Manifest ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_manifest(content: bytes) -> tuple[AppManifest | None, list[str]]:
    try:
        document = read_manifest(content)
    except BadText as error:
        return None, [str(error)]
    if not isinstance(document, dict):
        return None, [f"expected fields like `id: my-app`, got {'nothing' if document is None else 'something else'}"]
    try:
        return AppManifest.model_validate(document), []
    except ValidationError as error:
        return None, [_fault(dict(one)) for one in error.errors(include_url=False)]


def _fault(error: Mapping[str, Any]) -> str:
    field = ".".join(str(part) for part in error["loc"])
    given, kind = error.get("input"), error["type"]
    if kind == "missing":
        return f"Manifest is missing required field: {field}"
    if field == "type":
        return f"Application type must be 'ray-serve', not {given!r}"
    if field == "id":
        return (
            f"Invalid artifact alias {given!r}: the id has lower-case letters, digits and hyphens only, a letter first "
            "(no underscores or slashes)"
        )
    if kind == "string_pattern_mismatch" and field.startswith("deployments"):
        return f"{field}: expected file:Class (the file without .py), got {given!r}"
    if kind == "string_type" and isinstance(given, int | float):
        return f'{field}: expected a text, got {given}; quote it: "{given}"'
    return f"{field}: {error['msg']}" if field else str(error["msg"])


# ── Code ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _code_problems(manifest: AppManifest, files: Mapping[str, bytes]) -> list[str]:
    problems: list[str] = []
    classes: list[ClassFacts] = []
    try:
        points = deployments(manifest, lambda path: _text(path, files) if path in files else None)
    except CodeError as error:
        return [error.told()]
    for entry in points:
        try:
            classes.append(facts := _read_class(entry, files))
            problems += _requirement_problems(facts)
        except BadFolder as bad:
            problems += bad.problems
    if len(classes) == len(points):
        problems += _composition_problems(manifest, points, classes)
    if manifest.frontend_entry is not None and manifest.frontend_entry not in files:
        problems.append(f"{MANIFEST}: frontend_entry: there is no file {manifest.frontend_entry}")
    return problems


def _read_class(entry: EntryPoint, files: Mapping[str, bytes]) -> ClassFacts:
    name = entry.file
    if name not in files:
        known = ", ".join(sorted(file for file in files if file.endswith(".py"))) or "none"
        raise BadFolder([f"{MANIFEST}: there is no file {name} for {entry.class_name} (Python files: {known})"])
    try:
        return read_class(_text(name, files), entry.module, entry.class_name, name)
    except CodeError as error:
        where = f"{name}:{error.line}:{error.column}" if error.line else name
        fix = f"; {error.fix}" if error.fix else ""
        raise BadFolder([f"{where}: {error.message}{fix}"]) from None


def _text(name: str, files: Mapping[str, bytes]) -> str:
    try:
        return files[name].decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadFolder([f"{name} is not UTF-8; save it as UTF-8"]) from None


def _file(facts: ClassFacts) -> str:
    return EntryPoint(facts.module, facts.name).file


def _requirement_problems(facts: ClassFacts) -> Iterator[str]:
    where = f"{_file(facts)}:{facts.line}"
    for text in requirements(facts) or ():
        if text.lstrip().startswith("-") or "file:" in text or text.startswith((".", "/")):
            yield f"{where}: requirement {text[:100]!r} is refused; name packages only, like numpy==2.3.4"
        elif not text.startswith(("https://", "git+https://")):
            try:
                Requirement(text)
            except InvalidRequirement:
                yield f"{where}: requirement {text[:100]!r} is not valid; write name==version"


def _composition_problems(
    manifest: AppManifest, points: Sequence[EntryPoint], classes: list[ClassFacts]
) -> Iterator[str]:
    """The entry takes a handle of every further deployment, and offers at least one method."""
    entry = classes[0]
    for parameter, class_name in points[0].handles:
        if parameter not in entry.parameters and not entry.open_parameters:
            yield (
                f"{_file(entry)}:{entry.line}: {entry.name}.__init__ has no parameter {parameter} to take the "
                f"handle of {class_name}; add `{parameter}: DeploymentHandle` to its parameters"
            )
    if entry.open_methods:
        return
    if not entry.methods:
        yield f"{_file(entry)}:{entry.line}: {entry.name} offers nothing to call; put @schema_method above a method"
    users = manifest.authorized_users
    for name in users if isinstance(users, dict) else ():
        if name != ENTIRE and name not in entry.methods:
            yield f"{MANIFEST}: authorized_users: {entry.name} has no method {name} ({', '.join(entry.methods)})"
