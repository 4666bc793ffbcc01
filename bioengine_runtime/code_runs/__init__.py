"""`run_code`: a person's function in a process of its own on the cluster, never in the worker's."""
