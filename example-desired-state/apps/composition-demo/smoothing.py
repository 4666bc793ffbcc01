"""The first runtime: a moving average."""

from itertools import accumulate

from ray import serve
from signals import checked, rounded


@serve.deployment(ray_actor_options={"num_cpus": 0.25, "num_gpus": 0})
class Smoothing:
    """`precision` comes from `kwargs` in cluster.yaml."""

    def __init__(self, precision: int = 6) -> None:
        self.precision = precision

    async def smooth(self, signal: list[float], window: int) -> list[float]:
        """The mean of `window` values around each value, of fewer at the ends."""
        values = checked(signal)
        sums = [0.0, *accumulate(values)]
        half = window // 2
        means = []
        for position in range(len(values)):
            first, last = max(0, position - half), min(len(values), position - half + window)
            means.append((sums[last] - sums[first]) / (last - first))
        return rounded(means, self.precision)
