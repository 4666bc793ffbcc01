"""The one workspace of the embedded Hypha, and the token of its administrator."""

from typing import Any

from hypha_rpc import connect_to_server
from hypha_rpc.rpc import RemoteException

from bioengine_runtime.local.home import Home
from bioengine_runtime.local.secrets import keep_secret
from bioengine_runtime.local.tokens import mint_user_token

WORKSPACE = "bioengine"
ADMIN_ID = "bioengine-local"
# Hypha wants an address that could exist; .example never does.
ADMIN_EMAIL = "local@bioengine.example"


async def ensure_workspace(server_url: str, home: Home) -> None:
    """Make the workspace persistent in Hypha, unless an earlier start has."""
    config = {"server_url": server_url, "token": home.secrets.hypha_root_token.read_text(), "client_id": "first-start"}
    async with connect_to_server(config) as server:
        if not await _exists(server):
            await server.create_workspace(
                {
                    "name": WORKSPACE,
                    "description": "The embedded BioEngine",
                    "owners": [ADMIN_ID, ADMIN_EMAIL],
                    "persistent": True,
                    "read_only": False,
                }
            )


def ensure_admin_token(home: Home) -> None:
    """The administrator's token: minted once and kept, so that what people have saved goes on working."""
    keep_secret(
        home.secrets.admin_token,
        lambda: mint_user_token(
            jwt_secret=home.secrets.hypha_jwt_secret.read_text(),
            user_id=ADMIN_ID,
            email=ADMIN_EMAIL,
            grants={WORKSPACE: "a"},
            workspace=WORKSPACE,
        ),
    )


async def _exists(server: Any) -> bool:  # hypha-rpc's proxies are untyped
    try:
        await server.get_workspace_info(WORKSPACE)  # looks into the store too; a list shows only what is in memory
    except RemoteException as error:
        if "not found" not in str(error):
            raise
        return False
    return True
