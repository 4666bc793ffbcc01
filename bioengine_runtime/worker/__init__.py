"""The worker process: how it starts, stays, and leaves."""
