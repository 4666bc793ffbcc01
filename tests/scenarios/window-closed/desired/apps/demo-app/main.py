from hypha_rpc.utils.schema import schema_method
from ray import serve


@serve.deployment(ray_actor_options={"num_cpus": 1, "num_gpus": 0, "runtime_env": {"pip": ["numpy==2.2.1"]}})
class Demo:
    def __init__(self, greeting: str = "hello") -> None:
        self.greeting = greeting

    @schema_method
    async def ping(self) -> str:
        """Answer."""
        return self.greeting
