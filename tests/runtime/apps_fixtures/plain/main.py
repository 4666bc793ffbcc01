import os
import time
from pathlib import Path

import helper
import humanize
from hypha_rpc.utils.schema import schema_method
from pydantic import Field
from ray import serve


@serve.deployment(
    ray_actor_options={"num_cpus": 0.1, "runtime_env": {"pip": ["humanize==4.9.0"], "env_vars": {"AUTHOR": "yes"}}},
)
class Main:
    def __init__(self, greeting: str = "hello", size: float = 1.0):
        self.greeting, self.size = greeting, size
        self.steps = ["__init__"]
        self.datasets_in_init = self.bioengine_datasets is not None

    async def async_init(self):
        self.steps.append("async_init")

    def test_deployment(self):
        time.sleep(0.01)
        self.steps.append("test_deployment")

    @schema_method
    async def ping(self, name: str = Field("you", description="Whom to greet")) -> dict:
        """Say hello."""
        return {"pid": os.getpid(), "version": helper.VERSION, "text": f"{self.greeting} {name}"}

    @schema_method
    async def inside(self) -> dict:
        """What the replica finds."""
        return {
            "steps": self.steps,
            "humanize": humanize.__version__,
            "thousand": humanize.intcomma(1000),
            "home": os.environ["HOME"],
            "cwd": str(Path.cwd()),
            "tmpdir": Path(os.environ["TMPDIR"]).is_dir(),  # noqa: ASYNC240
            "code": str(Path(helper.__file__).parent),
            "env": {
                **dict.fromkeys(("AUTHOR", "PLAIN", "SECRET", "HYPHA_TOKEN")),
                **{
                    name: value
                    for name, value in os.environ.items()
                    if name in ("AUTHOR", "PLAIN", "SECRET") or name.startswith(("HYPHA_", "BIOENGINE_", "RAY_AUTH"))
                },
            },
            "datasets": await self.bioengine_datasets.list_datasets(),
        }

    @schema_method
    async def count(self, to: int) -> int:
        """A stream of numbers."""
        for number in range(to):
            yield number
