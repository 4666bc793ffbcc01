"""Hypha user tokens, signed by hand: with its JWT secret a token needs no server call and outlives restarts."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Literal

Permission = Literal["r", "rw", "a"]

# Hypha accepts only what its own identity provider would have issued.
ISSUER = "https://amun.ai/"
AUDIENCE = "https://amun-ai.eu.auth0.com/api/v2/"
TEN_YEARS = 10 * 365 * 24 * 3600


def mint_user_token(
    *,
    jwt_secret: str,
    user_id: str,
    email: str,
    grants: Mapping[str, Permission],
    workspace: str,
    lifetime_seconds: int = TEN_YEARS,
) -> str:
    """A token of the user with `email`, who may do `grants` (workspace → permission) and starts in `workspace`."""
    now = int(time.time())
    scope = " ".join([*(f"ws:{name}#{grant}" for name, grant in grants.items()), f"wid:{workspace}"])
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": user_id,
        "iat": now,
        "exp": now + lifetime_seconds,
        "gty": "client-credentials",
        "scope": scope,
        "https://amun.ai/roles": [],
        "https://amun.ai/email": email,
    }
    return _sign({"alg": "HS256", "typ": "JWT"}, claims, jwt_secret)


def _sign(header: Mapping[str, str], claims: Mapping[str, object], secret: str) -> str:
    body = ".".join(_encode(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    signature = hmac.new(secret.encode(), body.encode(), hashlib.sha256).digest()
    return f"{body}.{_encode(signature)}"


def _encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()
