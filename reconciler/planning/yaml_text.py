"""YAML as JSON values with positions: C speed when all is well, and every trap of YAML refused by name.

Read as YAML 1.2 (what editors show). Words that older readers take for something else (`yes`, `017`, `4:00:00`) are
refused rather than guessed, and so are duplicate keys, anchors, aliases, merge keys, tags and further documents.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, cast

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from bioengine_runtime.contract.limits import MAX_YAML_BYTES, MAX_YAML_DEPTH, NOT_IN_YAML

MAX_FAULTS = 100
_MAX_INT = 2**63

Path = tuple[str | int, ...]
"""Keys and indexes from the root of a document to one of its values."""


Place = tuple[int, int, int]
"""Line and column, counted from 1, and how many characters it covers."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a text. Lines and columns count from 1; `width` is how many characters it covers."""

    line: int
    column: int
    width: int
    message: str
    fix: str = ""
    path: Path = ()
    file: str = ""
    """Which of several texts it is in; "" is the one that holds `path`."""


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML text, of a file of this name. `value` is None where `faults` say that it could not be read."""

    text: str
    value: Any
    faults: tuple[Fault, ...]
    _root: Node | None = field(default=None, repr=False)
    name: str = ""

    def holding(self, path: Sequence[str | int], file: str = "") -> Document:  # noqa: ARG002 - there is only this one
        """The text in which the value at `path` stands (or the one of this name, if it is given)."""
        return self

    def texts(self) -> tuple[str, ...]:
        """As they stand in their files."""
        return (self.text,)

    def reach(self, path: Sequence[str | int]) -> int:
        """How many steps of `path` there are in this text."""
        node = self._root
        for number, part in enumerate(path):
            found = _child(node, part)
            if found is None:
                return number
            node = found[1]
        return len(path)

    def place(self, path: Sequence[str | int], *, key: bool = False) -> Place:
        """Where the value at `path` is, or its key if wished; of the nearest parent that exists, its key."""
        label, node = None, self._root
        for part in path:
            found = _child(node, part)
            if found is None:
                key = True
                break
            label, node = found
        shown = label if key and label is not None else node
        return _place(shown) if shown is not None else (1, 1, 1)

    def keys(self, path: Sequence[str | int]) -> dict[str, tuple[str, Place]]:
        """Where each key of the mapping at `path` is: file and place."""
        node = self._root
        for part in path:
            found = _child(node, part)
            node = found[1] if found else None
        pairs = cast("list[tuple[Node, Node]]", node.value) if isinstance(node, MappingNode) else []
        return {str(cast("object", key.value)): (self.name, _place(key)) for key, _ in reversed(pairs)}

    def written(self, path: Sequence[str | int]) -> str | None:
        """The scalar at `path` as the author wrote it; None when there is none."""
        node = self._root
        for part in path:
            found = _child(node, part)
            node = found[1] if found else None
        return cast("str", node.value) if isinstance(node, ScalarNode) else None


def read_yaml(data: bytes, name: str = "") -> Document:
    """The document, or everything that is wrong with it. Never raises for bad input."""
    return replace(_read(data), name=name)


def _read(data: bytes) -> Document:
    if len(data) > MAX_YAML_BYTES:
        return _broken("", Fault(0, 0, 0, f"larger than {MAX_YAML_BYTES // 1024} KiB", "move data out of it"))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        return _broken(data.decode("latin-1"), Fault(line, column, 1, "not UTF-8", "save the file as UTF-8"))
    faults = list(islice(_special_marks(text), MAX_FAULTS)) if "&" in text or "!" in text else []
    if faults:
        return Document(text, None, tuple(faults))
    try:
        root = _compose(text)
    except yaml.MarkedYAMLError as error:
        return _broken(text, _syntax_fault(error))
    except yaml.YAMLError as error:
        return _broken(text, _character_fault(text, error))
    except _TooDeep as error:
        return _broken(text, Fault(error.line, 1, 1, f"nested deeper than {MAX_YAML_DEPTH} levels", "flatten it"))
    reader = _Values()
    value = reader.value(root, ()) if root is not None else None
    return Document(text, value, tuple(reader.faults[:MAX_FAULTS]), root)


def _broken(text: str, fault: Fault) -> Document:
    return Document(text, None, (fault,))


# ── From text to nodes ─────────────────────────────────────────────────────────────────────────────────────────────


class _TooDeep(Exception):
    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line


class _NoTags:
    """Answers the composer's questions: implicit types are told later, and depth is counted here.

    The composer recurses in C, without a limit of its own.
    """

    depth = 0

    def resolve(self, kind: type, value: str | None, implicit: object) -> str:  # noqa: ARG002 - as in PyYAML
        return ""

    def descend_resolver(self, parent: Node | None, index: object) -> None:  # noqa: ARG002 - as in PyYAML
        self.depth += 1
        if self.depth > MAX_YAML_DEPTH + 1:
            raise _TooDeep(parent.start_mark.line + 1 if parent is not None and parent.start_mark else 0)

    def ascend_resolver(self) -> None:
        self.depth -= 1

    def check_resolver_prefix(self, *_: object) -> bool:
        return False


_Loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class _Composer(_NoTags, _Loader):
    """The composer of the safe loader, without its resolver and constructor."""

    def __init__(self, text: str) -> None:
        super().__init__(text)  # pyright: ignore[reportCallIssue] - the loader's, which has no types


def _compose(text: str) -> Node | None:
    return cast("Node | None", _Composer(text).get_single_node())


def _special_marks(text: str) -> Iterator[Fault]:
    """Anchors, aliases and tags, each of them."""
    try:
        for event in _events(text):
            mark = event.start_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            anchor = cast("str | None", getattr(event, "anchor", None))
            if anchor is not None:
                shown = f"alias *{anchor}" if isinstance(event, yaml.AliasEvent) else f"anchor &{anchor}"
                yield Fault(line, column, len(anchor) + 1, shown, _NO_ALIAS)
            elif tag := cast("str | None", getattr(event, "tag", None)):
                shown = tag.replace("tag:yaml.org,2002:", "!!")
                yield Fault(line, column, len(shown), f"tag {shown}", "remove it; values are plain YAML here")
    except yaml.YAMLError:
        return  # composing tells it better


def _events(text: str) -> Iterator[yaml.Event]:
    reader = _Composer(text)
    while reader.check_event():
        yield cast("yaml.Event", reader.get_event())


_NO_ALIAS = "write the value out; anchors, aliases and merge keys are refused"


def _syntax_fault(error: yaml.MarkedYAMLError) -> Fault:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    problem = error.problem or str(error)
    said = f"{problem} {error.context or ''}"
    fix = next((fix for sign, fix in _SYNTAX_FIXES if sign in said), "mend this line, or the one above it")
    return Fault(line, column, 1, f"not valid YAML: {problem}", fix)


_SYNTAX_FIXES = (
    ("but found another document", "keep one document; remove the `---` between them"),
    ("a tab character", "indent with spaces"),
    ("cannot start any token", "indent with spaces, and quote a text that starts with a special character"),
    ("mapping values are not allowed", "quote a text that contains `: `, and check the indentation"),
    ("did not find expected key", "check the indentation of this line"),
    ("could not find expected ':'", "a key needs a colon and a space"),
)


def _character_fault(text: str, error: yaml.YAMLError) -> Fault:
    """A character that no YAML text may hold; where it is, the C reader does not say."""
    match = NOT_IN_YAML.search(text)
    position = match.start() if match else 0
    line, column = text.count("\n", 0, position) + 1, position - (text.rfind("\n", 0, position) + 1) + 1
    reason = f"character U+{ord(text[position]):04X} is not allowed" if match else f"not valid YAML: {error}"
    return Fault(line, column, 1, reason, "remove it")


# ── From nodes to values ───────────────────────────────────────────────────────────────────────────────────────────

# What YAML 1.1 and YAML 1.2 read differently; the fix is always the same: say what is meant.
_DISPUTED = re.compile(
    r"(?:yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF)"
    r"|[-+]?0o[0-7]+|[-+]?0[0-9_]+|[-+]?0b[01_]+"
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
    r"|[-+]?[0-9]+(?:_[0-9_]*)+(?:\.[0-9_]*)?"
)
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_HEX = re.compile(r"0x[0-9a-fA-F]{1,16}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TEXT_STARTS = frozenset(string.ascii_letters + "_/") - frozenset("nNoOyYtTfF")
"""Plain scalars that start so are texts, whatever follows (most of them do)."""


@dataclass(slots=True)
class _Values:
    """Turns nodes into values and collects what is wrong on the way."""

    faults: list[Fault] = field(default_factory=list[Fault])

    def value(self, node: Node, path: Path) -> Any:
        if isinstance(node, ScalarNode):
            text = cast("str", node.value)
            if node.style or text[:1] in _TEXT_STARTS:
                return text
            return self._plain(node, text, path)
        if isinstance(node, SequenceNode):
            items = cast("list[Node]", node.value)
            return [self.value(item, (*path, index)) for index, item in enumerate(items)]
        return self._mapping(cast("MappingNode", node), path)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        first: dict[str, Node] = {}
        for key_node, value_node in cast("list[tuple[Node, Node]]", node.value):
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in found:
                line = _place(first[key])[0]
                self._fault(key_node, path, f'key "{key}" is given twice, first in line {line}', "keep one of them")
                continue
            first[key] = key_node
            found[key] = self.value(value_node, (*path, key))
        return found

    def _key(self, node: Node, path: Path) -> str | None:
        if not isinstance(node, ScalarNode):
            self._fault(node, path, "a key must be a text", "write `key: value`")
            return None
        text = cast("str", node.value)
        if node.style or text[:1] in _TEXT_STARTS:
            return text
        if text == "<<":
            self._fault(node, path, "merge key <<", _NO_ALIAS)
            return None
        before = len(self.faults)
        if not isinstance(self._plain(node, text, path), str) and len(self.faults) == before:
            self._fault(node, path, f"key {text or '(empty)'} is not a text", f'quote it: "{text}"')
        return text if len(self.faults) == before else None

    def _plain(self, node: Node, text: str, path: Path) -> Any:
        if text in _WORDS:
            return _WORDS[text]
        if _DISPUTED.fullmatch(text):
            self._fault(node, path, f"{text} means different things to different YAML readers", _clear(text))
            return text
        if _INT.fullmatch(text) or _HEX.fullmatch(text):
            number = int(text, 0) if len(text) <= 24 else _MAX_INT
            if abs(number) >= _MAX_INT:
                self._fault(node, path, "the number is too large", f'quote it to keep it as a text: "{text[:30]}"')
            return number
        if _FLOAT.fullmatch(text):
            number = float(text)
            if math.isinf(number):
                self._fault(node, path, "the number is too large", "give a smaller one")
            return number
        if _NOT_FINITE.fullmatch(text):
            self._fault(
                node, path, f"{text} is not a number that can be passed on", f'quote it, or leave it out: "{text}"'
            )
        return text

    def _fault(self, node: Node, path: Path, message: str, fix: str) -> None:
        self.faults.append(Fault(*_place(node), message, fix, path))


def _clear(text: str) -> str:
    word = {"yes": " or write true", "on": " or write true", "no": " or write false", "off": " or write false"}
    return f'quote it: "{text}"' + word.get(text.lower(), " or write the number plainly")


# ── Positions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _place(node: Node) -> Place:
    start, end = node.start_mark, node.end_mark
    if start is None:
        return 1, 1, 1
    width = end.column - start.column if end is not None and end.line == start.line else 1
    return start.line + 1, start.column + 1, max(width, 1)


def _child(node: Node | None, part: str | int) -> tuple[Node | None, Node] | None:
    """(key node, value node) of one step down."""
    if isinstance(node, MappingNode):
        pairs = cast("list[tuple[Node, Node]]", node.value)
        return next(((key, value) for key, value in pairs if cast("object", key.value) == part), None)
    if isinstance(node, SequenceNode) and isinstance(part, int):
        items = cast("list[Node]", node.value)
        return (None, items[part]) if 0 <= part < len(items) else None
    return None
