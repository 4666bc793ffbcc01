"""The object store for artifact bytes: rclone, which serves a plain folder over S3, so bytes survive a restart."""

import asyncio

from bioengine_runtime.local.home import Home
from bioengine_runtime.local.hypha_env import store_program
from bioengine_runtime.local.ports import LOOPBACK
from bioengine_runtime.local.process import wait_ready
from bioengine_runtime.local.running import Running


async def start_store(home: Home, running: Running, *, port: int) -> None:
    """The store, listening on `port`."""
    access, secret = home.secrets.store_access_key.read_text(), home.secrets.store_secret_key.read_text()
    child = await running.start(
        "store",
        [
            str(store_program()),
            *("serve", "s3", str(home.artifact_bytes)),
            *("--addr", f"{LOOPBACK}:{port}"),
            *("--config", "/dev/null"),
            # A browser follows Hypha's redirect to a file here. Any origin may: the permission is the signed link,
            # nothing that a browser would add by itself.
            *("--allow-origin", "*"),
        ],
        # A comma-separated list whose one entry holds a comma itself: hence the quotes.
        environment={"RCLONE_AUTH_KEY": f'"{access},{secret}"'},
    )
    await wait_ready(child, lambda: _listens(port), timeout=30)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True
