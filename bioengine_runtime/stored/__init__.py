"""App folders on Hypha: versions that are never overwritten."""
