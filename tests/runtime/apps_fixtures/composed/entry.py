from __future__ import annotations

from hypha_rpc.utils.schema import schema_method
from ray import serve
from ray.serve.handle import DeploymentHandle


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Entry:
    def __init__(self, adder: DeploymentHandle, doubler: DeploymentHandle, start: int = 0):
        self.adder, self.doubler, self.start = adder, doubler, start

    @schema_method
    async def compute(self, number: int) -> int:
        """(start + number + amount) * 2"""
        return await self.doubler.double.remote(await self.adder.add.remote(self.start + number))
