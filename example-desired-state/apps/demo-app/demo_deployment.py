"""Finds bright objects in a small image and measures them: one deployment, one pinned dependency."""

import asyncio
import logging
import os
import time
from typing import Any

from hypha_rpc.utils.schema import schema_method
from pydantic import Field
from ray import serve
from segmentation import measure_objects, otsu_threshold

logger = logging.getLogger("ray.serve")

MAX_PIXELS = 512 * 512


@serve.deployment(
    ray_actor_options={
        "num_cpus": 0.5,
        "num_gpus": 0,
        "memory": 256 * 1024**2,
        # Pin exact versions: the same commit then gives the same environment, today and next year.
        "runtime_env": {"pip": ["humanize==4.13.0"]},
    },
    max_ongoing_requests=10,
)
class DemoApp:
    """Its parameters come from `kwargs` in cluster.yaml, its environment variables from `env`."""

    def __init__(self, greeting: str = "Hello") -> None:
        self.greeting = greeting
        self.short_logs = os.environ.get("LOG_STYLE") == "short"
        self.started = time.time()

    async def async_init(self) -> None:
        """Called once before the first request: the place to load a model."""
        # Packages of runtime_env may also be imported at the top of the file.
        import humanize

        self.humanize = humanize

    async def test_deployment(self) -> None:
        """Called once before the first request: a version that fails here never replaces the one that runs."""
        result = await self.measure(image=[[0, 0, 9], [0, 0, 9], [8, 0, 0]], threshold=None)
        assert result["count"] == 2, result

    def check_health(self) -> None:
        """Called every few seconds: a replica that raises is replaced."""
        if not hasattr(self, "humanize"):
            raise RuntimeError("async_init has not finished")

    @schema_method
    async def ping(self) -> dict[str, Any]:
        """Say that the app is there, and since when."""
        uptime = time.time() - self.started
        return {"status": "ok", "greeting": self.greeting, "uptime": self.humanize.naturaldelta(uptime)}

    @schema_method
    async def measure(
        self,
        image: list[list[float]] = Field(..., description="Rows of grey values, all of the same length"),
        threshold: float | None = Field(None, description="Objects are brighter than this; left out: by Otsu's method"),
    ) -> dict[str, Any]:
        """Count the bright objects of an image and measure each: area, centre, mean brightness."""
        pixels = sum(len(row) for row in image)
        if not pixels or any(len(row) != len(image[0]) for row in image):
            raise ValueError("image must be rows of numbers, all of the same length")
        if pixels > MAX_PIXELS:
            raise ValueError(f"image has {pixels} pixels; at most {MAX_PIXELS} are taken")
        used = otsu_threshold(image) if threshold is None else threshold
        # Off the event loop, so that other requests go on meanwhile.
        objects = await asyncio.to_thread(measure_objects, image, used)
        covered = sum(item["area"] for item in objects)
        if not self.short_logs:
            logger.info("measured pixels=%d objects=%d threshold=%g", pixels, len(objects), used)
        return {
            "threshold": used,
            "count": len(objects),
            "objects": objects,
            "summary": f"{self.humanize.intcomma(len(objects))} objects cover {covered / pixels:.1%} of the image",
        }
