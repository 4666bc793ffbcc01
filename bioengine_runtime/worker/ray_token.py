"""The token of a Ray cluster that asks for one.

Law: it is said before `ray` is imported. Ray reads how it is to show itself once, then, and hears of nothing later.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def use_token(file: Path | None) -> None:
    """Show the token in this file to every Ray; None: go on as the environment says."""
    if file is None:
        return
    if "ray" in sys.modules:
        raise RuntimeError("ray is imported already, so the token of its cluster would not be shown")
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(file.absolute())
