"""From an artifact version to a running Ray Serve application."""
