"""`bioengine.utils`, as far as apps use it."""

from __future__ import annotations

import base64
import logging
import sys
from pathlib import Path


def create_logger(name: str, level: int = logging.INFO, log_file: str | Path | None = None) -> logging.Logger:
    """A logger that writes to stdout, which Ray keeps, or to a file; asked for again, the same one."""
    logger = logging.getLogger(name)
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.FileHandler(log_file) if log_file else logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    return logger


def create_file_list_from_directory(directory_path: str | Path) -> list[dict[str, str]]:
    """Every file under a folder as upload_app takes it: name relative to it, content, type "text" or "base64"."""
    root = Path(directory_path)
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return [{"name": path.relative_to(root).as_posix(), **_content(path.read_bytes())} for path in files]


def _content(content: bytes) -> dict[str, str]:
    try:
        return {"content": content.decode(), "type": "text"}
    except UnicodeDecodeError:
        return {"content": base64.b64encode(content).decode(), "type": "base64"}
