"""Names of the gateway, and of what it offers.

There is one gateway per worker, so that two workers on one cluster never replace each other's.
"""

from __future__ import annotations

import hashlib

GATEWAY_APP = "bioengine-gateway"
GATEWAY_DEPLOYMENT = "Gateway"
RTC_SUFFIX = "-rtc"


def gateway_app(worker_service_id: str) -> str:
    """Name of the Serve application, such as `bioengine-gateway-1f0c2a9b`."""
    return f"{GATEWAY_APP}-{hashlib.sha256(worker_service_id.encode()).hexdigest()[:8]}"


def is_gateway(app_id: str) -> bool:
    return app_id.startswith(f"{GATEWAY_APP}-")


def rtc_name(app_id: str) -> str:
    """Id of the service through which WebRTC connections to an app are opened."""
    return f"{app_id}{RTC_SUFFIX}"
