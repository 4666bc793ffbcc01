"""One folder that holds everything of the embedded default: what is in it, and the short detour Ray's sockets need."""

import hashlib
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bioengine_runtime.local.errors import LocalError
from bioengine_runtime.local.secrets import Secrets, keep_secret, make_secrets, new_key

# Every process we start carries it, and hands it to its own children: so a killed start's leftovers are found.
HOME_MARKER = "BIOENGINE_HOME_ID"

# In a new home before its `id`: the lock of who makes it, and what the reconciler keeps there.
MADE_BEFORE = frozenset(("lock", ".gitignore", "secrets", "reconciler", "mirrors"))
DRAFT_OF_ID = ".id."

SHORT_PREFIX = "bioengine-"

# Linux refuses socket paths of 108 bytes and more. Ray appends at most
# /session_2026-11-21_03-32-19_853813_4194304/sockets/ and a socket's name of up to 16 characters.
LONGEST_RAY_TEMP = 107 - len("/session_2026-11-21_03-32-19_853813_4194304/sockets/") - 16


@dataclass(frozen=True, slots=True)
class Home:
    path: Path

    @property
    def database(self) -> Path:
        return self.path / "hypha.db"

    @property
    def artifact_bytes(self) -> Path:
        return self.path / "artifacts"

    @property
    def hypha_cache(self) -> Path:
        return self.path / "cache"

    @property
    def worker_folder(self) -> Path:
        return self.path / "worker"

    @property
    def seal_key(self) -> Path:
        """The worker's: what it seals apps' secrets with. In its own folder, where it looks for it."""
        return self.worker_folder / "seal.key"

    @property
    def state_file(self) -> Path:
        return self.path / "state.json"

    @property
    def secrets(self) -> Secrets:
        return Secrets(self.path / "secrets")

    def log_file(self, what: str) -> Path:
        return self.path / "logs" / f"{what}.log"

    @property
    def marker(self) -> str:
        """Tells this home's processes from all others, also from those of a copy of this folder elsewhere."""
        identity = (self.path / "id").read_text()
        return hashlib.sha256(f"{identity}\n{self.path}".encode()).hexdigest()[:32]


def own_folder(path: Path) -> Path:
    """The folder at `path`, made where it is missing, and closed to everybody else: what is in it counts on that.

    Raises LocalError when it is a folder of somebody else's, or of other things, which stays as it is.
    """
    folder = path.expanduser().resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        if not _is_home(folder):
            raise LocalError(
                f"{folder} is open to other users of this machine, and holds other things than a home does",
                f"name another folder with --home, or close this one: chmod 700 {folder}",
            )
        try:
            folder.chmod(0o700)
        except PermissionError:
            message = f"{folder} is open to other users of this machine, and belongs to one of them"
            raise LocalError(message, "name another folder with --home") from None
    return folder


def _is_home(folder: Path) -> bool:
    """Whether there is nothing else in it, or it was one before."""
    names = {entry.name for entry in folder.iterdir()}
    return "id" in names or all(name in MADE_BEFORE or name.startswith(DRAFT_OF_ID) for name in names)


def open_home(path: Path) -> Home:
    """The home at `path`, with its folders and secrets made where they are missing. Raises as `own_folder` does."""
    home = Home(own_folder(path))
    keep_secret(home.path / "id", lambda: secrets.token_hex(16))
    for folder in (home.artifact_bytes, home.hypha_cache, home.worker_folder, home.path / "logs"):
        folder.mkdir(mode=0o700, exist_ok=True)
    # The folder may lie in somebody's repository: none of it belongs into a commit.
    (home.path / ".gitignore").write_text("*\n")
    make_secrets(home.path / "secrets")
    keep_secret(home.seal_key, new_key)
    return home


def make_ray_temp(home: Home) -> Path:
    """An empty folder for Ray's session: in the home, or under a short name elsewhere when the home's path is long.

    Ray opens its own folder to everybody; the one around it is closed.
    """
    around = home.path / "ray"
    shutil.rmtree(around, ignore_errors=True)
    if len(str(around / "r").encode()) > LONGEST_RAY_TEMP:
        around = Path(tempfile.mkdtemp(prefix=SHORT_PREFIX, dir="/tmp"))
    inside = around / "r"
    inside.mkdir(mode=0o700, parents=True)
    around.chmod(0o700)
    return inside


def remove_ray_temp(ray_temp: Path) -> None:
    """Remove a folder outside of the home; the one inside stays until the next start, its logs may be wanted."""
    outside = ray_temp.parent
    if outside.parent == Path("/tmp") and outside.name.startswith(SHORT_PREFIX):
        shutil.rmtree(outside, ignore_errors=True)
