"""Where the embedded Hypha's own environment is: Hypha's pins and Ray's clash, so it cannot live in ours."""

import os
import sys
from pathlib import Path

from bioengine_runtime.local.errors import LocalError

PYTHON_VARIABLE = "BIOENGINE_HYPHA_PYTHON"
ENVIRONMENT_NAME = ".venv-hypha"
# The locked project that the environment is made from; package data, so an installed wheel has it too.
PROJECT = Path(__file__).parent / "hypha"


def hypha_python() -> Path:
    """The interpreter of the environment: as the variable says, else the one beside our own environment."""
    said = os.environ.get(PYTHON_VARIABLE)
    python = Path(said) if said else Path(sys.prefix).parent / ENVIRONMENT_NAME / "bin" / "python"
    if not python.exists():
        raise LocalError(
            f"the embedded Hypha's environment is missing: {python} does not exist",
            f"run `make setup`, or UV_PROJECT_ENVIRONMENT={python.parent.parent} uv sync --locked --project {PROJECT}, "
            f"or set {PYTHON_VARIABLE}",
        )
    return python


def store_program() -> Path:
    """The object store's program, which the same environment carries."""
    return hypha_python().parent / "rclone"
