"""The Hypha server, in its own environment: SQLite, its Redis inside, artifact bytes in our store."""

import httpx

from bioengine_runtime import true_sender
from bioengine_runtime.local.home import Home
from bioengine_runtime.local.hypha_env import hypha_python
from bioengine_runtime.local.ports import LOOPBACK
from bioengine_runtime.local.process import wait_ready
from bioengine_runtime.local.running import Running
from bioengine_runtime.local.secrets import write_private

# Fixed: a client that reconnects looks for the same server again.
SERVER_ID = "bioengine-local"

# Messages per second of one client. Hypha's default of 200 would be 90 calls per second for all apps together.
MESSAGE_LIMIT = 5000

# Without it botocore signs links in an older way, which the store refuses.
AWS_CONFIG = "[default]\ns3 =\n    signature_version = s3v4\n"


def server_url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


async def start_hypha(home: Home, running: Running, *, port: int, store_port: int) -> None:
    """The server, ready to be called on `port`; the store must be up."""
    aws_config = home.path / "aws.cfg"
    write_private(aws_config, AWS_CONFIG)
    store_url = f"http://{LOOPBACK}:{store_port}"
    child = await running.start(
        "hypha",
        [
            str(hypha_python()),
            *("-P", true_sender.__file__, "hypha.server", "--from-env"),
            *("--host", LOOPBACK, "--port", str(port), "--public-base-url", server_url(port)),
            *("--server-id", SERVER_ID),
            *("--database-uri", f"sqlite+aiosqlite:///{home.database}"),
            *("--enable-s3", "--endpoint-url", store_url, "--endpoint-url-public", store_url),
            *("--region-name", "us-east-1", "--workspace-bucket", "hypha-workspaces", "--s3-admin-type", "generic"),
            *("--cache-dir", str(home.hypha_cache)),
        ],
        environment={**_secret_settings(home), **_limits(), "AWS_CONFIG_FILE": str(aws_config)},
    )
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        await wait_ready(child, lambda: _is_ready(http, server_url(port)), timeout=90)


def _limits() -> dict[str, str]:
    """Hypha disconnects a client that sends faster than this; one gateway speaks for every app of this machine."""
    return {"HYPHA_WS_MSG_RATE_LIMIT": str(MESSAGE_LIMIT), "HYPHA_WS_MSG_BURST_LIMIT": str(10 * MESSAGE_LIMIT)}


def _secret_settings(home: Home) -> dict[str, str]:
    """Settings that must not be seen in a list of processes: Hypha takes them from its environment."""
    jwt_secret = home.secrets.hypha_jwt_secret.read_text()
    return {
        "HYPHA_ROOT_TOKEN": home.secrets.hypha_root_token.read_text(),
        "HYPHA_JWT_SECRET": jwt_secret,
        "JWT_SECRET": jwt_secret,
        "HYPHA_ACCESS_KEY_ID": home.secrets.store_access_key.read_text(),
        "HYPHA_SECRET_ACCESS_KEY": home.secrets.store_secret_key.read_text(),
        # Hypha reads a .env file from any folder above its own code, which may be somebody's repository.
        "PYTHON_DOTENV_DISABLED": "1",
    }


async def _is_ready(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(f"{url}/health/readiness")).status_code == 200
    except httpx.TransportError:
        return False
