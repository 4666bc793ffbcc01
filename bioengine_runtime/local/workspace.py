"""The one workspace of the embedded Hypha, and the token of its administrator."""

import httpx

from bioengine_runtime.local.errors import LocalError
from bioengine_runtime.local.home import Home
from bioengine_runtime.local.secrets import keep_secret
from bioengine_runtime.local.tokens import mint_user_token

WORKSPACE = "bioengine"
ADMIN_ID = "bioengine-local"
# Hypha wants an address that could exist; .example never does.
ADMIN_EMAIL = "local@bioengine.example"


async def ensure_workspace(server_url: str, home: Home) -> None:
    """Make the workspace, persistent in Hypha's store, unless an earlier start has."""
    root = {"Authorization": f"Bearer {home.secrets.hypha_root_token.read_text()}"}
    async with httpx.AsyncClient(base_url=server_url, headers=root, trust_env=False, timeout=30) as http:
        # Any other answer than 200 is taken for "missing": Hypha answers 500 then. Making one that exists is an error.
        if (await http.get(f"/{WORKSPACE}/info")).status_code == 200:
            return
        wanted = {
            "name": WORKSPACE,
            "description": "The embedded BioEngine",
            "owners": [ADMIN_ID, ADMIN_EMAIL],
            "persistent": True,
        }
        made = await http.post("/public/services/~/create_workspace", json={"config": wanted})
        if made.status_code != 200:
            message = f"Hypha does not make the workspace {WORKSPACE}: HTTP {made.status_code} {made.text[:500]}"
            raise LocalError(message, "its log may say why", home.log_file("hypha"))


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
