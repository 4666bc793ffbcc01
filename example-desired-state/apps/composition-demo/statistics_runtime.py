"""The second runtime: a few numbers that describe a signal."""

import statistics

from ray import serve
from signals import checked, rounded


@serve.deployment(ray_actor_options={"num_cpus": 0.25, "num_gpus": 0})
class Statistics:
    """`precision` comes from `kwargs` in cluster.yaml."""

    def __init__(self, precision: int = 6) -> None:
        self.precision = precision

    async def describe(self, signal: list[float]) -> dict[str, float]:
        """Number of values, mean, spread, smallest and largest."""
        values = checked(signal)
        numbers = [statistics.fmean(values), statistics.pstdev(values), min(values), max(values)]
        names = ("mean", "deviation", "smallest", "largest")
        return {"count": len(values), **dict(zip(names, rounded(numbers, self.precision), strict=True))}
