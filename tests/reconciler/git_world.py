"""Real git repositories for tests, made with few processes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

MANIFEST = """\
name: Demo
id: demo-app
id_emoji: "🔬"
description: A demo
type: ray-serve
version: 1.0.0
deployments: [main:Main]
"""
CODE = """\
from hypha_rpc.utils.schema import schema_method
from ray import serve


@serve.deployment
class Main:
    @schema_method
    async def ping(self): ...
"""
FILES = {
    "cluster.yaml": "name: lab\napps:\n  demo: {source: apps/demo-app}\n",
    "apps/demo-app/manifest.yaml": MANIFEST,
    "apps/demo-app/main.py": CODE,
    "apps/demo-app/frontend/index.html": "<p>hello</p>\n",
}
_ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Anna",
    "GIT_AUTHOR_EMAIL": "anna@example.org",
    "GIT_COMMITTER_NAME": "Anna",
    "GIT_COMMITTER_EMAIL": "anna@example.org",
}


class Repository:
    """A work tree with its `.git`, as an author has it."""

    def __init__(self, path: Path, files: Mapping[str, str | bytes] = FILES, *, object_format: str = "sha1") -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", "main", f"--object-format={object_format}")
        if files:
            self.commit("First", files)

    @classmethod
    def copy(cls, template: Path, path: Path) -> Repository:
        """A repository like another, for the price of a few files."""
        shutil.copytree(template, path)
        self = cls.__new__(cls)
        self.path = path
        return self

    def git(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, env=_ENV, input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    def write(self, files: Mapping[str, str | bytes | None]) -> None:
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.unlink()
            elif isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_text(content, encoding="utf-8")

    def commit(self, message: str, files: Mapping[str, str | bytes | None]) -> str:
        """The new commit's id."""
        self.write(files)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.head

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def tree(self, path: str) -> str:
        """The id git gives a folder or file of HEAD."""
        return self.git("rev-parse", f"HEAD:{path}")

    def plant(self, mode: str, path: str, content: str = "", *, message: str = "Plant") -> str:
        """Commit an entry that a file system or `git add` would not take: any mode, any name, any object."""
        oid = content if mode == "160000" else self.git("hash-object", "-w", "--stdin", stdin=content)
        listing = f"{mode} {oid}\t{path}\0"
        subprocess.run(
            ["git", "update-index", "-z", "--index-info"], cwd=self.path, env=_ENV, input=listing.encode(), check=True
        )
        tree = self.git("write-tree")
        commit = self.git("commit-tree", tree, "-p", "HEAD", "-m", message)
        self.git("update-ref", "HEAD", commit)
        return commit
