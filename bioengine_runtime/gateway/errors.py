"""What the gateway itself says no to, beside permissions."""

from __future__ import annotations


class TooManyRequests(Exception):
    """The app has as much to do as it may take on; nothing was begun, the same call may work later."""
