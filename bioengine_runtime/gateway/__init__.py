"""The Hypha side of every app, apart from the apps' own replicas, so that an update never drops a service."""
