"""A YAML file that people write, changed in one place: its comments, order, indentation and line ends stay."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from reconciler.planning.yaml_text import read_yaml

_LAYOUTS = ((2, 4, 2), (2, 2, 0))
"""(mapping, sequence, offset): the two ways in which people indent lists; ours first, for where there is none yet."""


class KeptYaml:
    """One document; `content` is to be changed, and `text` is the file then. Raises ruamel's YAMLError for a text that
    is none."""

    def __init__(self, text: str) -> None:
        self._ends = "\r\n" if "\r\n" in text else "\n"
        text = text.replace("\r\n", "\n")
        tried = [_loaded(text, layout) for layout in _LAYOUTS]
        # The layout in which writing it again changes nothing, if there is one.
        same = (one for one in tried if _dumped(*one) == text)
        self._yaml, self.content = next(same, tried[0])

    @property
    def text(self) -> str:
        return _dumped(self._yaml, self.content).replace("\n", self._ends)


def unmistakable(value: Any) -> Any:
    """The value with quotes around every text, key or not, that our own reader would not take for itself."""
    if isinstance(value, str):
        return value if _is_plain(value) else DoubleQuotedScalarString(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return CommentedMap({unmistakable(key): unmistakable(item) for key, item in items})
    return [unmistakable(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value


def _is_plain(text: str) -> bool:
    document = read_yaml(f"{text}: {text}\n".encode())
    return not document.faults and document.value == {text: text}


def _loaded(text: str, layout: tuple[int, int, int]) -> tuple[Any, Any]:
    yaml: Any = YAML()
    yaml.preserve_quotes, yaml.width, yaml.allow_unicode = True, 2**20, True
    yaml.indent(*layout)
    return yaml, yaml.load(text)


def _dumped(yaml: Any, content: Any) -> str:
    written = io.StringIO()
    yaml.dump(content, written)
    return written.getvalue()
