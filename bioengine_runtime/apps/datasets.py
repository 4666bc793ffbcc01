"""`self.bioengine_datasets` of a worker without a data server: the methods of the guide, with nothing behind them."""

from __future__ import annotations

from typing import Any, NoReturn


class MissingDataServerError(ValueError):
    """This worker has no data server."""


class EmptyDatasets:
    """Says what is true: there are no datasets here. Takes what the guide's BioEngineDatasets takes."""

    def __init__(
        self,
        data_server_url: str | None = "auto",
        hypha_token: str | None = None,
        chunk_cache_size_gb: float = 1,
        logger: Any = None,
    ) -> None:
        del hypha_token, chunk_cache_size_gb, logger
        if data_server_url not in (None, "auto"):
            raise MissingDataServerError(f"{data_server_url}: this release reads from no data server")

    async def ping_data_server(self) -> None:
        """Nothing to reach, so nothing is wrong."""

    async def list_datasets(self) -> dict[str, Any]:
        return {}

    async def list_files(self, dataset_id: str, dir_path: str | None = None, token: str | None = None) -> NoReturn:
        del dir_path, token
        raise MissingDataServerError(f'there is no dataset "{dataset_id}"; this worker has no data server')

    async def get_file(self, dataset_id: str, file_path: str, token: str | None = None) -> NoReturn:
        del file_path, token
        raise MissingDataServerError(f'there is no dataset "{dataset_id}"; this worker has no data server')

    async def save_file(
        self, filename: str, content: bytes, public: bool = False, token: str | None = None
    ) -> NoReturn:
        del content, public, token
        raise MissingDataServerError(f'"{filename}" cannot be saved; this worker has no data server')

    async def list_saved_files(
        self, public: bool = False, dir_path: str | None = None, token: str | None = None
    ) -> list[str]:
        del public, dir_path, token
        return []

    async def get_saved_file(self, filename: str, public: bool = False, token: str | None = None) -> NoReturn:
        del public, token
        raise MissingDataServerError(f'there is no saved file "{filename}"; this worker has no data server')

    def set_chunk_cache_size_gb(self, gb: float) -> None:
        """Nothing is read, so there is nothing to keep."""
