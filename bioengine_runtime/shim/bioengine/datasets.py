"""`bioengine.datasets`: the class of format 0.5.0, and the functions of format 0.6.0, those of one instance of it."""

from __future__ import annotations

from bioengine_runtime.apps.datasets import EmptyDatasets as BioEngineDatasets

_ours = BioEngineDatasets()
ping_data_server = _ours.ping_data_server
list_datasets = _ours.list_datasets
list_files = _ours.list_files
get_file = _ours.get_file
save_file = _ours.save_file
list_saved_files = _ours.list_saved_files
get_saved_file = _ours.get_saved_file
set_chunk_cache_size_gb = _ours.set_chunk_cache_size_gb

__all__ = [
    "BioEngineDatasets",
    "get_file",
    "get_saved_file",
    "list_datasets",
    "list_files",
    "list_saved_files",
    "ping_data_server",
    "save_file",
    "set_chunk_cache_size_gb",
]
