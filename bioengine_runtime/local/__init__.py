"""The embedded default: a Hypha server, its object store and a Ray head on loopback."""
