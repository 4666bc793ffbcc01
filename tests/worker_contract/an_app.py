"""An app that says what it was given; small, and of a name that nobody else has."""

from __future__ import annotations

from typing import Any

MANIFEST = """
id: {alias}
name: Contract
id_emoji: "📜"
description: Says what it was given.
type: ray-serve
format_version: 0.5.0
version: {version}
deployments: ["contract_app:ContractApp"]
"""

CODE = """
import os

from hypha_rpc.utils.schema import schema_method
from ray import serve


@serve.deployment(ray_actor_options={{"num_cpus": 0}})
class ContractApp:
    def __init__(self, greeting: str = "hello"):
        self.greeting = greeting
        print("greeting is", greeting)

    @schema_method
    async def look(self, names: list) -> dict:
        \"\"\"What it was made with, variables by name, and its process.\"\"\"
        found = {{name: os.environ.get(name) for name in names}}
        return {{"version": "{says}", "greeting": self.greeting, "pid": os.getpid(), **found}}
"""


def files(alias: str, version: str, *, says: str | None = None, **more: str) -> list[dict[str, Any]]:
    """Items as `upload_app` takes them. `says`: the version that the code names; `more`: further files by stem."""
    return [
        {"name": "manifest.yaml", "content": MANIFEST.format(alias=alias, version=version), "type": "text"},
        {"name": "contract_app.py", "content": CODE.format(says=says or version), "type": "text"},
        *({"name": f"{stem}.txt", "content": text, "type": "text"} for stem, text in more.items()),
    ]
