"""An app's files as one zip named by its content, and that zip unpacked once per node.

Law: a directory named by a digest is complete. It is filled under another name and renamed in one step.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bioengine_runtime.apps.errors import BadApp
from bioengine_runtime.contract.limits import MAX_FOLDER_BYTES

_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Package:
    """The zip and its name."""

    digest: str
    content: bytes


def pack(files: Mapping[str, bytes]) -> Package:
    """Equal files give equal bytes, whatever their order and time."""
    total = sum(map(len, files.values()))
    if total > MAX_FOLDER_BYTES:
        raise BadApp(
            f"the app's files are {total // 1024**2} MB, more than {MAX_FOLDER_BYTES // 1024**2} MB; load data at run"
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            _check_name(name)
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name])
    content = buffer.getvalue()
    return Package(hashlib.sha256(content).hexdigest()[:32], content)


def unpack(content: bytes, digest: str, cache: str | Path) -> Path:
    """The folder of this content under `cache`, unpacked now if it is not there."""
    target = Path(cache) / digest
    if in_use(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{digest}.", dir=target.parent))
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(draft)
        settle(draft, target)
    except BaseException:  # Serve starts the replica again and again: a full disk is not to get fuller
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return target


def in_use(folder: Path) -> bool:
    """Whether it is there; then it is kept for another while."""
    try:
        os.utime(folder)
    except FileNotFoundError:
        return False
    except PermissionError:  # on a disk that is shared: another's, and theirs to keep
        pass
    return True


def settle(draft: Path, target: Path) -> None:
    """Give a finished folder its name; when another process was first, ours is thrown away."""
    with contextlib.suppress(OSError):
        draft.rename(target)
    if draft.exists():
        shutil.rmtree(draft, ignore_errors=True)
    if not target.is_dir():
        raise OSError(f"cannot create {target}")


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name:
        raise BadApp(f'"{name}" is not a path inside the app folder')
