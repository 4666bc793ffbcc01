"""Runs it: the BioEngine worker that turns artifacts into Ray Serve apps reachable through Hypha."""
