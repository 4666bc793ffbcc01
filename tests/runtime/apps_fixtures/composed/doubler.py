from ray import serve


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Doubler:
    async def double(self, number: int) -> int:
        return 2 * number
