"""One app folder: its manifest and code facts, or everything that is wrong with it. Nothing of it is ever run."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import cast

from packaging.requirements import InvalidRequirement, Requirement

from bioengine_runtime.contract.base import ENTIRE
from bioengine_runtime.contract.code import ClassFacts, CodeError, read_class, requirements
from bioengine_runtime.contract.composition import deployments
from bioengine_runtime.contract.limits import MAX_FILES, MAX_FOLDER_BYTES
from bioengine_runtime.contract.manifest import AppManifest, AuthorizedUsers, EntryPoint
from reconciler.planning.explain import did_you_mean, excerpt, parse, problem, problem_at
from reconciler.planning.memo import Memo
from reconciler.planning.problems import Location, Problem
from reconciler.planning.source import Folder
from reconciler.planning.yaml_text import Document, Path, read_yaml

MANIFEST = "manifest.yaml"
_MAX_PATH = 240
_LFS_HEADER = b"version https://git-lfs.github.com/spec/v1"

Read = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """What one folder says. `manifest` is None, and `classes` may be incomplete, where `problems` say why."""

    manifest: AppManifest | None
    classes: tuple[ClassFacts, ...]
    problems: tuple[Problem, ...]


def read_folder(folder: Folder, read: Read) -> FolderFacts:
    """The facts, remembered by tree id."""
    return _MEMO.get((folder.path, folder.tree), lambda: _facts(folder, read))


_MEMO: Memo[FolderFacts] = Memo(limit=4096)


def _facts(folder: Folder, read: Read) -> FolderFacts:
    problems = [*_files_problems(folder, read)]
    blob = folder.files.get(MANIFEST)
    if blob is None:
        if MANIFEST not in folder.refused:
            problems.append(_no_manifest(folder))
        return FolderFacts(None, (), tuple(problems))
    path = f"{folder.path}/{MANIFEST}"
    document = read_yaml(read(blob.oid), path)
    manifest, faults = parse(AppManifest, document)
    problems += [problem(path, document, fault) for fault in faults]
    if manifest is None:
        return FolderFacts(None, (), tuple(problems))
    classes: list[ClassFacts] = []
    points = _deployments(folder, document, manifest, read)
    if isinstance(points, Problem):
        return FolderFacts(manifest, (), (*problems, points))
    for number, entry in enumerate(points):
        found = _read_entry(folder, document, number, entry, read)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            classes.append(found)
            problems += _requirement_problems(folder, found)
    if len(classes) == len(points):
        problems += _composition_problems(document, folder, points, classes)
        problems += user_problems(document, ("authorized_users",), manifest.authorized_users, classes[0])
    if manifest.frontend_entry is not None and manifest.frontend_entry not in folder.files:
        message = f"frontend_entry: no file {manifest.frontend_entry!r} in {folder.path}"
        near = did_you_mean(manifest.frontend_entry, [name for name in folder.files if name.endswith(".html")])
        problems.append(problem_at(path, document, ("frontend_entry",), message, near or "add it, or remove the line"))
    return FolderFacts(manifest, tuple(classes), tuple(problems))


# ── Files ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _files_problems(folder: Folder, read: Read) -> Iterator[Problem]:
    for name, reason in sorted(folder.refused.items()):
        fix = "rename it" if reason.startswith("its name") else "replace it by a plain file, or remove it"
        yield _about(folder, _printable(name), reason, fix)
    for name in folder.files:
        if reason := odd_name(name):
            yield _about(folder, _printable(name), reason, "rename it")
    yield from (_about(folder, "", message, "rename one of them") for message in twins(folder.files))
    if folder.size > MAX_FOLDER_BYTES:
        limit = MAX_FOLDER_BYTES // 1024 // 1024
        message = f"{folder.size / 1024 / 1024:.0f} MiB of files; at most {limit} MiB are taken"
        yield _about(folder, "", message, "keep weights and data outside and load them in async_init")
    if len(folder.files) > MAX_FILES:
        yield _about(folder, "", f"{len(folder.files)} files; at most {MAX_FILES} are taken", "keep data outside")
    for name, blob in folder.files.items():
        if 100 <= blob.size <= 300 and not name.endswith((".py", ".yaml")) and read(blob.oid).startswith(_LFS_HEADER):
            message = "a Git LFS pointer, not the file's content"
            yield _about(folder, name, message, "commit the file itself, or load it in async_init")


def odd_name(name: str) -> str | None:
    """Why a file of this name is not taken; None when it is fine."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "its name leads out of the folder"
    if "\\" in name:
        return "its name has a backslash, which divides folders on some systems"
    if any(part.lower() == ".git" for part in parts):
        return "git's own files are not part of an app"
    if any(unicodedata.category(character)[0] == "C" for character in name):
        return "its name has an invisible character"
    if len(name.encode()) > _MAX_PATH:
        return f"its name is longer than {_MAX_PATH} bytes"
    return None


def twins(names: Iterable[str]) -> Iterator[str]:
    """Names that some file systems cannot tell apart: by case, or by how an accent is composed."""
    seen: dict[str, str] = {}
    for name in sorted(names):
        first = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if first != name:
            yield f"{_printable(first)} and {_printable(name)} are the same name on some systems"


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)[:120]


def _about(folder: Folder, name: str, message: str, fix: str) -> Problem:
    return Problem(Location(f"{folder.path}/{name}" if name else folder.path), message, fix)


def _no_manifest(folder: Folder) -> Problem:
    if any(name.startswith(f"{MANIFEST}/") for name in folder.files):
        return Problem(
            Location(f"{folder.path}/{MANIFEST}"), "a folder, where the manifest should be", "make it a file"
        )
    similar = [name for name in folder.files if name.lower() in ("manifest.yml", "manifest.yaml", "manifest.json")]
    fix = f"rename {similar[0]} to {MANIFEST}" if similar else f"add a {MANIFEST}"
    return Problem(Location(folder.path), f"no {MANIFEST}", fix)


# ── Code ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _deployments(
    folder: Folder, document: Document, manifest: AppManifest, read: Read
) -> tuple[EntryPoint, ...] | Problem:
    def text(path: str) -> str | None:
        blob = folder.files.get(path)
        return read(blob.oid).decode("utf-8-sig", errors="replace") if blob else None

    try:
        return deployments(manifest, text)
    except CodeError as error:
        source = text(error.filename) if error.filename and error.line else None
        if source is None:
            return problem_at(f"{folder.path}/{MANIFEST}", document, ("entry",), error.message, error.fix)
        where = Location(f"{folder.path}/{error.filename}", error.line, error.column)
        return Problem(where, error.message, error.fix, excerpt(source, error.line, error.column))


def _read_entry(folder: Folder, document: Document, number: int, entry: EntryPoint, read: Read) -> ClassFacts | Problem:
    manifest, at = f"{folder.path}/{MANIFEST}", _place(document, number)
    name = entry.file
    blob = folder.files.get(name)
    if blob is None:
        known = [file for file in folder.files if file.endswith(".py") and file.count("/") == name.count("/")]
        fix = did_you_mean(name, known) or "add it, or name another file"
        return problem_at(manifest, document, at, f"no file {name} in {folder.path}", fix)
    try:
        source = read(blob.oid).decode("utf-8-sig")
    except UnicodeDecodeError:
        return Problem(Location(f"{folder.path}/{name}"), "not UTF-8", "save the file as UTF-8")
    try:
        facts = read_class(source, entry.module, entry.class_name, name)
        return replace(facts, handles=tuple(parameter for parameter, _ in entry.handles))
    except CodeError as error:
        if not error.line and error.fix:
            return problem_at(manifest, document, at, error.message, error.fix)
        where = Location(f"{folder.path}/{name}", error.line, error.column)
        return Problem(where, error.message, error.fix, excerpt(source, error.line, error.column))


def _requirement_problems(folder: Folder, facts: ClassFacts) -> Iterator[Problem]:
    """Options and files in a requirement list could fetch from anywhere or read the node's own files."""
    where = Location(f"{folder.path}/{facts.module.replace('.', '/')}.py", facts.line, 1)
    for text in requirements(facts) or ():
        if text.lstrip().startswith("-") or "file:" in text or text.startswith((".", "/")):
            yield Problem(where, f"requirement {text[:100]!r} is refused", "name packages only, like numpy==2.3.4")
        elif not _SAFE_URL.match(text):
            try:
                url = Requirement(text).url
            except InvalidRequirement:
                yield Problem(where, f"requirement {text[:100]!r} is not valid", "write name==version")
            else:
                if url is not None and not _SAFE_URL.match(url):
                    fix = "fetch it by https, or name a package and its version"
                    yield Problem(where, f"requirement {text[:100]!r} is refused", fix)


_SAFE_URL = re.compile(r"(git\+)?https://")


def _composition_problems(
    document: Document, folder: Folder, points: tuple[EntryPoint, ...], classes: list[ClassFacts]
) -> Iterator[Problem]:
    """The entry takes a handle of every further deployment, and offers at least one method."""
    path, entry = f"{folder.path}/{MANIFEST}", classes[0]
    for number, (parameter, class_name) in enumerate(points[0].handles, start=1):
        if parameter not in entry.parameters and not entry.open_parameters:
            message = f"{entry.name}.__init__ has no parameter {parameter} to take the handle of {class_name}"
            near = did_you_mean(parameter, entry.parameters) if entry.parameters else ""
            fix = near if near.startswith("did") else f"add `{parameter}: DeploymentHandle` to its parameters"
            yield problem_at(path, document, _place(document, number), message, fix)
    if not entry.methods and not entry.open_methods:
        message = f"{entry.name} offers nothing to call"
        fix = "put @schema_method (in format 0.6.0: @bioengine.method) above one of its methods"
        yield problem_at(path, document, _place(document, 0), message, fix)


def _place(document: Document, number: int) -> Path:
    """Where the manifest names a deployment; what only the code names stands at the entry."""
    return ("entry",) if "entry" in cast("dict[str, object]", document.value) else ("deployments", number)


def user_problems(document: Document, at: Path, users: AuthorizedUsers | None, entry: ClassFacts) -> Iterator[Problem]:
    """Rules for methods that the entry does not have: a typo there would leave the method unguarded."""
    if not isinstance(users, dict) or entry.open_methods:
        return
    for name in users:
        if name != ENTIRE and name not in entry.methods:
            message = f"authorized_users: {entry.name} has no method {name}"
            held = document.holding((*at, name))
            yield problem_at(held.name, held, (*at, name), message, did_you_mean(name, entry.methods), key=True)
