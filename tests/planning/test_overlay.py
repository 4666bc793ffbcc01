"""One cluster.yaml that says only what differs from another: what wins, and where a mistake is told."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.planning.declare import parse_cluster
from reconciler.planning.overlay import MAX_BASES, Beside, read_layers
from reconciler.planning.yaml_text import Document, Fault


def an_oid(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def beside(files: Mapping[str, str], refused: Mapping[str, str] | None = None) -> Beside:
    texts = {an_oid(text): text.encode() for text in files.values()}
    return Beside({name: an_oid(text) for name, text in files.items()}, texts.__getitem__, refused or {})


def layered(top: str, **bases: str) -> Document:
    files = {f"{name}.yaml": text for name, text in bases.items()}
    return read_layers(top.encode(), "prod.yaml", beside(files))


def merged(top: str, **bases: str) -> Any:
    document = layered(top, **bases)
    assert document.faults == ()
    return {key: value for key, value in document.value.items() if key != "extends"}


def parsed(top: str, **bases: str) -> tuple[Document, list[Fault]]:
    files = {f"{name}.yaml": text for name, text in bases.items()}
    _, document, faults = parse_cluster(top.encode(), "prod.yaml", beside(files))
    return document, faults


def told(top: str, **bases: str) -> list[str]:
    """Every mistake as file:line:column: message."""
    document, faults = parsed(top, **bases)
    places = [(document.holding(fault.path, fault.file).name, fault) for fault in faults]
    return [f"{name}:{fault.line}:{fault.column}: {fault.message}" for name, fault in places]


# ── What wins ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_extends_nothing_is_just_itself() -> None:
    document = layered("name: lab\napps: {a: {source: apps/a, version: null}}\n")
    assert document.value["apps"]["a"] == {"source": "apps/a", "version": None} and document.name == "prod.yaml"


def test_mappings_are_merged_and_everything_else_replaces() -> None:
    base = "name: lab\npolicy: {prune: true, parallel: 2}\napps: {a: {depends_on: [b, c], replicas: 1}, b: {}}\n"
    top = "extends: base.yaml\nname: prod\npolicy: {parallel: 8}\napps: {a: {depends_on: [b]}, d: {}}\n"
    assert merged(top, base=base) == {
        "name": "prod",
        "policy": {"prune": True, "parallel": 8},
        "apps": {"a": {"depends_on": ["b"], "replicas": 1}, "b": {}, "d": {}},
    }


def test_a_written_null_removes_and_where_nothing_is_it_stays_null() -> None:
    base = "apps: {a: {replicas: 1}, b: {}}\n"
    top = "extends: base.yaml\napps: {a: {replicas: ~, version: null}, b: null}\n"
    assert merged(top, base=base) == {"apps": {"a": {"version": None}}}


def test_nothing_after_a_colon_does_not_remove() -> None:
    (fault,) = told("extends: base.yaml\nname: p\napps:\n  b:\n", base="apps: {b: {source: apps/b}}\n")
    assert fault == "prod.yaml:4:3: b is empty"


def test_a_secret_reference_is_one_value() -> None:
    def text(kind: str) -> str:
        app = f"hypha_token: {{{kind}: B}}, env: {{'*': {{KEY: {{{kind}: C}}}}}}, kwargs: {{M: {{x: {{{kind}: D}}}}}}"
        return f"hypha: {{token: {{{kind}: A}}}}\napps: {{a: {{{app}}}}}\n"

    assert merged("extends: base.yaml\n" + text("file"), base=text("env")) == {
        "hypha": {"token": {"file": "A"}},
        "apps": {
            "a": {
                "hypha_token": {"file": "B"},
                "env": {"*": {"KEY": {"file": "C"}}},
                "kwargs": {"M": {"x": {"env": "D", "file": "D"}}},
            }
        },
    }


def test_the_nearest_of_several_bases_wins() -> None:
    value = merged(
        "extends: b1.yaml\na: 1\n", b1="extends: b2.yaml\na: 2\nb: 2\nd: null\n", b2="a: 3\nb: 3\nc: 3\nd: 3\n"
    )
    assert value == {"a": 1, "b": 2, "c": 3}


trees = st.recursive(
    st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
).filter(lambda tree: isinstance(tree, dict))


def flow(tree: Any) -> str:
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key}: {flow(value)}" for key, value in tree.items()) + "}"
    return str(tree)


@given(trees, trees)
@settings(max_examples=150, deadline=None)
def test_law_everything_the_upper_file_says_is_so_and_the_base_is_only_added(upper: Any, lower: Any) -> None:
    result = merged(f"extends: base.yaml\nx: {flow(upper)}\n", base=f"x: {flow(lower)}\n")["x"]

    def holds(said: Any, result: Any) -> bool:
        if isinstance(said, dict):
            return isinstance(result, dict) and all(key in result and holds(said[key], result[key]) for key in said)
        return said == result

    assert holds(upper, result)
    assert set(result) == {*upper, *lower}


# ── Where a mistake is told ────────────────────────────────────────────────────────────────────────────────────────


BASE = "policy:\n  paralel: 2\napps:\n  a:\n    source: apps/a\n    replicas: 0\n    depends_on: [nobody]\n"


def test_a_mistake_is_told_where_its_value_stands() -> None:
    top = "extends: base.yaml\nname: prod\napps:\n  a:\n    max_ongoing_requests: 0\n  b:\n    sorce: apps/b\n"
    assert sorted(told(top, base=BASE)) == [
        'base.yaml:2:3: unknown field "paralel"',
        "base.yaml:6:15: replicas: must be at least 1",
        "base.yaml:7:18: a depends on nobody, which this file does not name",
        "prod.yaml:5:27: max_ongoing_requests must be at least 1",
        'prod.yaml:7:5: unknown field "sorce"',
    ]


def test_a_value_that_was_replaced_is_told_in_the_upper_file() -> None:
    top = "extends: base.yaml\nname: prod\npolicy: null\napps: {a: {replicas: 0, depends_on: []}}\n"
    assert told(top, base=BASE) == ["prod.yaml:4:22: replicas: must be at least 1"]


def test_bad_yaml_of_a_base_is_told_in_the_base_alone() -> None:
    assert told("extends: base.yaml\nname: p\n", base="name: x\na: [\n") == [
        "base.yaml:3:1: not valid YAML: did not find expected node content"
    ]
    assert (
        told("extends: base.yaml\nname: p\n", base="a: 1\na: 2\n")[0]
        == 'base.yaml:2:1: key "a" is given twice, first in line 1'
    )
    assert told("extends: base.yaml\nname: p\n", base="- a\n") == ["base.yaml:0:0: expected a mapping"]
    assert told("extends: base.yaml\nname: p\n", base="") == ["base.yaml:0:0: expected a mapping"]


@pytest.mark.parametrize(
    ("extends", "message", "fix"),
    [
        ("bsae.yaml", "no file bsae.yaml in the folder of prod.yaml", 'did you mean "base.yaml"?'),
        ("../base.yaml", "extends: a base lies in the same folder", "name it without a folder, such as base.yaml"),
        ("/etc/passwd", "extends: a base lies in the same folder", "name it without a folder, such as base.yaml"),
        ("..", "extends: a base lies in the same folder", "name it without a folder, such as base.yaml"),
        ("[base.yaml]", "extends: expected the name of a file", "name a file in this folder, such as base.yaml"),
        ("prod.yaml", "extends goes round in a circle: prod.yaml → prod.yaml", "remove one of these lines"),
        ("linked.yaml", "linked.yaml: a symbolic link", "commit a plain file"),
    ],
)
def test_a_base_that_cannot_be_had_is_told_at_the_line_that_names_it(extends: str, message: str, fix: str) -> None:
    files = beside({"base.yaml": "a: 1\n"}, {"linked.yaml": "a symbolic link"})
    _, document, faults = parse_cluster(f"name: p\nextends: {extends}\n".encode(), "prod.yaml", files)
    found = [(fault.line, fault.column, fault.message, fault.fix) for fault in faults]
    assert found == [(2, 10, message, fix)] and document.holding((), faults[0].file).name == "prod.yaml"


def test_a_circle_of_files_is_told_once_where_it_closes() -> None:
    assert told("extends: a.yaml\nname: p\n", a="x: 1\nextends: b.yaml\n", b="extends: a.yaml\n")[0] == (
        "b.yaml:1:10: extends goes round in a circle: a.yaml → b.yaml → a.yaml"
    )


def test_bases_end_somewhere() -> None:
    chain = {f"b{n}": f"extends: b{n + 1}.yaml\nk{n}: 1\n" for n in range(1, 9)}
    last = {f"b{MAX_BASES}": "k: 1\n"}
    assert merged("extends: b1.yaml\n", **{**chain, **last})["k"] == 1
    assert f"more than {MAX_BASES} bases" in told("extends: b1.yaml\n", **chain)[0]


def test_a_dependency_on_an_app_that_was_removed_is_a_mistake() -> None:
    base = "apps: {a: {source: apps/a}, b: {source: apps/b, depends_on: [a]}}\n"
    (fault,) = told("extends: base.yaml\nname: p\napps: {a: null}\n", base=base)
    assert fault == "base.yaml:1:62: b depends on a, which this file does not name"
