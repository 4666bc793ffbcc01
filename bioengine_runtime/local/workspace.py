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
# What Hypha answers when there is none; anything else says nothing of that.
MISSING = (404, 500)


async def ensure_workspace(server_url: str, home: Home, timeout_s: float = 30.0) -> None:
    """Make the workspace, persistent in Hypha's store, unless an earlier start has. Raises LocalError when Hypha does
    not, or does not answer within `timeout_s`."""
    root = {"Authorization": f"Bearer {home.secrets.hypha_root_token.read_text()}"}
    try:
        async with httpx.AsyncClient(base_url=server_url, headers=root, trust_env=False, timeout=timeout_s) as http:
            refused = await _refusal(http)
    except httpx.HTTPError as error:
        refused = f"no answer ({type(error).__name__})"
    if refused:
        message = f"Hypha does not make the workspace {WORKSPACE}: {refused}"
        raise LocalError(message, "its log may say why; on a busy machine, start again", home.log_file("hypha"))


async def _refusal(http: httpx.AsyncClient) -> str:
    """What Hypha has against it; empty when the workspace is there. Making one that exists is an error."""
    there = await http.get(f"/{WORKSPACE}/info")
    if there.status_code == 200:
        return ""
    if there.status_code not in MISSING:
        return _said(there)
    wanted = {
        "name": WORKSPACE,
        "description": "The embedded BioEngine",
        "owners": [ADMIN_ID, ADMIN_EMAIL],
        "persistent": True,
    }
    made = await http.post("/public/services/~/create_workspace", json={"config": wanted})
    return "" if made.status_code == 200 else _said(made)


def _said(answer: httpx.Response) -> str:
    return f"HTTP {answer.status_code} {answer.text[:500]}"


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
