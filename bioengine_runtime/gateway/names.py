"""Names of the gateway: one per worker, so that two workers on one cluster never replace each other's."""

from __future__ import annotations

import hashlib

GATEWAY_APP = "bioengine-gateway"
GATEWAY_DEPLOYMENT = "Gateway"


def gateway_app(worker_service_id: str) -> str:
    """Name of the Serve application, such as `bioengine-gateway-1f0c2a9b`."""
    return f"{GATEWAY_APP}-{hashlib.sha256(worker_service_id.encode()).hexdigest()[:8]}"


def is_gateway(app_id: str) -> bool:
    return app_id.startswith(f"{GATEWAY_APP}-")
