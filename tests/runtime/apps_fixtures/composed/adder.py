from ray import serve


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Adder:
    def __init__(self, amount: int):
        self.amount = amount

    def add(self, number: int) -> int:
        return number + self.amount
