"""A small app as its author would upload it, in as many versions as a test needs."""

from __future__ import annotations

from typing import Any

MANIFEST = """
id: demo
name: Demo
id_emoji: "🔬"
description: Says who calls and which version answers.
type: ray-serve
format_version: 0.5.0
version: {version}
authorized_users: {{"*": ["*"], "secret": ["alice@lab.example"]}}
deployments: ["demo:Demo"]
frontend_entry: frontend/index.html
"""

CODE = '''
import os
from hypha_rpc.utils.schema import schema_method
from ray import serve


@serve.deployment(ray_actor_options={{"num_cpus": 0}}, max_ongoing_requests=50)
class Demo:
    @schema_method
    async def version(self) -> dict:
        """The version that answers, and its process."""
        return {{"version": "{version}", "pid": os.getpid()}}

    @schema_method
    async def who(self, context: dict = None) -> str:
        """The caller, as Hypha names them."""
        return context["user"]["email"]

    @schema_method
    async def secret(self) -> str:
        """For alice only."""
        return "42"

    @schema_method
    async def setting(self, name: str) -> str:
        """A variable of the app's environment."""
        return os.environ.get(name, "unset")

    @schema_method
    async def echo(self, value):
        """What came."""
        return value

    @schema_method
    async def fail(self):
        """Raises."""
        raise ValueError("no such image: x.tif")

    @schema_method
    async def count(self, to: int):
        """Numbers, one by one."""
        for number in range(to):
            yield number
{more}
'''

MORE = '''
    @schema_method
    async def extra(self) -> str:
        """Only the newer versions have it."""
        return "extra"
'''


def demo_files(version: str, *, more: bool = False) -> list[dict[str, Any]]:
    """Items as `upload_app` takes them."""
    return [
        {"name": "manifest.yaml", "content": MANIFEST.format(version=version), "type": "text"},
        {"name": "demo.py", "content": CODE.format(version=version, more=MORE if more else ""), "type": "text"},
        {"name": "frontend/index.html", "content": "PGgxPkRlbW88L2gxPg==", "type": "base64"},
    ]
