"""An app folder as somebody sends it: paths, contents and manifest checked, everything that is wrong said at once."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from bioengine_runtime.apps.errors import BadApp
from bioengine_runtime.contract.limits import MAX_FILES, MAX_FOLDER_BYTES
from bioengine_runtime.contract.manifest import AppManifest
from bioengine_runtime.manifest_text import BadText, read_manifest
from bioengine_runtime.rpc.door import in_words

MANIFEST = "manifest.yaml"
_TOO_LARGE = f"larger than {MAX_FOLDER_BYTES // 1024**2} MB or {MAX_FILES} files"


@dataclass(frozen=True, slots=True)
class SentFolder:
    """The files of one app by path, and the manifest among them."""

    files: Mapping[str, bytes]
    manifest: AppManifest

    def digest(self) -> str:
        """Identity of the content: equal digests are equal files at equal paths. SHA-256."""
        digest = hashlib.sha256()
        for path, content in sorted(self.files.items()):
            digest.update(f"{len(path)} {path} {len(content)} ".encode() + content)
        return digest.hexdigest()


def read_folder(items: Sequence[Mapping[str, Any]]) -> SentFolder:
    """Items as `upload_app` takes them. Raises BadApp naming everything that is wrong."""
    check_size(items)
    files: dict[str, bytes] = {}
    problems: list[str] = []
    for item in items:
        try:
            path = inside(_name_of(item))
            if path in files:
                problems.append(f'"{path}" is there twice')
            files[path] = content_of(item)
        except BadApp as bad:
            problems.append(str(bad))
    if sum(len(content) for content in files.values()) > MAX_FOLDER_BYTES or len(files) > MAX_FILES:
        problems.append(_TOO_LARGE)
    try:
        manifest = manifest_of(files, "")
    except BadApp as bad:
        raise BadApp("; ".join([*problems, str(bad)])) from None
    problems += [f"{MANIFEST}: there is no {path}" for path in _missing(manifest, files)]
    if problems:
        raise BadApp("; ".join(problems))
    return SentFolder(files, manifest)


def check_size(items: Sequence[Mapping[str, Any]]) -> None:
    """Raises BadApp for what is too large whatever is in it. As it was sent: base64 takes a third more."""
    contents = [item.get("content") for item in items]
    total = sum(len(one) for one in contents if isinstance(one, str | bytes))
    if len(items) > MAX_FILES or total > MAX_FOLDER_BYTES * 3 // 2:
        raise BadApp(_TOO_LARGE)


def inside(path: str) -> str:
    """The path, if it names something below the folder it is joined to."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\\" in path or "\0" in path or {"..", ".", ""} & set(path.split("/")):
        raise BadApp(f'"{path}" is not a path inside an app folder')
    return path


def content_of(item: Mapping[str, Any]) -> bytes:
    """Bytes of one item; base64 may carry a `data:…,` prefix."""
    content, kind = item.get("content"), item.get("type") or "text"
    if isinstance(content, bytes):
        return content
    if not isinstance(content, str) or kind not in ("text", "base64"):
        raise BadApp(f'{item.get("name")}: needs `content` as text and a `type` of "text" or "base64"')
    if kind == "text":
        return content.encode()
    try:
        return base64.b64decode(content.split(",", 1)[-1] if content.startswith("data:") else content, validate=True)
    except ValueError:
        raise BadApp(f"{item.get('name')}: content is not base64") from None


def manifest_of(files: Mapping[str, bytes], where: str) -> AppManifest:
    """The manifest a folder carries. `where` says in the error which folder it is."""
    at = f"{where}: " if where else ""
    if MANIFEST not in files:
        raise BadApp(f"{at}there is no {MANIFEST}")
    try:
        return AppManifest.model_validate(read_manifest(files[MANIFEST]))
    except BadText as error:
        raise BadApp(f"{at}{MANIFEST}: {error}") from None
    except ValidationError as error:
        raise BadApp(f"{at}{MANIFEST}: {in_words(error)}") from None


def _name_of(item: Mapping[str, Any]) -> str:
    """The manifest is known by its name in any case, as clients have always been allowed to spell it."""
    name = str(item.get("name") or "")
    return MANIFEST if name.lower() == MANIFEST else name


def _missing(manifest: AppManifest, files: Mapping[str, bytes]) -> Iterable[str]:
    """Files that the manifest names and the folder lacks."""
    for path in dict.fromkeys(entry_point.file for entry_point in manifest.entry_points()):
        if path not in files:
            yield path
    if manifest.frontend_entry and manifest.frontend_entry not in files:
        yield manifest.frontend_entry
