"""The repository itself: style, types, layers, published schemas, and marks that do not belong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
FORBIDDEN = {
    r"\b(TODO|FIXME|XXX)\b": "finish it, or write an issue",
    r"pragma: no cover": "test it, or remove it",
    r"pytest\.mark\.(skip|xfail)\b|pytest\.skip\(": "a test runs, or it is not there",
    r"\bbreakpoint\(\)|\bimport pdb\b": "a debugger",
    r"^\s*except:\s*(#|$)": "name what is caught",
    r"/work/(main|shared)\b": "a path of one machine",
}


def files(*suffixes: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name.endswith(suffixes) and (ROOT / name).is_file()]


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check"),
        ("ruff", "format", "--check"),
        ("pyright", "--pythonpath", sys.executable),
        ("lint-imports",),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_check_passes(command: tuple[str, ...]) -> None:
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_the_published_schemas_are_those_of_the_models() -> None:
    from reconciler.schemas import published, text

    committed = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "schemas").glob("*.json")}
    wanted = {name: text(schema) for name, schema in published().items()}
    assert committed == wanted, "run: for name in $(reconcile schema); do reconcile schema $name > schemas/$name; done"


@pytest.mark.parametrize("pattern", FORBIDDEN, ids=list(FORBIDDEN.values()))
def test_no_forbidden_mark(pattern: str) -> None:
    mark = re.compile(pattern, re.MULTILINE)
    found = [str(path.relative_to(ROOT)) for path in files(".py") if mark.search(path.read_text(encoding="utf-8"))]
    assert not set(found) - {"tests/test_repository.py"}, FORBIDDEN[pattern]


def test_every_suppressed_check_gives_its_reason() -> None:
    bare = re.compile(r"#\s*(type: ignore|noqa)\s*$", re.MULTILINE)
    found = [str(path.relative_to(ROOT)) for path in files(".py") if bare.search(path.read_text(encoding="utf-8"))]
    assert not found, "name the rule that is suppressed"


def test_every_module_opens_with_its_sentence() -> None:
    opened = re.compile(r'\A(#!.*\n)?\s*r?"""')
    code = [path for path in files(".py") if path.relative_to(ROOT).parts[0] in ("reconciler", "bioengine_runtime")]
    found = [str(path.relative_to(ROOT)) for path in code if not opened.match(path.read_text(encoding="utf-8"))]
    assert not found, "a module opens with one sentence that says what it is for"
