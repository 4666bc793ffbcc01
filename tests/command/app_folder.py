"""A small app folder as its author would have it on disk."""

from __future__ import annotations

from pathlib import Path

MANIFEST = """id: demo
name: Demo
id_emoji: "🔬"
description: Says things.
type: ray-serve
version: 1.0.0
authorized_users: ["*"]
deployments: ["demo:Demo"]
"""

CODE = '''from hypha_rpc.utils.schema import schema_method
from pydantic import Field
from ray import serve


@serve.deployment(num_replicas=1)
class Demo:
    @schema_method
    async def ping(self) -> str:
        """Say pong."""
        return "pong"
'''


def a_folder(where: Path, manifest: str = MANIFEST, **files: str) -> Path:
    """The folder, with more files or others: **{"demo.py": "…"}."""
    folder = where / "my-app"
    for name, content in {"manifest.yaml": manifest, "demo.py": CODE, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
    return folder
