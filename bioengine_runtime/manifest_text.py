"""The text of a `manifest.yaml` as plain values, in a time and a size that its author cannot choose.

What the reconciler refuses in it is refused here too: anchors and aliases (a few hundred bytes of them are millions of
values), tags, deep nesting, and what is too large.
"""

from __future__ import annotations

from typing import Any

import yaml

from bioengine_runtime.contract.limits import MAX_YAML_BYTES, MAX_YAML_DEPTH

_Loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class BadText(ValueError):
    """It is not YAML, or not of the kind that is taken; the message is one line."""


def read_manifest(content: bytes) -> Any:
    """The document. Raises BadText."""
    if len(content) > MAX_YAML_BYTES:
        raise BadText(f"larger than {MAX_YAML_BYTES // 1024} KiB; move data out of it")
    try:
        _check(content)
        return yaml.load(content, Loader=_Loader)
    except BadText:
        raise
    except (yaml.YAMLError, ValueError) as error:  # the latter: not UTF-8, a date that there is not, a number too long
        raise BadText(f"not YAML: {' '.join(str(error).split())}") from None


def _check(content: bytes) -> None:
    """Of the marks in it alone: nothing is built before they are known to be harmless."""
    depth = 0
    for event in yaml.parse(content, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if anchor := getattr(event, "anchor", None):
            kind = "alias *" if isinstance(event, yaml.AliasEvent) else "anchor &"
            raise BadText(f"line {line}: {kind}{anchor}; write the value out, anchors and aliases are refused")
        if tag := getattr(event, "tag", None):
            raise BadText(f"line {line}: tag {tag}; remove it, values are plain YAML here")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_YAML_DEPTH:
            raise BadText(f"line {line}: nested deeper than {MAX_YAML_DEPTH} levels; flatten it")
