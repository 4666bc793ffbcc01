"""The apps' folder on one node, looked at and cleaned there: runs in a Ray task on it.

Nodes may share a disk or have one each. What tells is a mark in the folder itself, not numbers of devices and inodes:
those differ between nodes for the same network disk, and are the same for disks made from the same image.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

MARK = ".disk"
AWAY = ".cleared-"
STALE_S = 3600.0

Kind = Literal["folder", "nothing", "link", "file"]


def disk_here(apps_dir: str) -> str | None:
    """The name of the disk that holds the apps' folder, given to it by whoever comes first; None without a folder."""
    mark = Path(apps_dir) / MARK
    try:
        with contextlib.suppress(FileExistsError):
            mark.symlink_to(uuid.uuid4().hex)  # unlike a file, it is made with its content, in one step and only once
        return str(mark.readlink())
    except FileNotFoundError:
        return None


def sizes_here(apps_dir: str) -> dict[str, int]:
    """Bytes by app. Hidden folders are ours, not apps."""
    with contextlib.suppress(FileNotFoundError), os.scandir(apps_dir) as entries:
        return {
            entry.name: _size(entry.path)
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        }
    return {}


def kind_here(apps_dir: str, app_id: str) -> Kind:
    """What there is under the name of an app."""
    try:
        mode = (Path(apps_dir) / app_id).lstat().st_mode
    except FileNotFoundError:
        return "nothing"
    if stat.S_ISLNK(mode):
        return "link"
    return "folder" if stat.S_ISDIR(mode) else "file"


def move_away_here(apps_dir: str, app_id: str, token: str) -> None:
    """Out of the app's sight, in one step; nothing there is fine."""
    with contextlib.suppress(FileNotFoundError):
        (Path(apps_dir) / app_id).rename(_away(apps_dir, app_id, token))


def put_back_here(apps_dir: str, app_id: str, token: str) -> None:
    """Undo it, unless the app has a folder again: then that is what it lives in."""
    away, home = _away(apps_dir, app_id, token), Path(apps_dir) / app_id
    with contextlib.suppress(FileNotFoundError):
        with contextlib.suppress(OSError):
            home.rmdir()  # only if it is empty
        if not home.exists():
            away.rename(home)


def delete_here(apps_dir: str, app_id: str, token: str) -> str:
    """Delete what was moved away, and what an interrupted clearing left long ago. What is wrong; empty when it is gone.

    Links inside are removed, never followed."""
    away = _away(apps_dir, app_id, token)
    for folder in (away, *_stale(apps_dir)):
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            if folder == away:
                return f"{error.strerror or error}: {error.filename or folder}"
    return ""


def _away(apps_dir: str, app_id: str, token: str) -> Path:
    return Path(apps_dir) / f"{AWAY}{app_id}-{token}"


def _stale(apps_dir: str) -> Iterator[Path]:
    for folder in Path(apps_dir).glob(f"{AWAY}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - folder.lstat().st_ctime > STALE_S:  # a renaming counts as a change
                yield folder


def _size(folder: str) -> int:
    """Bytes of the files inside, each once however many names it has. What vanishes meanwhile counts as nothing."""
    total, seen = 0, set[tuple[int, int]]()
    for entry in _files(folder):
        with contextlib.suppress(OSError):
            status = entry.stat(follow_symlinks=False)
            if status.st_nlink > 1:
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
            total += status.st_size
    return total


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    folders = [folder]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    yield entry
