"""The entry: it needs no CPU of its own, it hands work on and puts the answers together."""

import time
from typing import Any

from hypha_rpc.utils.schema import schema_method
from pydantic import Field
from ray import serve
from ray.serve.handle import DeploymentHandle
from signals import checked


@serve.deployment(ray_actor_options={"num_cpus": 0, "num_gpus": 0}, max_ongoing_requests=20)
class Pipeline:
    """The handles are parameters named like the files of the deployments (left of the colon in the manifest)."""

    def __init__(self, smoothing: DeploymentHandle, statistics_runtime: DeploymentHandle) -> None:
        self.smoothing = smoothing
        self.statistics = statistics_runtime
        self.started = time.time()

    async def test_deployment(self) -> None:
        """The whole way once, before the first request."""
        result = await self.analyse(signal=[1.0, 2.0, 3.0], window=3)
        assert result["statistics"]["mean"] == 2.0, result

    @schema_method
    async def ping(self) -> dict[str, Any]:
        """Say that the app is there, and since when."""
        return {"status": "ok", "uptime_s": round(time.time() - self.started, 1)}

    @schema_method
    async def analyse(
        self,
        signal: list[float] = Field(..., description="Values, equally spaced in time"),
        window: int = Field(5, ge=1, le=1001, description="Values that are averaged into one"),
    ) -> dict[str, Any]:
        """Smooth a signal and describe the result."""
        smooth = await self.smoothing.smooth.remote(checked(signal), window)
        return {"smooth": smooth, "statistics": await self.statistics.describe.remote(smooth)}
