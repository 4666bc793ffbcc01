"""Called by `ray start` (RAY_START_HOOK) with its parameters: switches off what has no option on the command line."""

from typing import Any


def without_client_server(params: Any, _head: bool) -> None:
    """No Ray Client server: nobody here uses it, and it is a process and an open port."""
    params.ray_client_server_port = None
