"""How large an app folder and a YAML file may be, whoever reads them: the reconciler, the command or the worker."""

from __future__ import annotations

MAX_FOLDER_BYTES = 100 * 1024**2
MAX_FILES = 2000

MAX_YAML_BYTES = 1024**2
MAX_YAML_DEPTH = 50
"""Levels of lists and mappings."""
