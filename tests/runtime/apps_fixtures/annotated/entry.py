from __future__ import annotations

import bioengine
from bioengine.utils import create_logger
from parts.words import Words
from pydantic import Field
from shared import shout

logger = create_logger("annotated")


@bioengine.app(num_cpus=0, memory_mb=64, max_ongoing_requests=7)
class Entry:
    def __init__(self, words: Words, mark: str = "!") -> None:
        self.words, self.mark, self.steps = words, mark, []

    @bioengine.async_init
    async def warm_up(self) -> None:
        self.steps.append("init")

    @bioengine.smoke_test
    async def try_out(self) -> None:
        self.steps.append("test")
        assert await self.words.reverse("ab") == "ba"

    @bioengine.health_check
    async def well(self) -> None: ...

    @bioengine.method
    async def greet(self, name: str = Field(..., description="Whom.")) -> dict:
        """Greet backwards."""
        return {
            "text": shout(await self.words.reverse(name)) + self.mark,
            "steps": self.steps,
            "version": bioengine.__version__,
            "datasets": [await bioengine.datasets.list_datasets(), await self.bioengine_datasets.list_datasets()],
        }

    @bioengine.method(context=True)
    async def whoami(self, context: dict | None = None) -> str:
        return context["user"]["id"]

    @bioengine.multiplexed(max_models=2)
    async def _model(self, model_id: str) -> str:
        return model_id
