"""The embedded default: a Hypha server, its object store, a Ray head and a worker, all on loopback, in one folder."""
