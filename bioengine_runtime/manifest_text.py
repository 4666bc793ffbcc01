"""The text of a `manifest.yaml` as plain values, in a time and a size that its author cannot choose.

What the reconciler refuses in it is refused here too: anchors and aliases (a few hundred bytes of them are millions of
values), tags, merge keys, a key that is given twice (of two rules for who may call, one would not count), deep nesting,
and what is too large.
"""

from __future__ import annotations

from typing import Any

import yaml

from bioengine_runtime.contract.limits import MAX_YAML_BYTES, MAX_YAML_DEPTH, NOT_IN_YAML

_Loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class BadText(ValueError):
    """It is not YAML, or not of the kind that is taken; the message is one line, with the way out."""


def read_manifest(content: bytes) -> Any:
    """The document. Raises BadText."""
    if len(content) > MAX_YAML_BYTES:
        raise BadText(f"larger than {MAX_YAML_BYTES // 1024} KiB; move data out of it")
    text = _decoded(content)
    try:
        _check(text)
        _check_keys(yaml.compose(text, Loader=_Loader))
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise BadText(f"{where}not YAML: {error.problem}; mend this line or the one above it") from None
    except BadText:
        raise
    except (yaml.YAMLError, ValueError) as error:  # the latter: a date that there is not, a number too long
        why = " ".join(str(error).split())
        raise BadText(f"not YAML: {why}; quote a text that looks like something else") from None


def _decoded(content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadText(f"line {line}: not UTF-8; save the file as UTF-8") from None
    if found := NOT_IN_YAML.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise BadText(f"line {line}: character U+{ord(found[0]):04X} is not allowed; remove it")
    return text


def _check(text: str) -> None:
    """Of the marks in it alone: nothing is built before they are known to be harmless."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if anchor := getattr(event, "anchor", None):
            kind = "alias *" if isinstance(event, yaml.AliasEvent) else "anchor &"
            raise BadText(f"line {line}: {kind}{anchor}; write the value out, anchors and aliases are refused")
        if tag := getattr(event, "tag", None):
            raise BadText(f"line {line}: tag {tag}; remove it, values are plain YAML here")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_YAML_DEPTH:
            raise BadText(f"line {line}: nested deeper than {MAX_YAML_DEPTH} levels; flatten it")


def _check_keys(node: Any) -> None:
    """That no mapping has a key twice, or takes keys from elsewhere."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item)
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value == "<<" and not key.style:
            raise BadText(f"line {line}: merge key <<; write its keys out")
        if isinstance(key, yaml.ScalarNode):
            if key.value in first:
                before = f"first in line {first[key.value]}"
                raise BadText(f'line {line}: key "{key.value}" is given twice, {before}; keep one of them')
            first[key.value] = line
        _check_keys(value)
