"""Reading a Python file without running it: its syntax tree, and what its names stand for.

Law: reading is bounded. Hostile input (deep nesting, megabytes) ends in a CodeError.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

MAX_SOURCE_BYTES = 1024 * 1024
TOO_DEEP = "nested too deeply to be read"


class CodeError(Exception):
    """The file cannot be read as an app's code. Lines and columns count from 1; line 0 means the file as a whole.

    `filename` is empty where it is about what the caller asked for."""

    def __init__(self, message: str, *, line: int = 0, column: int = 0, fix: str = "", filename: str = "") -> None:
        super().__init__(message)
        self.message, self.line, self.column, self.fix, self.filename = message, line, column, fix, filename

    def told(self) -> str:
        """`runtimes/a.py:3: what is wrong; the way out`."""
        where = f"{self.filename}:{self.line}: " if self.filename and self.line else ""
        return where + self.message + (f"; {self.fix}" if self.fix else "")


@lru_cache(maxsize=8)  # the classes of one file are read one after the other, and the apps of one folder too
def parse(source: str, filename: str) -> ast.Module:
    """The file's syntax tree. Raises CodeError."""
    if len(source) > MAX_SOURCE_BYTES:
        raise CodeError(f"larger than {MAX_SOURCE_BYTES // 1024} KiB", fix="move data out of the code")
    try:
        return ast.parse(source, filename)
    except (SyntaxError, ValueError) as error:
        raise _unread(source, error) from None
    except (RecursionError, MemoryError):
        raise CodeError(TOO_DEEP, line=1, column=1, fix="divide it into several statements") from None


def _unread(source: str, error: SyntaxError | ValueError) -> CodeError:
    if "\0" in source:
        line = source.count("\n", 0, source.index("\0")) + 1
        return CodeError("a null byte, which no Python file has", line=line, column=1, fix="save it as plain text")
    said = error if isinstance(error, SyntaxError) else SyntaxError(str(error))
    # A position past the text is how CPython says "at the end".
    line, column = min(said.lineno or 1, source.count("\n") + 1), max(said.offset or 1, 1)
    if said.msg.startswith("Exceeds the limit"):  # of digits: how to raise it is no advice for an app
        return CodeError("a number of too many digits", line=line, column=column, fix="write it as a text")
    fix = "mend this line, or the one above it"
    return CodeError(f"Python cannot read it: {said.msg}", line=line, column=column, fix=fix)


def statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of the module's own level, also those under `if`, `try` and `with`."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            yield from statements([*node.body, *handlers, *node.orelse, *node.finalbody])
        elif isinstance(node, ast.With):
            yield from statements(node.body)


def imported_names(tree: ast.Module, filename: str = "") -> dict[str, str]:
    """Local name → the dotted name it was imported from. What is relative (`from .a import A`) needs the filename."""
    names: dict[str, str] = {}
    package = filename.split("/")[:-1]
    for node in statements(tree.body):
        if isinstance(node, ast.Import):
            for item in node.names:
                top = item.name.split(".")[0]
                names[item.asname or top] = item.name if item.asname else top
        elif isinstance(node, ast.ImportFrom) and node.level <= len(package) + 1:
            base = package[: len(package) + 1 - node.level] if node.level else []
            for item in node.names:
                names[item.asname or item.name] = ".".join([*base, *filter(None, [node.module]), item.name])
    return names


def is_called(decorator: ast.expr, spelling: str, dotted: frozenset[str], names: Mapping[str, str]) -> bool:
    """True when the decorator is (a call of) one of the dotted names, however it was imported."""
    parts = _parts(decorator)
    if not parts:
        return False
    full, known = dotted_name(decorator, names), parts[0] in names
    # A star import or a re-export hides where a name comes from; then its spelling has to do.
    return full in dotted or (not known and full.split(".")[-1] == spelling) or full.endswith(f".serve.{spelling}")


def dotted_name(node: ast.expr, names: Mapping[str, str]) -> str:
    """The dotted name of (a call of) something, with what it was imported as put in; empty for anything else."""
    parts = _parts(node)
    return ".".join([names.get(parts[0], parts[0]), *parts[1:]]) if parts else ""


def _parts(node: ast.expr) -> list[str]:
    target = node.func if isinstance(node, ast.Call) else node
    parts: list[str] = []
    while isinstance(target, ast.Attribute):
        parts.insert(0, target.attr)
        target = target.value
    return [target.id, *parts] if isinstance(target, ast.Name) else []


def lineage(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> tuple[list[ast.ClassDef], bool]:
    """The class and its bases of the same file, nearest first; True when some base is from elsewhere."""
    found, foreign, waiting = [node], False, list(node.bases)
    while waiting:
        base = waiting.pop(0)
        name = base.id if isinstance(base, ast.Name) else ""
        if name == "object":
            continue
        if name in classes and classes[name] not in found:
            found.append(classes[name])
            waiting.extend(classes[name].bases)
        elif name not in classes:
            foreign = True
    return found, foreign
