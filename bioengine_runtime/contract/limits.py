"""What an app folder and a YAML file may be, whoever reads them: the reconciler, the command or the worker."""

from __future__ import annotations

import re

MAX_FOLDER_BYTES = 100 * 1024**2
MAX_FILES = 2000

MAX_YAML_BYTES = 1024**2
MAX_YAML_DEPTH = 50
"""Levels of lists and mappings."""
NOT_IN_YAML = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""A character that no YAML may contain (YAML 1.2.2, 5.1)."""
